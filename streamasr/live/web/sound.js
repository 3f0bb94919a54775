// Where sound comes from: microphones and recordings. The messages of errors are for people to read.

const FORBIDDEN = "The microphone is not allowed for this page: allow it beside the browser's address bar.";
const REFUSALS = {
  NotAllowedError: FORBIDDEN,
  SecurityError: FORBIDDEN,
  NotFoundError: "No microphone was found: connect one, or open a recording.",
  OverconstrainedError: "The chosen microphone is gone: choose another one in the settings.",
  NotReadableError: "The microphone cannot be opened: another program may be using it.",
};

// Those with a name: browsers tell names once a microphone has been allowed.
export async function microphones() {
  const devices = (await navigator.mediaDevices?.enumerateDevices()) ?? [];
  const inputs = devices.filter(({ kind, label }) => kind === "audioinput" && label);
  return inputs.filter(({ deviceId }) => deviceId !== "default");
}

// Opens a microphone at its own rate and without the browser's processing: recognition wants sound as it is.
// onChunk({ samples, peak }) for every 40 ms, onGone() when it is unplugged -> { rate, stop }.
export async function openMicrophone(deviceId, onChunk, onGone) {
  if (!isSecureContext) {
    throw new Error("Browsers give the microphone only to pages from https:// or http://localhost: open this "
      + "page so. Recordings work here as well.");
  }
  if (!navigator.mediaDevices || !window.AudioWorkletNode) {
    throw new Error("This browser is too old for the microphone (no AudioWorklet): update it.");
  }
  const wanted = { channelCount: 1, echoCancellation: false, noiseSuppression: false, autoGainControl: false };
  if (deviceId) wanted.deviceId = { exact: deviceId };
  const media = await navigator.mediaDevices.getUserMedia({ audio: wanted }).catch((error) => {
    throw new Error(REFUSALS[error.name] ?? `The microphone cannot be opened: ${error.message}.`);
  });
  const [track] = media.getAudioTracks();
  const input = attach(media, track.getSettings().sampleRate);
  const context = input.context;
  await context.audioWorklet.addModule("capture.js").catch(() => {
    track.stop();
    context.close();
    throw new Error("No connection: the server has stopped. Start it again, then try once more.");
  });
  const node = new AudioWorkletNode(context, "capture", { numberOfOutputs: 0 });
  const ended = new Promise((resolve) => {
    node.port.onmessage = ({ data }) => (data ? onChunk(data) : resolve());
  });
  input.connect(node);
  await context.resume();
  track.onended = onGone;
  const stop = async () => { // what was said before is given to onChunk first
    node.port.postMessage(null);
    await Promise.race([ended, new Promise((resolve) => setTimeout(resolve, 500))]);
    track.onended = null;
    track.stop();
    await context.close();
  };
  return { rate: context.sampleRate, stop };
}

// Browsers drop sound when their audio thread comes too late. Larger steps of it lose less: at nine times the
// load that a machine could carry 2 % instead of 5 %, for 13 ms (Chromium on Linux).
function attach(media, sampleRate) {
  const latencyHint = "playback";
  try {
    return new AudioContext({ latencyHint, sampleRate }).createMediaStreamSource(media);
  } catch { // some take no other rate than that of the loudspeakers, and convert
    return new AudioContext({ latencyHint }).createMediaStreamSource(media);
  }
}

// File -> { samples: Float32Array, mono, rate }, at its own rate where its header tells it.
export async function readRecording(file) {
  const bytes = await file.arrayBuffer().catch(() => {
    throw new Error(`${file.name} cannot be read.`);
  });
  const decode = (rate) => new OfflineAudioContext(1, 1, rate).decodeAudioData(bytes.slice(0));
  const inVain = () => {
    throw new Error(`${file.name} cannot be played by this browser. Is it a recording?`);
  };
  // Some browsers have no contexts of unusual rates.
  const decoded = await Promise.resolve(ownRate(new DataView(bytes))).then(decode)
    .catch(() => decode(48000)).catch(inVain);
  const channels = Array.from({ length: decoded.numberOfChannels }, (_, i) => snap(decoded.getChannelData(i)));
  const samples = channels[0];
  for (const channel of channels.slice(1)) channel.forEach((value, i) => { samples[i] += value; });
  return { samples: samples.map((value) => value / channels.length), rate: decoded.sampleRate };
}

// Chromium divides 16-bit samples above zero by 32767. By 32768, they are those that everybody else reads.
function snap(samples) {
  const scaled = (value) => value * (value > 0 ? 32767 : 32768);
  const whole = samples.every((value) => Math.abs(scaled(value) - Math.round(scaled(value))) < 0.01);
  return whole ? samples.map((value) => Math.round(scaled(value)) / 32768) : samples;
}

// Header of WAV, FLAC or Ogg Vorbis -> sample rate; others are converted to 48 kHz.
function ownRate(view) {
  const name = (at) => String.fromCharCode(...new Uint8Array(view.buffer, at, 4));
  if (view.byteLength < 44) return 48000;
  if (name(0) === "fLaC") return view.getUint32(18) >>> 12;
  if (name(0) === "OggS" && name(29) === "vorb") return view.getUint32(40, true);
  for (let at = 12; name(0) === "RIFF" && at + 16 < view.byteLength; at += 8 + view.getUint32(at + 4, true)) {
    if (name(at) === "fmt ") return view.getUint32(at + 12, true);
  }
  return 48000;
}
