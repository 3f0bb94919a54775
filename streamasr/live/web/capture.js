// Sound of the microphone in chunks of 40 ms: 16-bit samples and their peak.

class Capture extends AudioWorkletProcessor {
  chunk = new Int16Array(Math.round(0.04 * sampleRate));
  filled = 0;
  open = true;

  constructor() {
    super();
    this.port.onmessage = () => { // the end: what does not fill a chunk, then null
      this.post();
      this.port.postMessage(null);
      this.open = false;
    };
  }

  process([channels]) {
    const length = this.open && channels.length ? channels[0].length : 0; // no channels: nothing arrives
    for (let i = 0; i < length; i++) {
      const mean = channels.reduce((sum, channel) => sum + channel[i], 0) / channels.length;
      this.chunk[this.filled++] = Math.max(-32768, Math.min(32767, Math.round(32768 * mean)));
      if (this.filled === this.chunk.length) this.post();
    }
    return this.open;
  }

  post() {
    const samples = this.chunk.slice(0, this.filled);
    const peak = samples.reduce((most, value) => Math.max(most, Math.abs(value)), 0) / 32768;
    this.filled = 0;
    this.port.postMessage({ samples, peak }, [samples.buffer]);
  }
}

registerProcessor("capture", Capture);
