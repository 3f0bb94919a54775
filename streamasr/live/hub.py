"""All sessions of a server: who may open one, who holds it, when it is over. On the event loop only.

A session is *held* by a connection, or *detached* for a while after its connection broke. The worker's
threads decode; what it tells comes back here and wakes the connection that holds the session.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
import math
from dataclasses import dataclass, field
from typing import Any

from ..errors import ConfigError, StreamASRError
from ..events import Partial
from ..recognizer import Recognizer
from ..stream import Stream
from .metrics import Metrics
from .protocol import Hello, Refusal, Resume
from .session import DoneReason, Session
from .worker import Line, Told, Worker

_log = logging.getLogger("streamasr.live")

SWEEP_SECONDS = 0.25
# Share of the threads' time that live streams may be promised. Sockets need a fifth as much, what is Python
# of the threads takes turns, and after a stall there must be time to catch up. 100 streams on two cores,
# three quarters of it, are still served in time (benchmarks/live.py load).
LOAD = 0.68
RETRY_SECONDS = 10.0


@dataclass(frozen=True)
class Limits:
    """What a server grants. `max_streams` None: as many as the measured speed allows."""

    max_streams: int | None = None
    per_address: int | None = None
    message_bytes: int = 65_536  # 0.7 s of 16-bit sound at 48 kHz
    ahead_seconds: float = 5.0
    lag_seconds: float = 0.4  # beyond that, those who are served are not served well: nobody else is let in
    idle_seconds: float = 60.0
    session_seconds: float = 4 * 3600.0
    resume_seconds: float = 30.0
    hello_seconds: float = 10.0
    send_seconds: float = 20.0
    stop_seconds: float = 10.0

    def told(self) -> dict[str, Any]:
        """Those that a client is told."""
        names = ("message_bytes", "ahead_seconds", "idle_seconds", "session_seconds", "resume_seconds")
        return {name: getattr(self, name) for name in names}


class Holder:
    """A connection, as its session sees it: `failure` is set from outside when it has to end."""

    def __init__(self) -> None:
        self.failure: asyncio.Future[Refusal] = asyncio.get_running_loop().create_future()
        self.heard_at = asyncio.get_running_loop().time()
        self.sending_since = math.inf

    def fail(self, refusal: Refusal) -> None:
        if not self.failure.done():
            self.failure.set_result(refusal)


@dataclass(eq=False)
class Live:
    """A session with its line in the worker and the connection that holds it, if one does."""

    number: int  # for the log: the key is a secret
    session: Session
    line: Line
    address: str
    started: float
    holder: Holder | None = None
    expires: float = 0.0  # when detached
    changed: asyncio.Event = field(default_factory=asyncio.Event)  # there is something to tell
    space: asyncio.Event = field(default_factory=asyncio.Event)  # sound has been decoded


class Hub:
    """Opens, resumes and ends sessions within `limits`; `token` "" lets everybody in."""

    def __init__(self, recognizer: Recognizer, limits: Limits, token: str = "") -> None:
        self.limits = limits
        self.metrics = Metrics()
        self.stopping = False
        info = recognizer.info
        self.model = {name: info[name] for name in ("name", "language", "fingerprint")}
        self.model["hotwords"] = recognizer.default_search == "beam"
        self._recognizer = recognizer
        self._token = token
        self._worker = Worker(recognizer, self._tell)
        self._sessions: dict[str, Live] = {}
        self._lines: dict[Line, Live] = {}
        self._opening = 0
        self._number = 0

    async def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        await asyncio.to_thread(self._worker.start)
        self._sweeper = asyncio.create_task(self._sweep())

    async def stop(self) -> None:
        """Every session that is held is told all it has said, and ends; detached ones are forgotten."""
        self.stopping = True
        log("stopping", sessions=len(self._sessions))
        for live in list(self._sessions.values()):
            if live.holder is None:
                self._forget(live, "stopping")
            else:
                self.end(live, "stopping")
        until = self._loop.time() + self.limits.stop_seconds
        while self._sessions and self._loop.time() < until:
            await asyncio.sleep(0.02)
        self._sweeper.cancel()
        await asyncio.to_thread(self._worker.stop)

    @property
    def max_streams(self) -> int:
        worker = self._worker
        return self.limits.max_streams or max(1, int(LOAD * worker.threads / max(worker.rtf, 1e-6)))

    @property
    def sessions(self) -> int:
        return len(self._sessions)

    def render_metrics(self, connections: int) -> str:
        gauges = {
            "sessions": len(self._sessions),
            "detached": sum(live.holder is None for live in self._sessions.values()),
            "connections": connections,
            "tasks": len(asyncio.all_tasks()),
            "max_streams": self.max_streams,
            "rtf": self._worker.rtf,
            "sound_seconds_total": self._worker.sound_seconds,
            "busy_seconds_total": self._worker.busy_seconds,
        }
        return self.metrics.render(gauges)

    def authorize(self, *tokens: str) -> None:
        """Raises Refusal unless one of them is the server's token, if it has one."""
        if self._token and not any(
            hmac.compare_digest(token.encode(), self._token.encode()) for token in tokens
        ):
            raise Refusal("unauthorized", "this server wants its token in the first message, field token")

    async def open(self, hello: Hello, address: str, holder: Holder) -> Live:
        """A new session, held by `holder`. Raises Refusal."""
        if self.stopping:
            raise Refusal("stopping", "the server is being stopped", retry_seconds=RETRY_SECONDS)
        at_work = self._opening + sum(not live.session.done for live in self._sessions.values())
        if at_work >= self.max_streams or (at_work and self._worker.lag > self.limits.lag_seconds):
            raise Refusal(
                "overloaded",
                f"{at_work} sessions are open, and no more can be served; try again later",
                retry_seconds=RETRY_SECONDS,
            )
        mine = sum(live.address == address for live in self._sessions.values())
        if self.limits.per_address is not None and mine >= self.limits.per_address:
            raise Refusal(
                "address_limit",
                f"{mine} sessions from this address are open; close one first",
                retry_seconds=RETRY_SECONDS,
            )
        self._opening += 1  # a place is kept while the stream is opened
        try:
            stream = await asyncio.to_thread(self._stream, hello)
        except StreamASRError as error:
            raise Refusal("bad_option", str(error)) from None
        finally:
            self._opening -= 1
        self._number += 1
        line = self._worker.open(stream, hello.sample_rate)
        live = Live(self._number, Session(hello), line, address, self._loop.time(), holder)
        self._sessions[live.session.key] = live
        self._lines[line] = live
        self.metrics.count("sessions_total")
        log("open", session=live.number, address=address, sample_rate=hello.sample_rate)
        return live

    def _stream(self, hello: Hello) -> Stream:
        """On a thread of its own: thousands of hotwords take a moment."""
        if (hello.hotwords or hello.phrases is not None) and not self.model["hotwords"]:
            # Nor is the beam search compiled for them: that would take seconds from everybody.
            raise ConfigError("hotwords and phrases need a server whose model has a lexicon; leave them out")
        return self._recognizer.stream(
            hello.sample_rate,
            endpointing=hello.endpointing,
            hotwords=hello.hotwords or None,
            phrases=hello.phrases,
            at_endpoint=hello.at_endpoint,
        )

    def resume(self, resume: Resume, holder: Holder) -> Live:
        """The session taken from whoever holds it. Raises Refusal."""
        live = self._sessions.get(resume.session)
        if live is None:
            raise Refusal("unknown_session", "there is no such session; it may have waited too long")
        live.session.after(resume.event)  # whether that can be told
        if live.holder is not None:
            live.holder.fail(Refusal("replaced", "another connection has taken this session up"))
        live.holder = holder
        self.metrics.count("resumed_total")
        log("resume", session=live.number, received=live.session.received)
        return live

    def hear(self, live: Live, message: bytes) -> None:
        """A binary message. Raises Refusal."""
        self._worker.feed(live.line, live.session.audio(message))

    def is_full(self, live: Live) -> bool:
        """Whether so much of its sound waits that no more is read."""
        return self._worker.waiting_seconds(live.line) > self.limits.ahead_seconds and not live.session.done

    def end(self, live: Live, reason: DoneReason = "end") -> None:
        live.session.end(reason)
        self._worker.end(live.line)

    def leave(self, live: Live, holder: Holder, keep: bool) -> None:
        """The connection is gone. Its session waits for another if `keep`, and if it has heard anything."""
        if live.holder is not holder:
            return  # taken up by another connection
        live.holder = None
        if keep and live.session.received and not self.stopping:
            live.expires = self._loop.time() + self.limits.resume_seconds
            log("detach", session=live.number)
        else:
            self._forget(live, "close")

    def _forget(self, live: Live, why: str) -> None:
        self._worker.drop(live.line)
        self._sessions.pop(live.session.key, None)
        self._lines.pop(live.line, None)
        seconds = live.session.heard / live.session.hello.sample_rate
        log("close", session=live.number, why=why, seconds=round(seconds, 3))

    def _tell(self, results: list[Told]) -> None:
        """On the worker's threads."""
        self._loop.call_soon_threadsafe(self._told, results)

    def _told(self, results: list[Told]) -> None:
        for result in results:
            live = self._lines.get(result.line)
            if live is None:
                continue  # forgotten while it was decoded
            if result.error is not None:
                self._fail(live, result.error)
                continue
            live.session.tell(result.events, result.heard)
            if result.finished:
                live.session.finish()
            for event in result.events:
                kind = "partial" if isinstance(event, Partial) else "final"
                self.metrics.count("events_total", type=kind)
                if result.lag is not None:
                    self.metrics.lag(result.lag)
            live.changed.set()
            live.space.set()

    def _fail(self, live: Live, error: Exception) -> None:
        log("internal", session=live.number, error=repr(error))
        _log.debug("decoding failed", exc_info=error)
        if live.holder is not None:
            live.holder.fail(Refusal("internal", "the recogniser failed; open a new session"))
        else:
            self._forget(live, "internal")

    async def _sweep(self) -> None:
        """Ends what has lasted too long."""
        limits = self.limits
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            now = self._loop.time()
            for live in list(self._sessions.values()):
                if live.holder is None:
                    if now > live.expires:
                        self._forget(live, "expired")
                    continue
                if now - live.started > limits.session_seconds and live.session.ended is None:
                    self.end(live, "limit")
                if now - live.holder.sending_since > limits.send_seconds:
                    live.holder.fail(
                        Refusal("slow_reader", "events were not read; resume, read faster", resumable=True)
                    )
                if now - live.holder.heard_at > limits.idle_seconds and not self.is_full(live):
                    live.holder.fail(
                        Refusal(
                            "timeout", f"nothing came for {limits.idle_seconds:g} seconds", resumable=True
                        )
                    )


def log(event: str, **values: object) -> None:
    """One line of JSON; never sound, text or a session's key."""
    _log.info("%s", json.dumps({"event": event, **values}))
