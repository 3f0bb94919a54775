"""Messages of docs/protocol.md: text <-> checked values. No sockets, no clock, no threads.

`parse_first` and `parse` read what clients say, `hello` and `to_event` serve clients. Whatever a client does
wrong is a `Refusal`, with a code of the protocol's table; `session.py` has what follows from messages.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any

from ..errors import ConfigError
from ..events import Event, Final, Partial, Word
from ..resample import HIGHEST_RATE, LOWEST_RATE
from ..search.hotwords import Phrase
from ..segmenter import EndpointRule

VERSION = 1
PATH = "/v1/stream"
ENCODINGS = {"s16le": "<i2", "f32le": "<f4"}
OPTIONS = ("partials", "endpointing", "hotwords", "phrases", "at_endpoint")
CLOSE_CODES = {  # every code of an error message, and what the connection is closed with (RFC 6455, 7.4)
    "bad_message": 1008,
    "bad_audio": 1008,
    "bad_option": 1008,
    "unauthorized": 1008,
    "unsupported_version": 1008,
    "unknown_session": 1008,
    "lost_events": 1008,
    "replaced": 1008,
    "timeout": 1008,
    "slow_reader": 1008,
    "address_limit": 1013,
    "overloaded": 1013,
    "stopping": 1012,
    "internal": 1011,
}
_LONGEST_ID = 64
_encoder = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False)


class Refusal(Exception):
    """What the server does not do, as its last message on a connection. `code` is one of CLOSE_CODES."""

    def __init__(
        self, code: str, message: str, *, resumable: bool = False, retry_seconds: float | None = None
    ) -> None:
        super().__init__(message)
        self.code, self.message = code, message
        self.resumable, self.retry_seconds = resumable, retry_seconds
        self.close_code = CLOSE_CODES[code]

    def to_dict(self) -> dict[str, Any]:
        message = {
            "type": "error",
            "code": self.code,
            "message": self.message,
            "resumable": self.resumable,
        }
        return message if self.retry_seconds is None else {**message, "retry_seconds": self.retry_seconds}


@dataclass(frozen=True, slots=True)
class Hello:
    """First message of a new session. Options as `Recognizer.stream` takes them."""

    sample_rate: int
    encoding: str = "s16le"
    token: str = ""
    partials: bool = True
    endpointing: bool | tuple[EndpointRule, ...] = True
    hotwords: tuple[Phrase, ...] = ()
    phrases: tuple[str, ...] | None = None
    at_endpoint: str = "carry"


@dataclass(frozen=True, slots=True)
class Resume:
    """First message of a connection that takes a session up again, after event number `event`."""

    session: str
    event: int
    token: str = ""


@dataclass(frozen=True, slots=True)
class End:
    """There is no more sound."""


@dataclass(frozen=True, slots=True)
class Ping:
    """To be answered with the same `id`."""

    id: int | float | str | None


def render(message: dict[str, Any]) -> str:
    """Message -> text of one WebSocket message."""
    return _encoder.encode(message)


def parse_first(text: str) -> Hello | Resume:
    """Text of a connection's first message -> Hello or Resume. Raises Refusal."""
    message = _object(text)
    kind = message.get("type")
    if kind not in ("hello", "resume"):
        raise Refusal(
            "bad_message", f'the first message must be of type "hello" or "resume", not {kind!r:.80}'
        )
    version = message.get("version", VERSION)
    if version != VERSION or isinstance(version, bool):
        raise Refusal("unsupported_version", f"version {version!r:.80}: this server speaks version {VERSION}")
    token = _field(message, "token", str, "")
    if kind == "resume":
        event = _field(message, "event", int)
        if event < 0:
            raise Refusal("bad_message", f"event must be 0 or more, not {event}")
        return Resume(_field(message, "session", str), event, token)
    sample_rate = _field(message, "sample_rate", int)
    if not LOWEST_RATE <= sample_rate <= HIGHEST_RATE:
        raise Refusal(
            "bad_option", f"sample_rate must be {LOWEST_RATE} to {HIGHEST_RATE} Hz, not {sample_rate!r:.80}"
        )
    encoding = _field(message, "encoding", str, "s16le")
    if encoding not in ENCODINGS:
        raise Refusal("bad_option", f"encoding must be one of {', '.join(ENCODINGS)}, not {encoding!r:.80}")
    options = _field(message, "options", dict, {})
    if unknown := sorted(set(options) - set(OPTIONS)):
        raise Refusal("bad_option", f"unknown option {unknown[0]!r:.80}; there are {', '.join(OPTIONS)}")
    return Hello(
        sample_rate,
        encoding,
        token,
        _field(options, "partials", bool, True),
        _endpointing(options.get("endpointing", True)),
        _hotwords(options.get("hotwords", [])),
        _phrases(options.get("phrases")),
        _field(options, "at_endpoint", str, "carry"),
    )


def parse(text: str) -> End | Ping:
    """Text of a later message -> End or Ping. Raises Refusal."""
    message = _object(text)
    kind = message.get("type")
    if kind == "end":
        return End()
    if kind != "ping":
        raise Refusal("bad_message", f'a message of type {kind!r:.80} is not due; "end" and "ping" are')
    mark = message.get("id")
    if mark is not None and (isinstance(mark, bool) or not isinstance(mark, int | float | str)):
        raise Refusal("bad_message", "id must be a number or a text")
    if len(str(mark)) > _LONGEST_ID:
        raise Refusal("bad_message", f"id has {len(str(mark))} characters, must have {_LONGEST_ID} at most")
    return Ping(mark)


def hello(
    sample_rate: int,
    encoding: str,
    token: str = "",
    *,
    partials: bool = True,
    endpointing: bool | Sequence[EndpointRule] = True,
    hotwords: Iterable[Phrase] = (),
    phrases: Iterable[str] | None = None,
    at_endpoint: str = "carry",
) -> dict[str, Any]:
    """What `parse_first` reads."""
    rules = endpointing if isinstance(endpointing, bool) else [_rule_fields(rule) for rule in endpointing]
    only = None if phrases is None else list(phrases)
    values = (partials, rules, list(hotwords), only, at_endpoint)
    options = dict(zip(OPTIONS, values, strict=True))
    message: dict[str, Any] = {"type": "hello", "version": VERSION, "sample_rate": sample_rate}
    message |= {"encoding": encoding, "options": options}
    return {**message, "token": token} if token else message


def to_event(message: dict[str, Any]) -> Event:
    """A `partial` or `final` as it came -> the event it was made of. Raises ValueError."""
    kinds: dict[str, type[Partial] | type[Final]] = {"partial": Partial, "final": Final}
    try:
        kind = kinds[message["type"]]
        words = tuple(Word(w["text"], w["start"], w["end"], w["confidence"]) for w in message["words"])
        return kind(**{f.name: message[f.name] for f in fields(kind)} | {"words": words})
    except (KeyError, TypeError) as error:
        raise ValueError(f"not a partial or final of this protocol: {error!r}") from error


def _object(text: str) -> dict[str, Any]:
    try:
        message = json.loads(text, parse_constant=_no_constant)
        render(message).encode()  # an infinite number, or half a character, could not be told back
    except (ValueError, RecursionError):
        raise Refusal(
            "bad_message", "a text message must be JSON, its numbers finite and its characters whole"
        ) from None
    if not isinstance(message, dict):
        raise Refusal("bad_message", f"a text message must be a JSON object, not {type(message).__name__}")
    return message


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _field(message: dict[str, Any], name: str, kind: type, default: Any = None) -> Any:
    """Field `name` of type `kind`, or `default` where there is none; None: it is required."""
    value = message.get(name, default)
    if type(value) is not kind:
        names = {str: "a text", int: "a whole number", bool: "true or false", dict: "an object"}
        found = "missing" if name not in message else f"not {value!r:.80}"
        raise Refusal("bad_message", f"{name} must be {names[kind]}, {found}")
    return value


def _endpointing(value: Any) -> bool | tuple[EndpointRule, ...]:
    if isinstance(value, bool):
        return value
    if not isinstance(value, list) or not all(isinstance(rule, dict) for rule in value):
        raise Refusal("bad_option", "endpointing must be true, false or a list of objects")
    if not value:
        raise Refusal("bad_option", "endpointing: an empty list of rules; say false for none")
    names = [field.name for field in fields(EndpointRule)]
    if unknown := sorted({name for rule in value for name in rule} - set(names)):
        raise Refusal(
            "bad_option", f"endpointing: unknown field {unknown[0]!r:.80}; there are {', '.join(names)}"
        )
    try:
        return tuple(EndpointRule(**rule) for rule in value)
    except ConfigError as error:
        raise Refusal("bad_option", f"endpointing: {error}") from None


def _rule_fields(rule: EndpointRule) -> dict[str, Any]:
    return {field.name: getattr(rule, field.name) for field in fields(rule)}


def _hotwords(value: Any) -> tuple[Phrase, ...]:
    if not isinstance(value, list):
        raise Refusal("bad_option", "hotwords must be a list of phrases")
    phrases: list[Phrase] = []
    for item in value:
        if isinstance(item, str):
            phrases.append(item)
        elif (
            isinstance(item, list)
            and len(item) == 2
            and isinstance(item[0], str)
            and type(item[1]) in (int, float)
        ):
            phrases.append((item[0], item[1]))
        else:
            raise Refusal("bad_option", f"hotwords: {item!r:.80} is neither a phrase nor [phrase, boost]")
    return tuple(phrases)


def _phrases(value: Any) -> tuple[str, ...] | None:
    if value is None:
        return None
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise Refusal("bad_option", "phrases must be a list of texts")
    return tuple(value)
