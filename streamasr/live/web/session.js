// One stream of sound and its events, whatever becomes of its connections (docs/protocol.md).
//
// Samples are counted from the first one pushed. A connection that breaks is taken up again where the server
// says. Where the server has lost the session, such as by a restart, a new one begins behind the last
// finished text: for that, sound is kept beyond what the server has.

const KEPT_SECONDS = 60; // of sound that the server has, without finished text; chosen
const OFFLINE_SECONDS = 300; // of sound that waits for a connection before it is given up; chosen
const QUIET_SECONDS = 15; // of a server that has something to do: it tells its progress each second
const CONNECT_SECONDS = 10;
const WAITS = [0.1, 0.5, 1, 2, 4]; // seconds between attempts; the last one goes on
const MOST_TRIES = 20; // that are refused, without progress in between
const BUFFERED_BYTES = 131072; // in the browser; more would only hide how far behind the line is
// Browsers do not tell which.
const UNREACHED = "No connection: the server has stopped, has too many, or does not know this address (--origin).";
const RENEW = new Set(["unknown_session", "lost_events", "internal"]);
const WAIT = new Set(["overloaded", "address_limit", "stopping"]);

export class Session {
  kept = []; // { first, samples, at }: sound in order, and when it came
  total = 0; // samples pushed
  sent = 0;
  received = 0; // by the server
  spoken = 0; // end of the last finished text
  base = 0; // where the server's session begins
  key = null; // its name
  event = 0; // the last that came
  tries = 0;
  greeted = false; // there has been a session
  ready = false; // the connection may be used
  ended = false; // no more sound
  over = false; // all is told

  // `on` has state("connecting", "live" or "offline"; the model), partial({ stable, volatile, start }),
  // final(segment), progress(seconds decoded, seconds behind) and closed(a message, or null).
  // Times are seconds of all sound.
  constructor({ url, token, rate, encoding, hotwords }, on) {
    Object.assign(this, { url, rate, on, width: encoding === "s16le" ? 2 : 4, token: token ? { token } : {} });
    const options = hotwords.length ? { hotwords } : {};
    this.hello = { type: "hello", version: 1, sample_rate: rate, encoding, options };
    this.reconnect = () => this.ready || this.connect();
    addEventListener("online", this.reconnect);
    this.watch = setInterval(() => this.check(), 1000);
    this.connect();
  }

  push(samples) {
    if (this.over || this.ended || !samples.length) return;
    this.kept.push({ first: this.total, samples, at: performance.now() });
    this.total += samples.length;
    this.pump();
  }

  // No more sound. `abandon` leaves out what was not sent yet.
  end(abandon = false) {
    if (abandon) this.total = this.sent;
    this.ended = true;
    this.pump();
  }

  close(problem = null) {
    if (this.over) return;
    this.over = true;
    clearInterval(this.watch);
    removeEventListener("online", this.reconnect);
    this.leave(1000);
    this.on.closed(problem);
  }

  connect() {
    this.leave(3000);
    this.on.state(this.greeted ? "offline" : "connecting");
    const socket = new WebSocket(this.url);
    Object.assign(this, { socket, refusal: {}, heard: performance.now() });
    socket.onopen = () => {
      const resume = { type: "resume", version: 1, session: this.key, event: this.event };
      this.say({ ...(this.key ? resume : this.hello), ...this.token });
    };
    socket.onmessage = ({ data }) => {
      if (socket !== this.socket) return;
      this.heard = performance.now();
      this.take(JSON.parse(data));
    };
    socket.onclose = () => socket === this.socket && this.lost();
  }

  // After 1000 the server forgets the session, after any other code it keeps it.
  leave(code) {
    clearTimeout(this.timer);
    const socket = this.socket;
    this.socket = null;
    this.ready = false;
    socket?.close(code);
  }

  lost() {
    const { code, message, resumable, retry_seconds: retry = 0 } = this.refusal;
    this.leave(3000);
    if (!this.greeted && !code) return this.close(UNREACHED);
    if (code && !resumable) {
      if (!this.greeted || !(RENEW.has(code) || WAIT.has(code)) || this.tries > MOST_TRIES) {
        const token = code === "unauthorized" ? " Add #token=TOKEN to the address of this page." : "";
        const again = retry ? ` Try again in ${Math.ceil(retry)} seconds.` : "";
        return this.close(`The server refused: ${message}.${token}${again}`);
      }
      if (RENEW.has(code)) this.renew(this.spoken);
    }
    this.on.state("offline");
    const wait = WAITS[Math.min(this.tries++, WAITS.length - 1)];
    this.timer = setTimeout(() => this.connect(), 1000 * Math.max(wait, retry));
  }

  // The next session of the server begins with sample `first`, or the first one that is kept.
  renew(first) {
    this.key = null;
    this.event = 0;
    this.base = Math.min(Math.max(first, this.kept[0]?.first ?? 0), this.total);
    this.on.partial({ stable: "", volatile: "", start: 0 });
  }

  take(message) {
    const shift = this.base / this.rate;
    const timed = (item) => ({ ...item, start: shift + item.start, end: shift + item.end });
    this.event = message.event ?? this.event;
    if (message.type === "ready") {
      this.begin(message);
    } else if (message.type === "error") {
      this.refusal = message;
    } else if (message.type === "partial") {
      this.on.partial({ ...message, start: shift + (message.words[0]?.start ?? message.time) });
      this.progress(shift + message.time);
    } else if (message.type === "final") {
      this.spoken = Math.round((shift + message.end) * this.rate);
      this.on.final({ ...timed(message), words: message.words.map(timed) });
    } else if (message.type === "progress") {
      this.tries = 0;
      this.received = this.base + message.received;
      this.progress(shift + message.time);
      const spare = Math.min(this.received, Math.max(this.spoken, this.received - KEPT_SECONDS * this.rate));
      while (this.kept.length && this.kept[0].first + this.kept[0].samples.length <= spare) this.kept.shift();
    } else if (message.type === "done") {
      this.done(message);
    }
    this.pump();
  }

  begin({ session, received, limits, model }) {
    this.key = session;
    this.sent = this.received = this.base + received;
    this.most = Math.floor(Math.min(limits.message_bytes, 32768) / this.width); // samples a message
    this.ready = this.greeted = true;
    this.told = false; // the server, that there is no more
    this.on.state("live", model);
  }

  done({ duration, reason }) {
    this.spoken = this.base + Math.round(duration * this.rate);
    if (reason === "end" || (this.ended && this.spoken >= this.total)) return this.close();
    // The session was too long, or the server stops; what it had heard is told. On with another one.
    this.renew(this.spoken);
    this.leave(1000);
    this.timer = setTimeout(() => this.connect(), 100);
  }

  pump() {
    clearTimeout(this.pumping);
    if (!this.ready) return;
    while (this.sent < this.total && this.socket.bufferedAmount < BUFFERED_BYTES) {
      const { first, samples } = this.kept.findLast((chunk) => chunk.first <= this.sent);
      const from = this.sent - first;
      const part = samples.subarray(from, Math.min(from + this.most, this.total - first));
      this.socket.send(part);
      this.sent += part.length;
    }
    if (this.sent < this.total) {
      this.pumping = setTimeout(() => this.pump(), 20);
    } else if (this.ended && !this.told) {
      this.told = true;
      this.say({ type: "end" });
    }
  }

  progress(seconds) {
    const position = seconds * this.rate;
    const chunk = this.kept.find(({ first, samples }) => first + samples.length >= position);
    const late = chunk ? (performance.now() - chunk.at) / 1000 : 0;
    this.on.progress(seconds, chunk ? late + (chunk.first + chunk.samples.length) / this.rate - seconds : 0);
  }

  check() {
    const quiet = (performance.now() - this.heard) / 1000;
    const due = this.total > this.received || this.told; // progress, or `done`
    if (this.socket && !this.ready && quiet > CONNECT_SECONDS) this.lost();
    if (this.ready && due && quiet > QUIET_SECONDS) this.lost();
    if (!this.ready && !this.ended && this.total - this.sent > OFFLINE_SECONDS * this.rate) {
      this.close(`No connection for ${OFFLINE_SECONDS / 60} minutes: stopped. The text so far is kept.`);
    }
  }

  say(message) {
    this.socket.send(JSON.stringify(message));
  }
}
