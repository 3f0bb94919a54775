// Level: the last seconds as bars; a single bar where motion is not wanted.

const canvas = document.getElementById("meter");
const calm = matchMedia("(prefers-reduced-motion: reduce)");
const STEP = 5; // pixels from bar to bar
let peaks = []; // 0 to 1, of every 40 ms
let frame = 0;

export const meter = {
  push(peak) {
    peaks = [...peaks.slice(-250), peak];
    frame ||= requestAnimationFrame(draw);
  },
  clear() {
    peaks = [];
    draw();
  },
};

function draw() {
  frame = 0;
  const [width, height, ratio] = [canvas.clientWidth, canvas.clientHeight, devicePixelRatio];
  Object.assign(canvas, { width: width * ratio, height: height * ratio });
  canvas.dataset.live = peaks.length > 0; // a change of size has reset the colour
  canvas.ariaValueNow = Math.round(100 * (peaks.at(-1) ?? 0));
  const context = canvas.getContext("2d");
  context.scale(ratio, ratio);
  context.fillStyle = getComputedStyle(canvas).color;
  const bar = (x, w, h) => context.fillRect(x, (height - h) / 2, w, h);
  const loud = (i) => Math.sqrt(peaks.at(i) ?? 0);
  if (calm.matches) return bar(0, Math.max(STEP, width * loud(-1)), STEP);
  const count = Math.floor(width / STEP);
  for (let i = 1; i <= count; i++) bar(width - STEP * i, 3, Math.max(3, loud(-i) * height));
}

new ResizeObserver(draw).observe(canvas);
