// Finished segments -> text and subtitles, by the rules of `streamasr transcribe --format srt`.

const LINE = 42; // characters; as in broadcasters' guides, like the two lines and the seconds
const LINES = 2;
const LONGEST = 7; // seconds
const SHORTEST = 1;
const PAUSE = 0.8;

const pad = (number, digits = 2) => String(number).padStart(digits, "0");
const join = (group) => group.map((word) => word.text).join(" ");

// Seconds -> 1:02 or 1:00:02.
export function clock(seconds) {
  const [h, m, s] = [Math.floor(seconds / 3600), Math.floor(seconds / 60) % 60, Math.floor(seconds) % 60];
  return h ? `${h}:${pad(m)}:${pad(s)}` : `${m}:${pad(s)}`;
}

// [{ text, words: [{ text, start, end }] }] -> a line for each.
export function txt(segments) {
  return segments.map((segment) => `${segment.text}\n`).join("");
}

// Segments, seconds of sound in all -> SubRip.
export function srt(segments, duration) {
  const groups = segments.flatMap((segment) => cues(segment.words));
  const cue = (group, i) => {
    const start = group[0].start;
    const guess = group.at(-1).end; // gives way to the next start, and fills up a short cue
    const latest = i + 1 < groups.length ? groups[i + 1][0].start : Math.max(guess, duration);
    const end = Math.min(Math.max(guess, start + SHORTEST), Math.max(latest, start + 0.001));
    return `${i + 1}\n${stamp(start)} --> ${stamp(end)}\n${lines(join(group)).join("\n")}\n`;
  };
  return groups.map(cue).join("\n");
}

function stamp(seconds) {
  const ms = Math.round(1000 * seconds);
  return `${pad(Math.floor(ms / 3.6e6))}:${pad(Math.floor(ms / 6e4) % 60)}:${pad(Math.floor(ms / 1000) % 60)},`
    + pad(ms % 1000, 3);
}

// Words of a segment -> those of each cue.
function cues(words) {
  const groups = [];
  for (const word of words.flatMap(pieces)) {
    const group = groups.at(-1) ?? [];
    const fits = wrap(join([...group, word]), LINE).length <= LINES && word.end - group[0]?.start <= LONGEST;
    if (fits && word.start - group.at(-1).end < PAUSE) group.push(word);
    else groups.push([word]);
  }
  return groups;
}

// A word longer than a line -> what fits on lines, with shares of its time.
function pieces({ text, start, end }) {
  const count = Math.ceil(text.length / LINE);
  const time = (i) => (i === count ? end : start + (i * (end - start)) / count);
  return Array.from({ length: count }, (_, i) => (
    { text: text.slice(i * LINE, (i + 1) * LINE), start: time(i), end: time(i + 1) }));
}

// As few as possible, of about equal length.
function lines(text) {
  const fewest = wrap(text, LINE).length;
  let width = Math.max(...text.split(" ").map((word) => word.length));
  while (wrap(text, width).length > fewest) width++;
  return wrap(text, width);
}

function wrap(text, width) {
  return text.split(" ").reduce((wrapped, word) => {
    const longer = wrapped.length ? `${wrapped.at(-1)} ${word}` : word;
    return longer.length <= width ? [...wrapped.slice(0, -1), longer] : [...wrapped, word];
  }, []);
}
