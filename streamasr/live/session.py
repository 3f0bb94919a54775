"""Life of a session, without sockets, clock or threads: sound in, numbered messages out.

    OPEN   --audio-->  OPEN  --end-->  ENDED  --finish-->  DONE

What a client may have missed is kept here, for its next connection.
"""

from __future__ import annotations

import secrets
from collections import deque
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from .. import audio
from ..errors import AudioError
from ..events import Event, Final
from .protocol import ENCODINGS, VERSION, Hello, Ping, Refusal, render

KEPT_BYTES = 1 << 20  # finals kept for a resume: hours of speech, seconds of a flood

DoneReason = Literal["end", "limit", "stopping"]
Samples = NDArray[np.float32]


class Session:
    """One client's stream of sound and events, whatever becomes of its connections.

    `received` and `heard` count samples: those the server has, and those its recogniser has decoded.
    """

    def __init__(self, hello: Hello) -> None:
        self.key = secrets.token_urlsafe(24)
        self.hello = hello
        self.received = 0
        self.heard = 0
        self.ended: DoneReason | None = None
        self.done = False
        self._width = np.dtype(ENCODINGS[hello.encoding]).itemsize
        self._number = 0  # of the newest event
        self._kept: deque[tuple[int, str]] = deque()  # finals, and `done`
        self._kept_bytes = 0
        self._forgotten = 0  # number of the newest final that is kept no more
        self._partial: tuple[int, str] | None = None  # unless a final has come after it

    def audio(self, message: bytes) -> Samples:
        """A binary message -> its samples. Raises Refusal. Of none once the server has ended the session."""
        if self.ended == "end":
            raise Refusal("bad_audio", "sound after end; open a new session for it")
        if len(message) % self._width:
            raise Refusal(
                "bad_audio",
                f"{len(message)} bytes are not whole samples of {self._width} bytes ({self.hello.encoding})",
            )
        values = np.frombuffer(message, ENCODINGS[self.hello.encoding])
        try:
            samples = audio.as_samples(values.astype(values.dtype.newbyteorder("=")), first=self.received)
        except AudioError as error:
            raise Refusal("bad_audio", str(error)) from None
        if self.ended:
            return samples[:0]
        self.received += len(samples)
        return samples

    def end(self, reason: DoneReason = "end") -> None:
        """No more sound. The first reason stays."""
        self.ended = self.ended or reason

    def tell(self, events: Sequence[Event], heard: int) -> None:
        """Events of the recogniser, after it has decoded `heard` samples in all."""
        self.heard = heard
        for event in events:
            if isinstance(event, Final):
                self._keep(event.to_dict())
            elif self.hello.partials:
                self._number += 1
                self._partial = (self._number, render({**event.to_dict(), "event": self._number}))

    def finish(self) -> None:
        """All has been told."""
        self.done = True
        self._keep(
            {"type": "done", "duration": self.heard / self.hello.sample_rate, "reason": self.ended or "end"}
        )

    def after(self, number: int) -> list[tuple[int, str]]:
        """Number of the last event that a client has -> (number, message) of what it lacks, in order.

        Raises Refusal when that is kept no more, or the client has more than there is.
        """
        if number > self._number:
            raise Refusal("bad_message", f"event {number} has not been told; the last was {self._number}")
        if number < self._forgotten:
            raise Refusal("lost_events", f"finals after event {number} are no longer kept")
        lacking = [kept for kept in self._kept if kept[0] > number]
        if self._partial and self._partial[0] > number:
            lacking.append(self._partial)
        return lacking

    def ready(self, model: dict[str, Any], limits: dict[str, Any]) -> dict[str, Any]:
        return {
            "type": "ready",
            "version": VERSION,
            "session": self.key,
            "model": model,
            "sample_rate": self.hello.sample_rate,
            "encoding": self.hello.encoding,
            "received": self.received,
            "ended": self.ended is not None,
            "limits": limits,
        }

    def progress(self) -> dict[str, Any]:
        return {"type": "progress", **self._position()}

    def pong(self, ping: Ping) -> dict[str, Any]:
        return {"type": "pong", "id": ping.id, **self._position()}

    def _position(self) -> dict[str, Any]:
        return {"received": self.received, "time": self.heard / self.hello.sample_rate}

    def _keep(self, message: dict[str, Any]) -> None:
        self._number += 1
        text = render({**message, "event": self._number})
        self._kept.append((self._number, text))
        self._kept_bytes += len(text)
        self._partial = None
        while self._kept_bytes > KEPT_BYTES and len(self._kept) > 1:
            self._forgotten, dropped = self._kept.popleft()
            self._kept_bytes -= len(dropped)
