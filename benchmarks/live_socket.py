"""Part of live.py: a session that costs its client little, so that a hundred leave the server its time.

Messages are framed before anything is timed, what comes is parsed when all is over, and a message takes one
timer and one system call. The mask of the frames is zero (RFC 6455, 5.3): there is nobody in between.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

PATH = "/v1/stream"
_TEXT, _BINARY, _CLOSE = 1, 2, 8


@dataclass
class Talk:
    """When each message was sent and when each answer came, on the clock of `time.perf_counter`."""

    sent: list[float] = field(default_factory=list)
    ended: float = 0.0  # when the end was said
    came: list[tuple[float, dict[str, Any]]] = field(default_factory=list)


async def converse(where: str, hello: dict[str, Any], messages: Sequence[bytes], seconds: float) -> Talk:
    """`messages` of sound to //host:port, each `seconds` after the one before, when its last has been said.

    Ends with `done` or an error, as the last that came; raises OSError when the line breaks before.
    """
    host, _, port = where.strip("/").rpartition(":")
    frames = [_frame(_BINARY, message) for message in messages]
    loop = asyncio.get_running_loop()
    connecting = loop.create_connection(lambda: _Session(where, hello, frames, seconds), host, int(port))
    _, session = await connecting
    try:
        await session.over
    finally:
        session.transport.close()
    session.talk.came = [(when, json.loads(text)) for when, text in session.texts]
    return session.talk


class _Session(asyncio.Protocol):
    transport: asyncio.Transport

    def __init__(self, where: str, hello: dict[str, Any], frames: list[bytes], seconds: float) -> None:
        self._where, self._hello, self._frames, self._seconds = where, hello, frames, seconds
        self._loop = asyncio.get_running_loop()
        self._buffer = b""
        self._upgraded = False
        self.over: asyncio.Future[None] = self._loop.create_future()
        self.talk = Talk()
        self.texts: list[tuple[float, bytes]] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        key = base64.b64encode(os.urandom(16)).decode()
        transport.write(
            f"GET {PATH} HTTP/1.1\r\nHost: {self._where.strip('/')}\r\nConnection: Upgrade\r\n"
            f"Upgrade: websocket\r\nSec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )

    def data_received(self, data: bytes) -> None:
        now = time.perf_counter()
        self._buffer += data
        if not self._upgraded:
            head, end, self._buffer = self._buffer.partition(b"\r\n\r\n")
            if not end:
                self._buffer = head
                return
            if b" 101 " not in head.split(b"\r\n")[0]:
                self._break(head.split(b"\r\n")[0].decode())
                return
            self._upgraded = True
            self.transport.write(_frame(_TEXT, json.dumps(self._hello).encode()))
        while len(self._buffer) >= 2:
            size, begin = self._buffer[1], 2
            if size > 125:
                begin = 4 if size == 126 else 10
                size = int.from_bytes(self._buffer[2:begin], "big")
            if len(self._buffer) < begin + size:
                return
            kind, text = self._buffer[0] & 15, self._buffer[begin : begin + size]
            self._buffer = self._buffer[begin + size :]
            if kind == _TEXT:
                self._take(now, text)

    def connection_lost(self, error: Exception | None) -> None:
        self._break("the connection broke")

    def _take(self, now: float, text: bytes) -> None:
        self.texts.append((now, text))
        kind = text[:20]  # "type" is the first field
        if kind.startswith(b'{"type":"ready"'):
            self._begin = self._loop.time()
            self._wait()
        elif kind.startswith((b'{"type":"done"', b'{"type":"error"')):
            self.transport.write(_frame(_CLOSE, (1000).to_bytes(2, "big")))
            if not self.over.done():
                self.over.set_result(None)

    def _wait(self) -> None:
        due = self._begin + (len(self.talk.sent) + 1) * self._seconds
        self._loop.call_at(due, self._send)

    def _send(self) -> None:
        if self.over.done():
            return
        self.transport.write(self._frames[len(self.talk.sent)])
        self.talk.sent.append(time.perf_counter())
        if len(self.talk.sent) < len(self._frames):
            self._wait()
        else:
            self.transport.write(_frame(_TEXT, b'{"type":"end"}'))
            self.talk.ended = time.perf_counter()

    def _break(self, why: str) -> None:
        if not self.over.done():
            self.over.set_exception(ConnectionError(f"{self._where}: {why}"))


def _frame(kind: int, content: bytes) -> bytes:
    """One whole message as a client sends it."""
    size = len(content)
    if size < 126:
        length = bytes([128 | size])
    elif size < 1 << 16:
        length = bytes([128 | 126]) + size.to_bytes(2, "big")
    else:
        length = bytes([128 | 127]) + size.to_bytes(8, "big")
    return bytes([128 | kind]) + length + bytes(4) + content
