"""The client, `streamasr.live.client`, against our server and against others."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from servers import SOUND, expected, get, serving
from strategies import finals
from websockets.exceptions import ConnectionClosed
from websockets.sync.server import ServerConnection
from websockets.sync.server import serve as serve_sockets

import streamasr
from streamasr.errors import AudioError, ConfigError, ServerError
from streamasr.events import Event
from streamasr.live import client as clients
from streamasr.live.client import Client
from streamasr.live.server import Server


@pytest.fixture(scope="module")
def server(plain: streamasr.Recognizer) -> Iterator[Server]:
    with serving(plain) as running:
        yield running


async def _talk(url: str, samples: NDArray[np.float32], **options: Any) -> tuple[Client, list[Event]]:
    async with Client(url, sample_rate=16_000, **options) as client:

        async def send() -> None:
            for first in range(0, len(samples), 1600):
                await client.send(samples[first : first + 1600])
            await client.end()

        sending = asyncio.create_task(send())
        got = [event async for event in client]
        await sending
    return client, got


def test_the_client(server: Server, plain: streamasr.Recognizer) -> None:
    client, got = asyncio.run(_talk(server.url.replace("http", "ws"), SOUND))
    assert finals(got) == expected(plain)
    assert client.duration == 3.0 and client.reason == "end" and client.received == len(SOUND)
    assert not client._kept, "what the server has is not kept"


def test_the_client_survives_broken_lines(server: Server, plain: streamasr.Recognizer) -> None:
    """A relay between the two cuts every connection after some bytes."""

    async def scenario() -> list[Event]:
        cuts = iter([9_000, 60_000, 40_000, 100_000])

        async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            there_reader, there_writer = await asyncio.open_connection("127.0.0.1", server.port)
            left = next(cuts, None)

            async def copy(source: asyncio.StreamReader, target: asyncio.StreamWriter, counted: bool) -> None:
                nonlocal left
                with contextlib.suppress(ConnectionError):
                    while content := await source.read(2000):
                        if counted and left is not None:
                            left -= len(content)
                            if left < 0:
                                break
                        target.write(content)
                        await target.drain()
                for one in (writer, there_writer):
                    one.transport.abort()

            await asyncio.gather(copy(reader, there_writer, True), copy(there_reader, writer, False))

        listener = await asyncio.start_server(relay, "127.0.0.1", 0)
        port = listener.sockets[0].getsockname()[1]
        _, got = await _talk(f"ws://127.0.0.1:{port}", SOUND)
        assert next(cuts, None) is None, "every cut was made"
        listener.close()
        return got

    got = asyncio.run(asyncio.wait_for(scenario(), 60))
    assert finals(got) == expected(plain)


def test_whole_recordings(server: Server, plain: streamasr.Recognizer) -> None:
    url = server.url.replace("http", "ws")
    pieces = [(SOUND[:20_000], 16_000), (SOUND[20_000:], 16_000)]
    assert clients.transcribe(url, pieces) == plain.transcribe(SOUND, 16_000)
    with pytest.raises(AudioError, match="talk: holds no samples"):
        clients.transcribe(url, [(SOUND[:0], 16_000)], name="talk")


def test_hotwords_and_phrases(beam: streamasr.Recognizer) -> None:
    heard = beam.transcribe(SOUND, 16_000)
    (word, other) = (heard.words[0].text, heard.words[-1].text)
    with serving(beam) as server:
        assert json.loads(get(server, "/healthz")[1])["model"]["hotwords"]
        url = server.url.replace("http", "ws")
        for options in ({"hotwords": ((word, 9.0), other)}, {"phrases": (word, f"{other} {word}")}):
            expected = beam.transcribe(SOUND, 16_000, **options)
            assert clients.transcribe(url, [(SOUND, 16_000)], **options) == expected
        with pytest.raises(ServerError, match=r"bad_option"):
            clients.transcribe(url, [(SOUND, 16_000)], hotwords=["so"], phrases=["so"])


def test_what_the_client_says_when_it_cannot(server: Server, tiny: streamasr.Recognizer) -> None:
    with pytest.raises(ServerError, match=r"cannot be reached.*is the server running"):
        clients.transcribe("ws://127.0.0.1:9", [(SOUND, 16_000)])
    for nonsense in ("nonsense", "", "ws://", "http://127.0.0.1:8765", "ws://127.0.0.1:99999"):
        with pytest.raises(ConfigError, match="not an address such as ws"):
            clients.transcribe(nonsense, [(SOUND, 16_000)])
    with pytest.raises(ServerError, match=r"at_endpoint.*\(bad_option\)"):
        clients.transcribe(server.url.replace("http", "ws"), [(SOUND, 16_000)], at_endpoint="so")
    with serving(tiny, token="sesame") as guarded:
        with pytest.raises(ServerError, match="unauthorized"):
            clients.transcribe(guarded.url.replace("http", "ws"), [(SOUND, 16_000)])


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        ([], "cannot be reached: no answer"),  # and so whoever freezes
        (["no JSON"], "answers, but not as docs/protocol.md says.*'no JSON'"),
        ([b"\xff"], "not as docs/protocol.md says"),
        (["[]"], "not as docs/protocol.md says"),
        (['{"type": "ready"}'], "not as docs/protocol.md says.*'type': 'ready'"),
        (['{"type": "ready", "session": "s", "ended": false, "received": "x"}'], "not as docs/protocol.md"),
        (
            ['{"type": "ready", "session": "s", "ended": false, "received": 0}', '{"type": "final"}'],
            "not as docs/protocol.md says.*KeyError",
        ),
    ],
)
def test_a_server_that_is_not_ours(
    answers: list[str | bytes], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not answers:
        monkeypatch.setattr(clients, "_PATIENCE_SECONDS", 0.5)

    def answer(line: ServerConnection) -> None:
        for each in answers:
            line.send(each)
        with contextlib.suppress(ConnectionClosed):
            while True:
                line.recv()

    with serve_sockets(answer, "127.0.0.1", 0) as stranger:
        thread = threading.Thread(target=stranger.serve_forever)
        thread.start()
        try:
            with pytest.raises(ServerError, match=said):
                url = f"ws://127.0.0.1:{stranger.socket.getsockname()[1]}"
                clients.transcribe(url, [(SOUND, 16_000)])
        finally:
            stranger.shutdown()
            thread.join()


def test_a_server_that_freezes(
    plain: streamasr.Recognizer, tiny_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its system still takes connections, and nobody answers."""
    monkeypatch.setattr(clients, "_PING_SECONDS", 0.2)
    monkeypatch.setattr(clients, "_PATIENCE_SECONDS", 0.5)
    monkeypatch.setattr(clients, "_RETRY_SECONDS", (0.1,))
    command = [sys.executable, "-m", "streamasr", "serve", "--port", "0", "--model", str(tiny_directory)]
    with subprocess.Popen([*command, "--quiet"], stdout=subprocess.PIPE, text=True) as served:
        assert served.stdout is not None
        found = re.search(r"http(://127\.0\.0\.1:\d+) ", served.stdout.readline())
        assert found

        async def talk() -> None:
            async with Client(f"ws{found[1]}", sample_rate=16_000) as client:
                await client.send(SOUND)
                served.send_signal(signal.SIGSTOP)
                async for _ in client:
                    pass

        try:
            with pytest.raises(ServerError, match="cannot be reached.*is the server running"):
                asyncio.run(talk())
        finally:
            served.send_signal(signal.SIGCONT)
            served.terminate()
