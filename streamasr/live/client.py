"""Client of the server (docs/protocol.md), for asyncio; `transcribe` for whole recordings.

    async with Client("ws://127.0.0.1:8765", sample_rate=16000) as client:
        await client.send(samples)       # from one task; waits when the server does
        await client.end()
        async for event in client: ...   # from another, at the same time

A connection that breaks is taken up again, also while the server is away for a moment: sound is kept
until the server has it, so nothing is lost and nothing told twice.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

from numpy.typing import ArrayLike
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus, InvalidURI

from .. import audio
from ..errors import AudioError, ConfigError, ServerError
from ..events import Event, Final, Transcript
from ..search.hotwords import Phrase
from ..segmenter import EndpointRule
from . import protocol

_MESSAGE_BYTES = 16_384  # 0.26 s at 16 kHz: far below any server's limit
# A server that holds us up because it has too much of our sound answers pings late, one that compiles
# thousands of hotwords answers hello late; neither takes a minute. One that takes longer is gone, or frozen.
_PING_SECONDS, _PATIENCE_SECONDS = 20.0, 60.0
_RETRY_SECONDS = (0.1, 0.3, 1.0, 3.0)  # pauses before a connection is tried again


def check_address(url: str) -> None:
    """Raises ConfigError for a URL that no server can have."""
    try:
        parts = urlsplit(url)
        fits = parts.scheme in ("ws", "wss") and parts.hostname and parts.port != 0
    except ValueError:  # a port beyond 65535, brackets that hold no address
        fits = False
    if not fits:
        raise ConfigError(f"--server {url}: not an address such as ws://127.0.0.1:8765")


class Client:
    """One session. Samples as `Stream.accept` takes them; options as `Recognizer.stream` does.

    Raises ConfigError for an address that is none, ServerError when the server refuses or cannot be reached.
    """

    def __init__(
        self,
        url: str,
        *,
        sample_rate: int,
        token: str = "",
        partials: bool = True,
        endpointing: bool | Sequence[EndpointRule] = True,
        hotwords: Iterable[Phrase] = (),
        phrases: Iterable[str] | None = None,
        at_endpoint: str = "carry",
    ) -> None:
        check_address(url)
        self._url = url.rstrip("/")
        if not self._url.endswith(protocol.PATH):
            self._url += protocol.PATH
        self._token = token
        self._hello = protocol.hello(
            sample_rate,
            "f32le",
            token,
            partials=partials,
            endpointing=endpointing,
            hotwords=hotwords,
            phrases=phrases,
            at_endpoint=at_endpoint,
        )
        self._socket: ClientConnection | None = None
        self._connecting = asyncio.Lock()
        self._connected = asyncio.Event()
        self._session = ""
        self._event = 0
        self._sent = 0  # samples, kept ones included
        self._kept: deque[tuple[int, bytes]] = deque()  # first sample and message of what may be lost
        self._ended = False
        self.ready: dict[str, Any] = {}  # the server's answer
        self.received = 0  # samples that the server has
        self.time = 0.0  # seconds of sound that are decoded
        self.duration: float | None = None  # seconds heard, once all is told
        self.reason = ""  # why it is over: "end", "limit" or "stopping"

    async def __aenter__(self) -> Client:
        await self._connect(None)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._socket is not None:
            await self._socket.close()

    async def send(self, samples: ArrayLike) -> None:
        """Sound [N], any N. Waits while the server has too much of it. Raises AudioError, ServerError."""
        content = audio.as_samples(samples, first=self._sent).astype("<f4").tobytes()
        for first in range(0, len(content), _MESSAGE_BYTES):
            message = content[first : first + _MESSAGE_BYTES]
            self._kept.append((self._sent, message))
            self._sent += len(message) // 4
            await self._transmit(message)

    async def end(self) -> None:
        """There is no more sound."""
        self._ended = True
        await self._transmit(protocol.render({"type": "end"}))

    async def __aiter__(self) -> AsyncIterator[Event]:
        """Partials and finals until all is told. Raises ServerError."""
        while self.duration is None:
            socket = self._socket
            assert socket is not None, "use `async with Client(...)`"
            try:
                text = await socket.recv()
            except ConnectionClosed:
                await self._connect(socket)
                continue
            event = self._take(self._message(text))
            if event is not None:
                yield event

    def _message(self, text: str | bytes) -> dict[str, Any]:
        try:
            message = json.loads(text)
        except ValueError:
            message = None
        if not isinstance(message, dict):
            raise self._stranger(f"{text[:40]!r}")
        return message

    def _stranger(self, why: str) -> ServerError:
        return ServerError(f"{self._url}: answers, but not as docs/protocol.md says ({why}); is it ours?")

    def _take(self, message: dict[str, Any]) -> Event | None:
        kind = message.get("type")
        if kind == "error":
            raise ServerError(f"{self._url}: {message.get('message')} ({message.get('code')})")
        try:
            if "received" in message:
                self.received, self.time = int(message["received"]), message.get("time", self.time)
                while self._kept and self._kept[0][0] + len(self._kept[0][1]) // 4 <= self.received:
                    self._kept.popleft()
            self._event = message.get("event", self._event)
            if kind == "done":
                self.duration, self.reason = message["duration"], message["reason"]
            return protocol.to_event(message) if kind in ("partial", "final") else None
        except (KeyError, TypeError, ValueError) as error:
            raise self._stranger(repr(error)) from None

    async def _transmit(self, message: str | bytes) -> None:
        """Sends what `_kept` and `_ended` already hold: a new connection sends it by itself."""
        socket = self._socket
        assert socket is not None, "use `async with Client(...)`"
        try:
            await socket.send(message)
        except ConnectionClosed:
            if self.duration is None:
                await self._connect(socket)

    async def _connect(self, broken: ClientConnection | None) -> None:
        """A new connection in place of `broken`, unless the other task has made one meanwhile."""
        async with self._connecting:
            if self._socket is not broken:
                return
            problem: Exception | None = None
            # What the server has refused once is refused again; only a lost line is tried again.
            for pause in (0.0, *_RETRY_SECONDS) if broken is not None else (0.0,):
                await asyncio.sleep(pause)
                try:
                    await self._open()
                    return
                except InvalidURI:
                    raise ConfigError(
                        f"--server {self._url}: not an address such as ws://127.0.0.1:8765"
                    ) from None
                except InvalidStatus as error:
                    raise ServerError(f"{self._url}: refused, HTTP {error.response.status_code}") from None
                except (OSError, InvalidHandshake, ConnectionClosed, asyncio.TimeoutError) as error:
                    problem = error
            reason = str(problem) or "no answer"  # a time that is up has no words of its own
            raise ServerError(f"{self._url}: cannot be reached: {reason}; is the server running?")

    async def _open(self) -> None:
        socket = await connect(
            self._url, compression=None, max_size=None, proxy=None,
            ping_interval=_PING_SECONDS, ping_timeout=_PATIENCE_SECONDS,
        )  # fmt: skip
        try:
            resume = {"type": "resume", "session": self._session, "event": self._event}
            first = {**resume, "token": self._token} if self._session else self._hello
            await socket.send(protocol.render(first))
            ready = self._message(await asyncio.wait_for(socket.recv(), _PATIENCE_SECONDS))
            if ready.get("code") == "unknown_session" and self.received == 0 and self._event == 0:
                self._session = ""  # it had nothing yet, so nothing is lost by a new one
                await socket.close()
                return await self._open()
            self._take(ready)
            if not isinstance(ready.get("session"), str) or "ended" not in ready:
                raise self._stranger(f"{ready!r:.60}")
            self.ready, self._session = ready, ready["session"]
            there = self.received  # what the server has, or is on its way
            while there < self._sent:  # the sender may go on meanwhile: its new sound is sent here too
                begin, message = next(k for k in self._kept if k[0] + len(k[1]) // 4 > there)
                await socket.send(message[(there - begin) * 4 :])
                there = begin + len(message) // 4
            if self._ended and not ready["ended"]:
                await socket.send(protocol.render({"type": "end"}))
        except BaseException:
            await socket.close()
            raise
        self._socket = socket


def transcribe(
    url: str, pieces: Iterable[tuple[ArrayLike, int]], *, name: str = "samples", **options: Any
) -> Transcript:
    """Pieces of one recording, (samples [n], rate in Hz), as `audio.blocks` reads them -> Transcript.

    `options` are those of `Client`. The same as `Recognizer.transcribe` of the server's model. Raises
    ConfigError, ServerError, and AudioError when there are no samples; its message names `name`.
    """
    return asyncio.run(_transcribe(url, iter(pieces), name, options))


async def _transcribe(
    url: str, pieces: Iterator[tuple[ArrayLike, int]], name: str, options: dict[str, Any]
) -> Transcript:
    samples, sample_rate = next(pieces)
    async with Client(url, sample_rate=sample_rate, partials=False, **options) as client:

        async def send() -> None:
            await client.send(samples)
            for more, _ in pieces:
                await client.send(more)
            await client.end()

        async def listen() -> list[Final]:
            return [event async for event in client if isinstance(event, Final)]

        sending, listening = asyncio.create_task(send()), asyncio.create_task(listen())
        try:
            done, _ = await asyncio.wait({sending, listening}, return_when=asyncio.FIRST_EXCEPTION)
            for task in done:
                task.result()
            finals = listening.result()
        finally:
            sending.cancel()
            listening.cancel()
            await asyncio.gather(sending, listening, return_exceptions=True)
    if client.reason != "end":
        raise ServerError(f"{url}: the server ended the session early ({client.reason})")
    if not client.duration:
        raise AudioError(f"{name}: holds no samples; was it cut off, or the recording never started?")
    return Transcript.of(finals, client.duration)
