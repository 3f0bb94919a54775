// The page: buttons, captions, messages. Sound is the business of sound.js, the server of session.js.

import { meter } from "./meter.js";
import { Session } from "./session.js";
import { microphones, openMicrophone, readRecording } from "./sound.js";
import { clock, srt, txt } from "./transcript.js";

const SILENT = 0.0003; // peak, -70 dB: less is a microphone that is switched off
const SILENT_SECONDS = 2;
const BEHIND_SECONDS = 3; // then it is said
const NOTHING = { stable: "", volatile: "", start: 0 };

const $ = (id) => document.getElementById(id);
const captions = $("captions");
const url = new URL("v1/stream", location.origin + location.pathname);
url.protocol = url.protocol.replace("http", "ws");

let segments = []; // finished, in order
let duration = 0; // seconds of sound that they come from
let current = null; // what runs, from Start to the last word: { session, offset, ... }
let opening = ""; // what is being opened for it
let file = null; // the newest recording's name
let follow = true; // the newest line is in view: keep it there
let fresh = 0; // lines that have come since it was not
let top = 0; // last position of the captions
let saved = true;

// --- captions

function showFinal({ text, start, words }) {
  const timed = (word) => ({ ...word, start: word.start + current.offset, end: word.end + current.offset });
  segments.push({ text, words: words.map(timed) });
  saved = false;
  scroll();
  if (!follow) fresh += 1;
  const item = document.createElement("li");
  item.append($("partial").cloneNode(true)); // of the same shape: what was there does not move
  item.firstChild.removeAttribute("id");
  item.querySelector("time").textContent = clock(start + current.offset);
  item.querySelector("span").textContent = text;
  $("finals").append(item);
  showPartial(NOTHING);
}

function showPartial({ stable, volatile, start }) {
  $("stable").textContent = stable;
  $("volatile").textContent = stable && volatile ? ` ${volatile}` : volatile;
  $("partial").querySelector("time").textContent = stable || volatile ? clock(start + current.offset) : "";
  update();
}

function scroll() { // a reader's own scrolling counts at once, even if its event is still to come
  const rest = captions.scrollHeight - captions.clientHeight - captions.scrollTop;
  if (rest < 4) follow = true;
  else if (captions.scrollTop < top) follow = false; // by hand: we only scroll down
  if (follow) captions.scrollTop = captions.scrollHeight;
  top = captions.scrollTop;
}

captions.onscroll = () => {
  scroll();
  if (follow) fresh = 0;
  update();
};
$("jump").onclick = () => {
  follow = true;
  captions.focus({ preventScroll: true });
  scroll();
};
new ResizeObserver(scroll).observe(captions);

// --- start, pause, recordings

function begin(rate, encoding, more) {
  const mine = (act) => (...values) => run === current && act(...values);
  const hotwords = $("hotwords").value.split(",").map((word) => word.trim()).filter(Boolean);
  const token = new URLSearchParams(location.hash.slice(1)).get("token");
  const run = { offset: segments.length ? duration : 0, seconds: 0, heardAt: performance.now(), ...more };
  current = run;
  if (!segments.length) file = null;
  run.session = new Session({ url, token, rate, encoding, hotwords }, {
    partial: mine(showPartial),
    final: mine(showFinal),
    state: mine((state, model) => {
      run.state = state;
      captions.lang = model?.language ?? captions.lang;
      update();
    }),
    progress: mine((seconds, behind) => {
      duration = run.offset + seconds;
      run.seconds = seconds;
      run.behind = (run.behind ?? behind) * 0.7 + behind * 0.3; // calmer to read
      update();
    }),
    closed: mine((problem) => {
      showPartial(NOTHING);
      if (!run.ending) run.source?.stop();
      run.lock?.release();
      current = null;
      meter.clear();
      if (problem || run.problem || run.silent) notice(problem || run.problem || "");
      update();
    }),
  });
}

async function open(what, act) {
  if (current || opening) return notice("Something is running: stop it first.");
  opening = what;
  notice("");
  await act().catch((error) => {
    console.debug(error);
    notice(error.message);
  });
  opening = "";
  update();
}

const listen = () => open("Opening the microphone", async () => {
  const early = []; // what is said before its rate is known
  let take = (chunk) => early.push(chunk);
  const gone = () => pause("The microphone was unplugged. The text so far is kept.");
  const source = await openMicrophone($("device").value, (chunk) => take(chunk), gone);
  begin(source.rate, "s16le", { source });
  const run = current;
  take = ({ samples, peak }) => {
    run.session.push(samples);
    if (peak > SILENT) run.heardAt = performance.now();
    meter.push(peak);
  };
  early.forEach(take);
  const keep = (lock) => (run === current ? (run.lock = lock) : lock.release());
  navigator.wakeLock?.request("screen").then(keep, () => {}); // the screen stays on
  listDevices();
});

const transcribe = (recording) => recording && open("Reading", async () => {
  const { samples, rate } = await readRecording(recording);
  begin(rate, "f32le", { length: samples.length / rate });
  file = recording.name;
  current.session.push(samples);
  current.session.end();
});

// The microphone is let go at once; the last words are still waited for.
async function pause(problem = "") {
  const run = current;
  if (!run || run.ending) return;
  Object.assign(run, { ending: true, problem });
  update();
  await run.source?.stop();
  run.session.end(!run.source);
}

$("go").onclick = () => {
  if (opening) return; // not disabled meanwhile: a button that is loses the keyboard
  if (!current) listen();
  else if (current.ending) current.session.close();
  else pause();
};
$("open").onclick = () => $("file").click();
$("file").onchange = () => {
  transcribe($("file").files[0]);
  $("file").value = "";
};
addEventListener("dragover", (event) => {
  if (!event.dataTransfer.types.includes("Files")) return;
  event.preventDefault();
  $("drop").hidden = false;
});
addEventListener("dragleave", ({ relatedTarget }) => { $("drop").hidden ||= !relatedTarget; });
addEventListener("drop", (event) => {
  if (!event.dataTransfer.files.length) return;
  event.preventDefault();
  $("drop").hidden = true;
  transcribe(event.dataTransfer.files[0]);
});

// --- what is told

function status() {
  if (opening) return ["wait", opening];
  if (!current) return ["off", !segments.length ? "Ready" : file ? "Done" : "Paused"];
  if (current.state === "connecting") return ["wait", "Connecting"];
  if (current.state === "offline") return ["wait", "Connection lost, reconnecting"];
  if (current.ending) return ["wait", "Finishing"];
  if (current.length) return ["on", "Transcribing"];
  if (current.silent) return ["wait", "Listening, but silent"];
  return current.behind > BEHIND_SECONDS ? ["wait", "The server is behind"] : ["on", "Listening"];
}

function notice(text, label = "Close", act = () => {}) {
  $("notice").hidden = !text;
  $("notice").firstElementChild.textContent = text;
  $("notice-button").textContent = label;
  $("notice-button").onclick = () => {
    notice("");
    act();
  };
  update();
}

function set(id, text) {
  if ($(id).textContent !== text) $(id).textContent = text; // else it would be read aloud again
}

function update() {
  const empty = !segments.length;
  const [kind, text] = status();
  $("state").dataset.kind = kind;
  set("state-text", text);
  const start = empty || file ? "Start" : "Continue";
  set("go", !current ? start : current.ending || current.length ? "Stop" : "Pause");
  $("go").dataset.kind = current ? "stop" : "start";
  $("go").setAttribute("aria-disabled", Boolean(opening));
  $("open").disabled = Boolean(opening || current);
  for (const id of ["copy", "txt", "srt", "clear"]) $(id).disabled = empty;
  $("welcome").hidden = Boolean(!empty || current || opening);
  set("time", clock(current ? current.offset + current.seconds : duration));
  const behind = current?.length ? undefined : current?.behind;
  const delay = behind < 0.995 ? `${Math.max(1, Math.round(behind * 100))}0 ms` : `${behind?.toFixed(1)} s`;
  set("delay", behind === undefined ? "–" : delay);
  $("progress").hidden = !current?.length;
  $("meter").hidden = Boolean(current?.length);
  $("progress").value = current?.length ? Math.min(current.seconds / current.length, 1) : 0;
  $("jump").hidden = follow || !(current || fresh);
  set("jump", fresh ? `Jump to live (${fresh} new)` : "Jump to live");
  scroll();
}

setInterval(() => { // a microphone that is switched off sends silence, or nothing
  if (!current?.source || current.ending) return;
  const silent = performance.now() - current.heardAt > 1000 * SILENT_SECONDS;
  if (silent === Boolean(current.silent)) return;
  current.silent = silent;
  const question = "Is the microphone muted, or another one chosen?";
  notice(silent ? `No sound for ${SILENT_SECONDS} seconds. ${question}` : "");
}, 250);

// --- text that leaves the page

$("copy").onclick = async () => {
  const text = txt(segments);
  await (navigator.clipboard?.writeText(text) ?? copyOld(text));
  saved = true;
  set("copy", "Copied");
  setTimeout(() => set("copy", "Copy"), 1500);
};

function copyOld(text) { // pages without https have no clipboard
  const area = Object.assign(document.createElement("textarea"), { value: text });
  document.body.append(area);
  area.select();
  document.execCommand("copy");
  area.remove();
}

function download(text, suffix) {
  const href = URL.createObjectURL(new Blob([text], { type: "text/plain;charset=utf-8" }));
  const now = new Date().toLocaleString("sv").replaceAll(":", "."); // year first
  const name = file?.replace(/\.\w+$/, "") ?? `captions ${now}`;
  Object.assign(document.createElement("a"), { href, download: `${name}.${suffix}` }).click();
  setTimeout(() => URL.revokeObjectURL(href), 10000);
  saved = true;
}
$("txt").onclick = () => download(txt(segments), "txt");
$("srt").onclick = () => download(srt(segments, duration), "srt");

$("clear").onclick = () => {
  const [old, lines, name, seconds] = [segments, [...$("finals").children], file, duration];
  [segments, fresh, file] = [[], 0, null];
  if (!current) duration = 0;
  $("finals").replaceChildren();
  notice("The text is cleared.", "Undo", () => {
    segments.unshift(...old);
    file ??= name;
    duration ||= seconds;
    $("finals").prepend(...lines);
    update();
  });
  $("notice-button").focus(); // the button that was pressed is disabled now
};
addEventListener("beforeunload", (event) => { if (current || !saved) event.preventDefault(); });

// --- settings

async function listDevices() {
  const chosen = $("device").value;
  const options = (await microphones()).map(({ label, deviceId }) => new Option(label, deviceId));
  $("device").replaceChildren(new Option("Default", ""), ...options);
  $("device").value = options.some(({ value }) => value === chosen) ? chosen : "";
}
navigator.mediaDevices?.addEventListener("devicechange", listDevices);

$("size").oninput = () => {
  document.documentElement.style.setProperty("--size", `${$("size").value}px`);
  localStorage.setItem("size", $("size").value);
};
$("size").value = localStorage.getItem("size") ?? Math.round(parseFloat(getComputedStyle(captions).fontSize));
addEventListener("keydown", ({ key }) => {
  if (key !== "Escape" || !$("settings").open) return;
  $("settings").open = false;
  $("settings").firstElementChild.focus();
});
addEventListener("pointerdown", ({ target }) => { $("settings").open &&= $("settings").contains(target); });

async function askModel() {
  const { model } = await (await fetch("healthz")).json();
  $("hotwords").disabled = !model.hotwords;
  if (!model.hotwords) $("hotwords").placeholder = "not with this server's model";
}
askModel().catch(console.debug);

if (localStorage.getItem("size")) $("size").oninput();
$("host").textContent = location.host + (isSecureContext && url.protocol === "ws:" ? " (this computer)" : "");
listDevices();
update();
