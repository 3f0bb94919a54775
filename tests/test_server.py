"""The server over real sockets on this machine, in this process."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from servers import SOUND, expected, get, serving
from strategies import finals, run, sound
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

import streamasr
from streamasr.cli.main import main
from streamasr.errors import ConfigError
from streamasr.events import Event
from streamasr.live import protocol
from streamasr.live.hub import Limits
from streamasr.live.server import Server

HELLO = {"type": "hello", "sample_rate": 16000, "encoding": "f32le"}


@pytest.fixture(scope="module")
def server(plain: streamasr.Recognizer) -> Iterator[Server]:
    with serving(plain) as running:
        yield running


def address(server: Server) -> str:
    return server.url.replace("http", "ws") + protocol.PATH


def opened(server: Server, **options: Any) -> ClientConnection:
    # Entered, never left: most tests here do not end as a client should.
    return connect(address(server), compression=None, proxy=None, **options).__enter__()


def say(line: ClientConnection, **message: Any) -> None:
    line.send(json.dumps(message))


def hear(line: ClientConnection, kind: str) -> dict[str, Any]:
    """The next message of a kind, or an error."""
    while True:
        message: dict[str, Any] = json.loads(line.recv(30))
        if message["type"] in (kind, "error"):
            return message


def started(server: Server, **fields: Any) -> tuple[ClientConnection, dict[str, Any]]:
    line = opened(server)
    say(line, **{**HELLO, **fields})
    return line, hear(line, "ready")


def rest(line: ClientConnection) -> list[dict[str, Any]]:
    """Messages until the server is done or closes."""
    got = []
    with contextlib.suppress(ConnectionClosed):
        while not got or got[-1]["type"] not in ("done", "error"):
            got.append(json.loads(line.recv(30)))
    return got


def events(messages: list[dict[str, Any]]) -> list[Event]:
    return [protocol.to_event(m) for m in messages if m["type"] in ("partial", "final")]


def until(what: Any, seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "did not happen"
        time.sleep(0.01)


def parts(samples: NDArray[np.float32], size: int = 1600) -> list[bytes]:
    return [samples[first : first + size].tobytes() for first in range(0, len(samples), size)]


def test_a_session(server: Server, plain: streamasr.Recognizer) -> None:
    line, ready = started(server)
    assert ready["version"] == 1 and ready["received"] == 0 and not ready["ended"]
    model = {k: plain.info[k] for k in ("name", "language", "fingerprint")}
    assert ready["model"] == {**model, "hotwords": False}
    for part in parts(SOUND):
        line.send(part)
    say(line, type="ping", id="p")
    say(line, type="end")
    got = rest(line)
    assert finals(events(got)) == expected(plain)
    assert got[-1] == {"type": "done", "event": got[-1]["event"], "duration": 3.0, "reason": "end"}
    numbers = [m["event"] for m in got if "event" in m]
    assert numbers == sorted(set(numbers))
    assert [m["id"] for m in got if m["type"] == "pong"] == ["p"]
    assert [m for m in got if m["type"] == "progress"][-1]["received"] == len(SOUND)
    stable = {}
    for message in got:
        if message["type"] == "partial":
            assert message["stable"].startswith(stable.get(message["segment"], ""))
            stable[message["segment"]] = message["stable"]
        if message["type"] == "final":
            assert message["text"].startswith(stable.get(message["segment"], ""))
    line.close()


def test_sixteen_bits_at_another_rate(server: Server, plain: streamasr.Recognizer) -> None:
    values = (sound(6, 1.0, 44_100) * 20_000).astype("<i2")
    line, _ = started(server, sample_rate=44_100, encoding="s16le", options={"partials": False})
    for part in parts(values, 700):
        line.send(part)
    say(line, type="end")
    got = events(rest(line))
    assert got == finals(run(plain.stream(44_100), values))
    line.close()


def test_many_at_once_each_get_their_own(server: Server, plain: streamasr.Recognizer) -> None:
    sounds = [sound(seed, 1.0) for seed in range(12)]
    lines = [started(server)[0] for _ in sounds]
    for pieces in zip(*map(parts, sounds), strict=True):
        for line, piece in zip(lines, pieces, strict=True):
            line.send(piece)
    for line in lines:
        say(line, type="end")
    for line, samples in zip(lines, sounds, strict=True):
        assert finals(events(rest(line))) == expected(plain, samples)
        line.close()


def test_no_sound(server: Server) -> None:
    line, _ = started(server)
    say(line, type="end")
    assert [m["type"] for m in rest(line)] == ["done"]
    line.close()


@pytest.mark.parametrize(
    ("first", "code"),
    [
        ("garbage", "bad_message"),
        ("[1, 2]", "bad_message"),
        ('{"type": "start"}', "bad_message"),
        (b"\x00\x01", "bad_audio"),
        ('{"type": "hello", "sample_rate": 3}', "bad_option"),
        ('{"type": "hello", "sample_rate": 16000, "version": 9}', "unsupported_version"),
        ('{"type": "hello", "sample_rate": 16000, "options": {"hotwords": ["so"]}}', "bad_option"),
        ('{"type": "hello", "sample_rate": 16000, "options": {"at_endpoint": "so"}}', "bad_option"),
        ('{"type": "resume", "session": "nobody", "event": 0}', "unknown_session"),
    ],
)
def test_first_messages_that_are_refused(server: Server, first: str | bytes, code: str) -> None:
    line = opened(server)
    line.send(first)
    error = hear(line, "error")
    assert error["code"] == code and error["message"] and not error["resumable"]
    with pytest.raises(ConnectionClosed) as closed:
        line.recv(30)
    assert closed.value.rcvd is not None and closed.value.rcvd.code == protocol.CLOSE_CODES[code]


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ("garbage", "bad_message"),
        ('{"type": "hello", "sample_rate": 16000}', "bad_message"),
        (b"abc", "bad_audio"),
        (np.array([np.inf], "<f4").tobytes(), "bad_audio"),
    ],
)
def test_later_messages_that_are_refused(server: Server, message: str | bytes, code: str) -> None:
    before = server.hub.sessions
    line, _ = started(server)
    line.send(message)
    assert hear(line, "error")["code"] == code
    until(lambda: server.hub.sessions == before)
    line.close()


def test_huge_messages_close_the_connection(server: Server) -> None:
    for content in (bytes(70_000), "x" * 70_000, [bytes(40_000), bytes(40_000)]):
        line, _ = started(server)
        with pytest.raises(ConnectionClosed) as closed:
            line.send(content)
            while True:
                line.recv(30)
        assert closed.value.rcvd is not None and closed.value.rcvd.code == 1009


def test_bytes_that_are_no_protocol_at_all(server: Server) -> None:
    for content in (b"\x16\x03\x01" + os.urandom(500), b"BREW coffee\r\n\r\n", b"\r\n" * 1000):
        with socket.create_connection(("127.0.0.1", server.port), 10) as raw:
            raw.sendall(content)
            with contextlib.suppress(ConnectionResetError):
                while raw.recv(4096):
                    pass
    line, _ = started(server)
    line.socket.sendall(os.urandom(2000))  # frames of nonsense
    with pytest.raises(ConnectionClosed):
        while True:
            line.recv(30)
    assert get(server, "/healthz")[0] == 200


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_the_own_page_may_connect(server: Server, host: str) -> None:
    origin = f"http://{host}:{server.port}"
    url = f"ws://{host}:{server.port}{protocol.PATH}"
    with socket.create_connection(("127.0.0.1", server.port)) as plain_socket:
        with connect(url, sock=plain_socket, origin=origin, compression=None, proxy=None) as line:
            say(line, **HELLO)
            assert hear(line, "ready")


@pytest.mark.parametrize(
    "origin",
    [
        *("http://evil.example", "null", "http://127.0.0.1:1", "file://"),
        *("http://[::1", "http://[zz]:1"),  # no addresses at all
    ],
)
def test_foreign_pages_may_not(server: Server, origin: str) -> None:
    with pytest.raises(InvalidStatus) as refused:
        opened(server, origin=origin)
    assert refused.value.response.status_code == 403


def test_a_name_that_was_pointed_at_us_may_not(server: Server) -> None:
    """DNS rebinding: Origin and Host agree, but the name is not ours."""
    name = f"evil.example:{server.port}"
    with socket.create_connection(("127.0.0.1", server.port)) as raw:
        with pytest.raises(InvalidStatus) as refused:
            connect(f"ws://{name}{protocol.PATH}", sock=raw, origin=f"http://{name}", proxy=None)
        assert refused.value.response.status_code == 403


def test_token_and_origins(tiny: streamasr.Recognizer) -> None:
    with serving(tiny, token="sésame", origins=["https://asr.example/"]) as server:
        for fields in ({}, {"token": ""}, {"token": "sesame"}):
            line = opened(server)
            say(line, **{**HELLO, **fields})
            assert hear(line, "ready")["code"] == "unauthorized"
        line, ready = started(server, token="sésame")
        assert ready["type"] == "ready"
        line.close()
        other = opened(server, origin="https://asr.example")
        say(other, type="resume", session=ready["session"], event=0)
        assert hear(other, "ready")["code"] == "unauthorized"
        with pytest.raises(InvalidStatus):
            opened(server, origin="https://asr2.example")


def test_whose_page_it_is(tiny: streamasr.Recognizer) -> None:
    options: dict[str, Any] = {"port": 0, "limits": Limits(max_streams=1, lag_seconds=60.0)}
    local = Server(tiny, **options)
    open_to_all = Server(tiny, host="0.0.0.0", insecure=True, **options)
    guarded = Server(tiny, host="0.0.0.0", token="sesame", **options)
    for server in (local, open_to_all, guarded):
        server._socket.close()
        assert server._may_connect(None, "whatever"), "a program"
        assert server._may_connect("http://192.168.0.7:8765", "192.168.0.7:8765")
        assert server._may_connect("http://[::1]:8765", "[::1]:8765")
        assert not server._may_connect("http://192.168.0.7:8765", "192.168.0.8:8765")
        assert not server._may_connect("ftp://192.168.0.7:8765", "192.168.0.7:8765")
        # Only the token tells our page under a name from that of whoever owns the name.
        assert server._may_connect("http://box.local:8765", "box.local:8765") == (server is guarded)


def test_a_fault_of_ours_ends_the_sessions_it_met(
    plain: streamasr.Recognizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(plain) as server:
        line, _ = started(server)

        def fail(*_: Any) -> None:
            raise ZeroDivisionError("planted")

        with monkeypatch.context() as patch:
            patch.setattr(streamasr.Recognizer, "accept_batch", fail)
            line.send(parts(SOUND)[0])
            error = hear(line, "error")
            assert error["code"] == "internal" and "planted" not in error["message"]
        line, _ = started(server)
        say(line, type="end")
        assert hear(line, "done")["type"] == "done"
        line.close()


def test_token_in_the_header(tiny: streamasr.Recognizer) -> None:
    with serving(tiny, token="sesame") as server:
        line = opened(server, additional_headers={"Authorization": "Bearer sesame"})
        say(line, **HELLO)
        assert hear(line, "ready")["type"] == "ready"
        line.close()


def test_other_machines_need_a_token(tiny: streamasr.Recognizer) -> None:
    with pytest.raises(ConfigError, match="--token, or --insecure"):
        Server(tiny, host="0.0.0.0", port=0)
    for options in ({"token": "t"}, {"insecure": True}):
        with contextlib.closing(Server(tiny, host="0.0.0.0", port=0, **options)._socket):
            pass


def test_a_port_that_is_taken(server: Server, tiny: streamasr.Recognizer) -> None:
    with pytest.raises(ConfigError, match=f"127.0.0.1:{server.port} cannot be listened on"):
        Server(tiny, port=server.port)


def test_kill_and_resume(server: Server, plain: streamasr.Recognizer) -> None:
    line, ready = started(server)
    content = SOUND.tobytes()
    got: list[dict[str, Any]] = []
    at, last = 0, 0
    for stop in (5000, 5000, 21_000, 30_001):
        while at < stop:
            line.send(content[4 * at : 4 * min(at + 700, stop)])
            at = min(at + 700, stop)
        with contextlib.suppress(TimeoutError):
            got.append(json.loads(line.recv(0.05)))
        last = max([m["event"] for m in got if "event" in m], default=0)
        line.socket.shutdown(socket.SHUT_RDWR)  # no closing handshake
        line = opened(server)
        say(line, type="resume", session=ready["session"], event=last)
        again = hear(line, "ready")
        assert again["session"] == ready["session"]
        assert again["received"] <= at
        at = again["received"]
    line.send(content[4 * at : 4 * at + 40_000])
    line.send(content[4 * at + 40_000 :])
    say(line, type="end")
    got += rest(line)
    numbers = [m["event"] for m in got if "event" in m]
    assert numbers == sorted(set(numbers)), "nothing twice"
    assert finals(events(got)) == expected(plain), "nothing lost"
    line.close()


def test_resume_after_done(server: Server, plain: streamasr.Recognizer) -> None:
    line, ready = started(server)
    for part in parts(SOUND):
        line.send(part)
    say(line, type="end")
    hear(line, "done")
    line.socket.shutdown(socket.SHUT_RDWR)
    line = opened(server)
    say(line, type="resume", session=ready["session"], event=0)
    assert hear(line, "ready")["ended"]
    got = rest(line)
    assert finals(events(got)) == expected(plain) and got[-1]["type"] == "done"
    line.close()  # with 1000: now it is forgotten
    line = opened(server)
    say(line, type="resume", session=ready["session"], event=0)
    assert hear(line, "ready")["code"] == "unknown_session"


def test_a_session_that_is_taken_over(server: Server) -> None:
    """The old connection looks alive: half-open."""
    old, ready = started(server)
    old.send(parts(SOUND)[0])
    new = opened(server)
    say(new, type="resume", session=ready["session"], event=0)
    assert hear(new, "ready")["type"] == "ready"
    assert hear(old, "error")["code"] == "replaced"
    say(new, type="end")
    assert hear(new, "done")["duration"] <= 0.1
    new.close()


def test_resume_comes_too_late(tiny: streamasr.Recognizer) -> None:
    with serving(tiny, limits={"resume_seconds": 0.1}) as server:
        line, ready = started(server)
        line.send(parts(SOUND)[0])
        hear(line, "partial")
        line.socket.shutdown(socket.SHUT_RDWR)
        until(lambda: server.hub.sessions == 0)
        line = opened(server)
        say(line, type="resume", session=ready["session"], event=0)
        assert hear(line, "ready")["code"] == "unknown_session"


def test_nobody_is_let_in_while_those_served_wait(plain: streamasr.Recognizer) -> None:
    with serving(plain, limits={"lag_seconds": 0.0}) as server:
        line, _ = started(server)
        line.send(SOUND[:16_000].tobytes())
        line.send(SOUND[16_000:24_000].tobytes())
        hear(line, "progress")  # some of it was decoded, so it has waited
        other = opened(server)
        say(other, **HELLO)
        assert hear(other, "ready")["code"] == "overloaded"
        for part in parts(SOUND[24_000:], 8_000):
            line.send(part)
        say(line, type="end")
        assert finals(events(rest(line))) == expected(plain)


def test_overload_is_refused_and_those_served_go_on(plain: streamasr.Recognizer) -> None:
    with serving(plain, limits={"max_streams": 2}) as server:
        lines = [started(server)[0] for _ in range(2)]
        for line in lines:
            line.send(SOUND[:16_000].tobytes())
        for _ in range(5):
            other = opened(server)
            say(other, **HELLO)
            error = hear(other, "ready")
            assert error["code"] == "overloaded" and error["retry_seconds"] > 0
            with pytest.raises(ConnectionClosed) as closed:
                other.recv(30)
            assert closed.value.rcvd is not None and closed.value.rcvd.code == 1013
        for line in lines:
            line.send(SOUND[16_000:32_000].tobytes())
            line.send(SOUND[32_000:].tobytes())
            say(line, type="end")
            assert finals(events(rest(line))) == expected(plain)
            line.close()
        until(lambda: server.hub.sessions == 0)
        started(server)[0].close()


def test_limits_of_an_address_and_of_connections(tiny: streamasr.Recognizer) -> None:
    # Long enough that no connection is given up, and so makes room for another, on a slow machine.
    with serving(tiny, limits={"per_address": 1, "max_streams": 2, "hello_seconds": 60.0}) as server:
        line, _ = started(server)
        second, refusal = started(server)
        assert refusal["code"] == "address_limit"
        second.close()
        until(lambda: server.connections == 1)
        with contextlib.ExitStack() as opened_ones:
            dial = socket.create_connection
            raw = [opened_ones.enter_context(dial(("127.0.0.1", server.port), 10)) for _ in range(80)]
            assert [b"503" in one.recv(1000) for one in raw[-60:]] == [True] * 60
        until(lambda: server.connections == 1)
        say(line, type="end")
        assert hear(line, "done")
        line.close()


def test_silent_clients_are_dropped(tiny: streamasr.Recognizer) -> None:
    """Half-open sockets: one that never asks, one that never says hello, one that falls silent."""
    with serving(tiny, limits={"hello_seconds": 1.0, "idle_seconds": 1.0}) as server:
        mute = socket.create_connection(("127.0.0.1", server.port), 10)
        assert mute.recv(10) == b""
        mute.close()
        line = opened(server)
        assert hear(line, "error")["code"] == "timeout"
        line, _ = started(server)
        line.send(parts(SOUND)[0])
        for _ in range(4):  # pings keep a session alive
            time.sleep(0.4)
            say(line, type="ping")
            assert hear(line, "pong")["type"] == "pong"
        error = hear(line, "error")
        assert error["code"] == "timeout" and error["resumable"]
        until(lambda: server.connections == 0)


def test_a_session_that_lasts_too_long(plain: streamasr.Recognizer) -> None:
    with serving(plain, limits={"session_seconds": 0.3}) as server:
        line, _ = started(server)
        for part in parts(SOUND):
            line.send(part)
        got = rest(line)
        assert got[-1]["reason"] == "limit"
        assert finals(events(got)) == expected(plain)
        line.close()


def test_a_slow_reader_is_dropped_and_disturbs_nobody(plain: streamasr.Recognizer) -> None:
    with serving(plain, limits={"send_seconds": 0.3}, send_buffer=4096) as server:
        raw = socket.socket()
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        raw.connect(("127.0.0.1", server.port))
        slow = connect(address(server), sock=raw, compression=None, max_queue=1, proxy=None).__enter__()
        say(slow, **HELLO)
        hear(slow, "ready")
        stop = threading.Event()

        def flood() -> None:
            with contextlib.suppress(ConnectionClosed, OSError):
                while not stop.is_set():
                    say(slow, type="ping", id="x" * 60)

        thread = threading.Thread(target=flood)
        thread.start()
        try:
            other, _ = started(server)
            for part in parts(SOUND):
                other.send(part)
            say(other, type="end")
            assert finals(events(rest(other))) == expected(plain)
            other.close()
            until(lambda: 'code="slow_reader"' in get(server, "/metrics")[1], 20)
            until(lambda: server.hub.sessions == 0)
        finally:
            stop.set()
            with contextlib.suppress(OSError):
                raw.shutdown(socket.SHUT_RDWR)
            thread.join()
            slow.close_socket()


def test_sound_faster_than_it_is_decoded_waits(tiny: streamasr.Recognizer) -> None:
    """The server stops reading; nothing is lost."""
    with serving(tiny, limits={"ahead_seconds": 0.5}) as server:
        line, _ = started(server, options={"partials": False, "endpointing": False})
        most = 0.0
        done = threading.Event()

        def watch() -> None:
            nonlocal most
            while not done.wait(0.001):
                for live in list(server.hub._sessions.values()):
                    most = max(most, server.hub._worker.waiting_seconds(live.line))

        thread = threading.Thread(target=watch)
        thread.start()
        long = np.tile(SOUND, 15)
        for part in parts(long, 8000):
            line.send(part)
        say(line, type="end")
        assert hear(line, "done")["duration"] == 45.0
        done.set()
        thread.join()
        # What one read of a socket brings may be above the limit.
        assert most < 0.5 + 256 * 1024 / 4 / 16_000 + 0.5
        line.close()


def test_live_streams_are_not_held_up_by_a_file(plain: streamasr.Recognizer) -> None:
    with serving(plain) as server:
        file, _ = started(server, options={"partials": False})

        def push() -> None:
            with contextlib.suppress(ConnectionClosed):
                for part in parts(np.tile(SOUND, 60), 8000):
                    file.send(part)

        pushing = threading.Thread(target=push)
        pushing.start()
        live, _ = started(server)
        for i in range(5):
            time.sleep(0.1)
            live.send(parts(SOUND)[i])
        say(live, type="end")
        begin = time.monotonic()
        assert hear(live, "done")["duration"] == 0.5
        assert time.monotonic() - begin < 5.0
        live.close()
        file.socket.shutdown(socket.SHUT_RDWR)
        pushing.join()


def test_graceful_stop(plain: streamasr.Recognizer) -> None:
    with serving(plain) as server:
        line, _ = started(server)
        for part in parts(SOUND):
            line.send(part)
        until(lambda: next(iter(server.hub._sessions.values())).session.received == len(SOUND))
        server.stop()
        got = rest(line)
        assert got[-1]["type"] == "done" and got[-1]["reason"] == "stopping"
        assert finals(events(got)) == expected(plain), "all that was heard is told"
        line.close()


def test_fifty_clients_come_and_go(server: Server) -> None:
    def state() -> tuple[int, int, int, int]:
        descriptors = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
        return descriptors, threading.active_count(), server.hub.sessions, server.connections

    started(server)[0].close()
    until(lambda: server.connections == 0 and server.hub.sessions == 0)
    before = state()
    for i in range(50):
        line = opened(server)
        if i % 5 != 0:
            say(line, **HELLO)
            hear(line, "ready")
        if i % 5 == 2:
            line.send(parts(SOUND)[0])
        if i % 5 == 3:
            line.send("garbage")
        if i % 5 == 4:
            line.socket.shutdown(socket.SHUT_RDWR)
        line.close()
    until(lambda: state() == before)


def test_the_page(server: Server) -> None:
    status, content, headers = get(server, "/")
    assert status == 200 and "<html" in content
    policy = headers["content-security-policy"]
    assert (
        "default-src 'none'" in policy
        and "unsafe" not in policy
        and f"ws://127.0.0.1:{server.port}" in policy
    )
    assert headers["x-content-type-options"] == "nosniff"
    assert get(server, "/index.html")[0] == 200
    for path in (
        "/../server.py",
        "/%2e%2e%2fserver.py",
        "/web/index.html",
        "/nothing.js",
        f"/{'a' * 300}.js",
        "/.hidden",
        "/..%5c",
    ):
        assert get(server, path)[0] == 404
    assert "evil" not in get(server, "/", Host="evil; script-src *")[2]["content-security-policy"]


def test_health_and_metrics(server: Server) -> None:
    status, content, _ = get(server, "/healthz")
    assert status == 200 and json.loads(content)["status"] == "ok"
    assert not json.loads(content)["model"]["hotwords"]
    line, _ = started(server)
    for part in parts(SOUND):
        line.send(part)
    say(line, type="end")
    rest(line)
    status, content, headers = get(server, "/metrics")
    assert status == 200 and headers["content-type"].startswith("text/plain; version=0.0.4")
    for row in content.splitlines():
        assert re.fullmatch(r'# (HELP|TYPE) \w+ .+|\w+(\{\w+="[^"]*"\})? [\d.e+-]+', row), row
    values = dict(row.rsplit(" ", 1) for row in content.splitlines() if not row.startswith("#"))
    assert float(values["streamasr_sound_seconds_total"]) >= 3.0
    assert float(values['streamasr_events_total{type="final"}']) >= 1
    assert int(values['streamasr_event_lag_seconds_bucket{le="+Inf"}']) > 0
    line.close()


def test_a_log_of_json_alone(tiny_directory: Path) -> None:
    """Also of what uvicorn complains of: here a text that is none."""
    command = [sys.executable, "-m", "streamasr", "serve", "--port", "0", "--model", str(tiny_directory)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True) as served:
        assert served.stdout is not None and served.stderr is not None
        found = re.search(r"http(://127\.0\.0\.1:\d+) ", served.stdout.readline())
        assert found
        with connect(f"ws{found[1]}{protocol.PATH}", compression=None, proxy=None) as line:
            line.send(b"\xff\xfe", text=True)
            with pytest.raises(ConnectionClosed):
                line.recv(30)
        served.terminate()
        rows = [json.loads(row) for row in served.stderr]
    assert "stopping" in {row["event"] for row in rows}


def test_commands(tiny_directory: Path, tmp_path: Path) -> None:
    """`serve` and `transcribe --server` as they are typed; SIGTERM ends it well."""
    recording = Path(__file__).parent.parent / "demo" / "samples" / "garden.flac"
    command = [sys.executable, "-m", "streamasr"]
    serve = subprocess.Popen(
        [*command, "serve", "--port", "0", "--model", str(tiny_directory), "--max-streams", "3"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with serve:
        assert serve.stdout is not None and serve.stderr is not None
        said = serve.stdout.readline()
        found = re.search(r"http(://127\.0\.0\.1:\d+) \(at most 3 streams", said)
        assert found, said
        listed = []
        for where in (["--server", f"ws{found[1]}"], ["--model", str(tiny_directory)]):
            done = subprocess.run(
                [*command, "transcribe", str(recording), "no.wav", "--format", "json", *where],
                capture_output=True,
                text=True,
            )
            assert done.returncode == 1 and "no.wav: cannot be read" in done.stderr
            listed.append(json.loads(done.stdout))
        assert listed[0] == listed[1] and listed[0][0]["words"]
        serve.send_signal(signal.SIGTERM)
        rows = [json.loads(row) for row in serve.stderr]
        assert serve.wait(20) == 0
    assert {"open", "close", "stopping"} <= {row["event"] for row in rows}
    assert listed[0][0]["text"].split()[0] not in json.dumps(rows), "no text in the log"


def test_wrong_usage(
    tiny_directory: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("STREAMASR_TOKEN", raising=False)
    for options, said in (
        (["--host", "0.0.0.0"], "--insecure"),
        (["--port", "70000"], "--port must be"),
        (["--max-streams", "0"], "--max-streams must be 1 or more"),
        (["--host", "no.such.host.invalid", "--token", "t"], "cannot be listened on"),
        (["--origin", "notaurl"], "--origin notaurl: not an origin such as https://"),
    ):
        assert main(["serve", "--quiet", "--model", str(tiny_directory), *options]) == 2
        assert said in capsys.readouterr().err
