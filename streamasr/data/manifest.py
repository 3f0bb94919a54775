"""manifest (JSON lines) <-> list of utterances.

One JSON object a line, UTF-8:

    {"id": "84-121123-0001", "audio": "audio/84-121123-0001.flac", "duration": 4.2,
     "text": "have you not met them anywhere", "speaker": "84"}

`audio` is relative to the manifest's own folder; `duration` (seconds) and `speaker` may be missing;
`text` may be empty (a recording without speech); other keys are left alone. A manifest is checked in
one pass before it is used, and everything wrong with it is said at once.
"""

from __future__ import annotations

import json
import math
import os
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import ManifestError

LISTED_PROBLEMS = 50  # chosen: two screens; the rest is counted


@dataclass(frozen=True, slots=True)
class Utterance:
    """One recording and what is said in it."""

    id: str  # unique in its manifest
    audio: Path  # absolute
    duration: float | None  # seconds, positive
    text: str  # as written in the manifest; `data.text` normalises
    speaker: str | None


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with one line of a manifest, and what to do about it."""

    line: int  # from 1
    id: str  # of the utterance, or "line N" where it has none
    message: str

    def __str__(self) -> str:
        name = "" if self.id == f"line {self.line}" else f" ({self.id})"
        return f"line {self.line}{name}: {self.message}"


def read(path: str | os.PathLike[str]) -> list[Utterance]:
    """manifest -> utterances, in the manifest's order.

    Raises: ManifestError if the file cannot be read or anything in it is wrong (all problems listed).
    """
    utterances, problems = scan(path)
    if problems:
        raise ManifestError(listing(path, problems))
    return utterances


def scan(path: str | os.PathLike[str]) -> tuple[list[Utterance], list[Problem]]:
    """manifest -> (good utterances, problems of the other lines), both in the manifest's order.

    For work that goes on with what is usable, such as an evaluation. Of two utterances with the same
    id the first is good. Raises: ManifestError only if the file itself cannot be read.
    """
    path = Path(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ManifestError(f"{path}: cannot read the manifest: {error.strerror or error}") from error
    folder = path.resolve().parent
    utterances: list[Utterance] = []
    problems: list[Problem] = []
    line_of: dict[str, int] = {}
    # Only "\n" ends a line: str.splitlines would also cut at characters that JSON allows in a text.
    for number, raw in enumerate(content.removeprefix(b"\xef\xbb\xbf").split(b"\n"), start=1):
        if not raw.strip():
            continue
        entry, wrong = _parse(raw)
        name = f"line {number}"
        if _is_name(entry.get("id")):
            name = entry["id"]
            if name in line_of:
                wrong.append(f'id "{name}" is that of line {line_of[name]} too; ids must be unique')
            line_of.setdefault(name, number)
        if not wrong:
            utterance = _utterance(entry, folder)
            if os.path.isfile(utterance.audio):
                utterances.append(utterance)
                continue
            wrong.append(f"no audio file {utterance.audio} (audio is relative to the manifest)")
        problems.extend(Problem(number, name, message) for message in wrong)
    return utterances, problems


def write(path: str | os.PathLike[str], utterances: Iterable[Utterance]) -> None:
    """utterances -> manifest, audio relative to it; replaces an older file in one step.

    Raises: ManifestError if two utterances have the same id or the file cannot be written.
    """
    path = Path(path)
    folder = path.resolve().parent
    seen: set[str] = set()
    lines = []
    for utterance in utterances:
        if utterance.id in seen:
            raise ManifestError(f'{path}: two utterances have the id "{utterance.id}"; ids must be unique')
        seen.add(utterance.id)
        audio = Path(os.path.relpath(utterance.audio, folder)).as_posix()
        entry: dict[str, Any] = {"id": utterance.id, "audio": audio}
        if utterance.duration is not None:
            entry["duration"] = utterance.duration
        entry["text"] = utterance.text
        if utterance.speaker is not None:
            entry["speaker"] = utterance.speaker
        lines.append(json.dumps(entry, ensure_ascii=False) + "\n")
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_bytes("".join(lines).encode())
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise ManifestError(f"{path}: cannot write the manifest: {error.strerror or error}") from error


def sample(utterances: Sequence[Utterance], count: int | None, seed: int = 0) -> list[Utterance]:
    """A random sample of `count` utterances (None, or more than there are: all), in the given order."""
    if count is None or count >= len(utterances):
        return list(utterances)
    return [utterances[i] for i in sorted(random.Random(seed).sample(range(len(utterances)), count))]


def listing(path: str | os.PathLike[str], problems: Sequence[object]) -> str:
    """The text of a ManifestError: how many problems, the first 50 of them one a line, the rest counted."""
    noun = "problem" if len(problems) == 1 else "problems"
    lines = [f"{path}: {len(problems)} {noun}"]
    lines += [f"  {problem}" for problem in problems[:LISTED_PROBLEMS]]
    if len(problems) > LISTED_PROBLEMS:
        lines.append(f"  ... and {len(problems) - LISTED_PROBLEMS} more")
    return "\n".join(lines)


def _parse(raw: bytes) -> tuple[dict[str, Any], list[str]]:
    """One line -> (its JSON object, what is wrong with its keys); the object is empty if there is none."""
    try:
        entry = json.loads(raw.decode())
    except UnicodeDecodeError as error:
        return {}, [f"not UTF-8 at byte {error.start + 1}; save the manifest as UTF-8"]
    except (ValueError, RecursionError) as error:
        return {}, [f"not JSON ({error}); write one object a line"]
    if not isinstance(entry, dict):
        return {}, [f'not a JSON object but {_kind(entry)}; write {{"id": ..., "audio": ..., "text": ...}}']
    wrong = [f'"{key}" is missing' for key in ("id", "audio", "text") if key not in entry]
    for key in ("id", "audio"):
        if key in entry and not _is_name(entry[key]):
            wrong.append(f'"{key}" must be a non-empty string, not {_kind(entry[key])}')
    if "text" in entry and not _is_text(entry["text"]):
        wrong.append(f'"text" must be a string (empty if nothing is said), not {_kind(entry["text"])}')
    speaker, duration = entry.get("speaker"), entry.get("duration")
    if speaker is not None and not _is_text(speaker):
        wrong.append(f'"speaker" must be a string or left out, not {_kind(speaker)}')
    if duration is not None and not _is_length(duration):
        shown = duration if isinstance(duration, float) else _kind(duration)
        wrong.append(f'"duration" must be a positive number of seconds or left out, not {shown}')
    return entry, wrong


def _utterance(entry: dict[str, Any], folder: Path) -> Utterance:
    duration = entry.get("duration")
    return Utterance(
        id=entry["id"],
        audio=folder / entry["audio"],
        duration=None if duration is None else float(duration),
        text=entry["text"],
        speaker=entry.get("speaker"),
    )


def _is_text(value: object) -> bool:
    """Whether it is a string that can be written out again (JSON may hold half a surrogate pair)."""
    return isinstance(value, str) and not any("\ud800" <= c <= "\udfff" for c in value)


def _is_name(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip()) and _is_text(value)


def _is_length(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    try:
        return math.isfinite(float(value)) and value > 0
    except OverflowError:
        return False


def _kind(value: object) -> str:
    """A JSON value as a reader of the manifest would call it; numbers and short strings as they are."""
    if isinstance(value, str):
        return "an empty string" if not value.strip() else ascii(value[:40])
    if isinstance(value, (bool, int, float)) or value is None:
        return json.dumps(value)[:40]
    return "a list" if isinstance(value, list) else "an object"
