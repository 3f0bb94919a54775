"""A server in this process, for the tests of both ends of the line."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from strategies import finals, run, sound

import streamasr
from streamasr.events import Event

pytest.importorskip("uvicorn", reason="the extra [serve] is not installed")
pytest.importorskip("websockets", reason="the extra [serve] is not installed")

from streamasr.live.hub import Limits
from streamasr.live.server import Server

SOUND = sound(5, 3.0)


@contextlib.contextmanager
def serving(recognizer: streamasr.Recognizer, **options: Any) -> Iterator[Server]:
    # A busy machine must not be a reason to turn clients away here.
    limits = Limits(**{"max_streams": 100, "lag_seconds": 60.0, **options.pop("limits", {})})
    send_buffer = options.pop("send_buffer", None)
    server = Server(recognizer, port=0, limits=limits, **options)
    if send_buffer:
        server._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)
    ready = threading.Event()
    thread = threading.Thread(target=lambda: asyncio.run(server.run(ready.set)))
    thread.start()
    try:
        assert ready.wait(30)
        yield server
    finally:
        server.stop()
        thread.join(30)
        assert not thread.is_alive(), "the server does not stop"


def get(server: Server, path: str, **headers: str) -> tuple[int, str, dict[str, str]]:
    request = urllib.request.Request(server.url + path, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, answer.read().decode(), dict(answer.headers)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode(), dict(error.headers)


def expected(asr: streamasr.Recognizer, samples: NDArray[np.float32] = SOUND) -> list[Event]:
    return list(finals(run(asr.stream(), samples)))
