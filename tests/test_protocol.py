from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import every, run, sound, thorough

import streamasr
from streamasr.events import Event, Final, Partial, Word
from streamasr.live import protocol
from streamasr.live.protocol import End, Hello, Ping, Refusal, Resume, parse, parse_first
from streamasr.live.session import KEPT_BYTES, Session
from streamasr.segmenter import EndpointRule

PAGE = (Path(__file__).parent.parent / "docs" / "protocol.md").read_text()
WORD = Word("so", 0.1, 0.30000000000000004, 0.9)


def partial(text: str) -> Partial:
    return Partial(0, "", text, (WORD,), 0.5)


def final(number: int) -> Final:
    return Final(number, "so", (WORD,), 0.1, 0.3, 0.9, "endpoint:silence")


def messages(session: Session, after: int = 0) -> list[dict[str, Any]]:
    return [json.loads(text) for _, text in session.after(after)]


def refused(code: str, text: str, read: Any = parse_first) -> str:
    with pytest.raises(Refusal) as caught:
        read(text)
    assert caught.value.code == code
    assert caught.value.close_code == protocol.CLOSE_CODES[code]
    return caught.value.message


def test_hello() -> None:
    assert parse_first('{"type": "hello", "sample_rate": 48000, "later": 1}') == Hello(48000)
    rule = EndpointRule(silence_seconds=0.5)
    written = protocol.hello(
        8000, "f32le", "key", partials=False, endpointing=[rule], hotwords=["so", ("it is", 3.0)]
    )
    assert parse_first(protocol.render(written)) == Hello(
        8000, "f32le", "key", False, (rule,), ("so", ("it is", 3.0))
    )
    only = parse_first(protocol.render(protocol.hello(8000, "s16le", phrases=["so"], at_endpoint="reset")))
    assert only == Hello(8000, phrases=("so",), at_endpoint="reset")
    assert parse_first('{"type": "resume", "session": "s", "event": 3}') == Resume("s", 3)


@pytest.mark.parametrize(
    ("code", "fields", "said"),
    [
        ("bad_message", {"type": "hallo"}, "'hallo'"),
        ("bad_message", {"type": None}, "None"),
        ("bad_message", {"sample_rate": None}, "sample_rate must be a whole number, not None"),
        ("bad_message", {"sample_rate": 16000.0}, "not 16000.0"),
        ("bad_message", {"sample_rate": True}, "not True"),
        ("bad_option", {"sample_rate": 10}, "1000 to 768000 Hz, not 10"),
        ("bad_option", {"encoding": "opus"}, "s16le, f32le, not 'opus'"),
        ("bad_message", {"encoding": 3}, "encoding must be a text"),
        ("bad_message", {"token": 3}, "token must be a text"),
        ("bad_message", {"options": []}, "options must be an object"),
        ("bad_option", {"options": {"hotword": []}}, "unknown option 'hotword'"),
        ("bad_message", {"options": {"partials": 1}}, "partials must be true or false"),
        ("bad_option", {"options": {"endpointing": []}}, "say false for none"),
        ("bad_option", {"options": {"endpointing": 3}}, "endpointing"),
        ("bad_option", {"options": {"endpointing": [{"silence": 1}]}}, "silence"),
        ("bad_option", {"options": {"endpointing": [{"silence_seconds": -1}]}}, "0 to 86400, not -1"),
        ("bad_option", {"options": {"endpointing": [{"silence_seconds": True}]}}, "not True"),
        ("bad_option", {"options": {"endpointing": [{"silence_seconds": 10**400}]}}, "0 to 86400"),
        ("bad_option", {"options": {"endpointing": [1]}}, "a list of objects"),
        ("bad_message", {"type": "x" * 60_000}, "'xxx"),
        ("bad_option", {"options": {"hotwords": "so"}}, "list of phrases"),
        ("bad_option", {"options": {"hotwords": [["so", "2"]]}}, "neither a phrase nor"),
        ("bad_option", {"options": {"phrases": ["so", 3]}}, "phrases must be a list of texts"),
        ("unsupported_version", {"version": 2}, "speaks version 1"),
        ("unsupported_version", {"version": True}, "speaks version 1"),
    ],
)
def test_hello_that_is_refused(code: str, fields: dict[str, Any], said: str) -> None:
    message = refused(code, json.dumps({"type": "hello", "sample_rate": 16000, **fields}))
    assert said in message and len(message) < 300


@pytest.mark.parametrize(
    "text",
    [
        "",
        "nonsense",
        "[]",
        "3",
        '{"type": NaN}',
        "[" * 20_000,
        '{"type": "hello"',
        "\ud800" * 3,
        '{"type": "ping", "id": 1e999}',
        '{"type": "hello", "sample_rate": 16000, "token": "\\ud800"}',
    ],
)
def test_text_that_is_no_message(text: str) -> None:
    refused("bad_message", text)
    refused("bad_message", text, parse)


def test_later_messages() -> None:
    assert parse('{"type": "end"}') == End()
    assert parse('{"type": "ping", "id": 3}') == Ping(3)
    assert parse('{"type": "ping"}') == Ping(None)
    for text in (
        '{"type": "hello", "sample_rate": 16000}',
        '{"type": "ping", "id": []}',
        '{"type": "ping", "id": true}',
        f'{{"type": "ping", "id": "{"x" * 65}"}}',
        f'{{"type": "ping", "id": {"9" * 65}}}',
    ):
        refused("bad_message", text, parse)


def test_a_resume_must_name_session_and_event() -> None:
    for text in (
        '{"type": "resume", "event": 0}',
        '{"type": "resume", "session": "s"}',
        '{"type": "resume", "session": "s", "event": -1}',
    ):
        refused("bad_message", text)


def test_audio() -> None:
    values = np.array([0, 1, -32768, 32767], "<i2")
    session = Session(Hello(16000))
    assert session.audio(values.tobytes()).tolist() == [0.0, 1 / 32768, -1.0, 32767 / 32768]
    assert session.audio(b"").tolist() == []
    assert session.received == 4
    floats = Session(Hello(16000, "f32le"))
    assert floats.audio(np.array([0.5, -1.0], "<f4").tobytes()).tolist() == [0.5, -1.0]
    for bad in (b"x", np.array([np.nan], "<f4").tobytes(), np.array([1e9], "<f4").tobytes()):
        with pytest.raises(Refusal, match=r"whole samples|sample 2 is"):
            floats.audio(bad)
    assert floats.received == 2


def test_audio_after_the_end() -> None:
    session = Session(Hello(16000))
    session.end()
    with pytest.raises(Refusal, match="sound after end"):
        session.audio(b"ab")
    session = Session(Hello(16000))
    session.end("limit")  # the client cannot know yet
    assert len(session.audio(b"abab")) == 0 == session.received


def test_a_newer_partial_or_a_final_replaces_a_partial() -> None:
    session = Session(Hello(16000))
    session.tell([partial("s")], 100)
    session.tell([partial("so")], 200)
    assert [(m["event"], m["volatile"]) for m in messages(session)] == [(2, "so")]
    session.tell([final(0)], 300)
    assert [(m["event"], m["type"]) for m in messages(session)] == [(3, "final")]
    session.tell([partial("i")], 400)
    assert [m["event"] for m in messages(session, 2)] == [3, 4]
    assert [m["event"] for m in messages(session, 3)] == [4]
    session.end()
    session.finish()
    (done,) = messages(session, 4)
    assert done == {"type": "done", "event": 5, "duration": 400 / 16000, "reason": "end"}
    with pytest.raises(Refusal, match="has not been told"):
        session.after(6)


def test_without_partials() -> None:
    session = Session(Hello(16000, partials=False))
    session.tell([partial("s"), final(0)], 100)
    assert [m["type"] for m in messages(session)] == ["final"]


def test_what_is_kept_for_a_resume_is_bounded() -> None:
    session = Session(Hello(16000))
    size = len(protocol.render(final(0).to_dict()))
    for number in range(2 * KEPT_BYTES // size):
        session.tell([final(number)], number)
    kept = messages(session, session._number - 10)
    assert [m["segment"] for m in kept] == list(range(number - 9, number + 1))
    with pytest.raises(Refusal) as caught:
        session.after(3)
    assert caught.value.code == "lost_events"


def test_events_survive_the_way() -> None:
    session = Session(Hello(16000))
    session.tell([final(0), partial("so")], 100)
    assert [protocol.to_event(m) for m in messages(session)] == [final(0), partial("so")]
    for bad in ({"type": "done"}, {"type": "final", "words": [{}]}, {"type": "partial", "words": []}, {}):
        with pytest.raises(ValueError, match="not a partial or final"):
            protocol.to_event(bad)


@thorough
@given(
    steps=st.lists(st.sampled_from(["partial", "final", "read", "drop"]), max_size=30),
    kept=st.integers(0, 5),
)
def test_whatever_breaks_the_client_has_every_final_once(steps: list[str], kept: int) -> None:
    """A client that is told more than it reads, drops, and resumes after what it has read."""
    session = Session(Hello(16000))
    told: list[Event] = []
    wire: list[dict[str, Any]] = []  # sent, not read
    got: list[dict[str, Any]] = []
    sent = 0

    def send() -> None:
        nonlocal sent
        for number, text in session.after(sent):
            wire.append(json.loads(text))
            sent = number

    for step in [*steps, "drop", "read"]:
        if step == "read":
            got += wire
            wire.clear()
        elif step == "drop":
            got += wire[:kept]  # the rest is lost with the connection
            wire.clear()
            sent = got[-1]["event"] if got else 0
        else:
            told.append(final(len(told)) if step == "final" else partial(str(len(told))))
            session.tell([told[-1]], 0)
        send()
    got += wire
    numbers = [m["event"] for m in got]
    assert numbers == sorted(set(numbers))
    events = [protocol.to_event(m) for m in got]
    assert [e for e in events if isinstance(e, Final)] == [e for e in told if isinstance(e, Final)]
    if told:
        assert events[-1] == told[-1]


def test_a_session_with_a_stream(plain: streamasr.Recognizer) -> None:
    """The protocol alone carries what the stream says."""
    samples = sound(3, 3.0)
    expected = run(plain.stream(), samples, every(len(samples), 1600))
    session, stream = Session(Hello(16000, "f32le")), plain.stream()
    got: list[Event] = []
    number = 0
    for part in every(len(samples), 1600):
        session.tell(stream.accept(session.audio(samples[part].tobytes())), session.received)
        for message in messages(session, number):
            number = message["event"]
            got.append(protocol.to_event(message))
    session.end()
    session.tell(stream.finish(), session.received)
    session.finish()
    *last, done = messages(session, number)
    assert [*got, *(protocol.to_event(m) for m in last)] == expected
    assert done["duration"] == 3.0


def test_the_page_names_every_code_type_and_option() -> None:
    table = dict(re.findall(r"^\| `(\w+)` \| (\d{4}) \|", PAGE, re.M))
    assert {name: int(code) for name, code in table.items()} == protocol.CLOSE_CODES
    for name in protocol.OPTIONS:
        assert re.search(rf"^\| `{name}` \|", PAGE, re.M)
    session = Session(Hello(16000))
    for message in (session.ready({}, {}), final(0).to_dict(), partial("").to_dict()):
        for field in message:
            assert f"`{field}`" in PAGE, field
