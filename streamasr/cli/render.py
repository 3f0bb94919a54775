"""Transcript -> text, SubRip, WebVTT or JSON.

A cue of subtitles holds at most 2 lines of 42 characters (what broadcasters' guides allow) and 7
seconds, lies within one segment, and breaks where the speaker pauses. Its times are those of its words.
"""

from __future__ import annotations

import html
import json
import textwrap
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import chain

from ..events import Transcript, Word

LINE = 42  # characters
LINES = 2
LONGEST_SECONDS = 7.0  # as in most subtitling guides
SHORTEST_SECONDS = 1.0  # below that nobody can read it; given only where the next cue leaves the time
PAUSE_SECONDS = 0.8  # between two words of a segment; chosen


@dataclass(frozen=True, slots=True)
class Cue:
    """`lines` are shown from `start` to `end` (seconds)."""

    start: float
    end: float
    lines: tuple[str, ...]


def txt(transcript: Transcript) -> str:
    """One line per segment."""
    return "".join(f"{segment.text}\n" for segment in transcript.segments)


def as_json(transcript: Transcript) -> str:
    return json.dumps(transcript.to_dict(), ensure_ascii=False, indent=2) + "\n"


def srt(transcript: Transcript) -> str:
    """SubRip: numbered cues, `hh:mm:ss,mmm`."""
    return "\n".join(
        f"{number}\n{clock(cue.start, ',')} --> {clock(cue.end, ',')}\n"
        + "".join(f"{line}\n" for line in cue.lines)
        for number, cue in enumerate(cues(transcript), start=1)
    )


def vtt(transcript: Transcript) -> str:
    """WebVTT: `hh:mm:ss.mmm`; text escaped as its grammar asks."""
    return "WEBVTT\n" + "".join(
        f"\n{clock(cue.start, '.')} --> {clock(cue.end, '.')}\n"
        + "".join(f"{html.escape(line, quote=False)}\n" for line in cue.lines)
        for cue in cues(transcript)
    )


FORMATS: dict[str, Callable[[Transcript], str]] = {"txt": txt, "json": as_json, "srt": srt, "vtt": vtt}


def clock(seconds: float, mark: str) -> str:
    """Seconds -> hh:mm:ss and milliseconds after `mark`."""
    milliseconds = round(1000 * seconds)
    minutes, rest = divmod(milliseconds, 60_000)
    return f"{minutes // 60:02}:{minutes % 60:02}:{rest // 1000:02}{mark}{rest % 1000:03}"


def cues(transcript: Transcript) -> list[Cue]:
    """Words of the final segments -> cues in order of time, none overlapping the next."""
    groups = [group for segment in transcript.segments for group in _groups(segment.words)]
    listed: list[Cue] = []
    for i, group in enumerate(groups):
        start, end = group[0].start, group[-1].end
        latest = groups[i + 1][0].start if i + 1 < len(groups) else max(end, transcript.duration)
        # Ends are the recogniser's guess: they give way to the next start, and fill up a short cue.
        end = min(max(end, start + SHORTEST_SECONDS), max(latest, start + 0.001))
        listed.append(Cue(start, end, _lines(" ".join(word.text for word in group))))
    return listed


def _groups(words: Iterable[Word]) -> list[list[Word]]:
    """Words of one segment -> those of each cue."""
    groups: list[list[Word]] = []
    for word in chain.from_iterable(map(_pieces, words)):
        if groups:
            group = groups[-1]
            text = " ".join([*(earlier.text for earlier in group), word.text])
            pause = word.start - group[-1].end
            fits = _fits(text) and word.end - group[0].start <= LONGEST_SECONDS
            if fits and pause < PAUSE_SECONDS:
                group.append(word)
                continue
        groups.append([word])
    return groups


def _fits(text: str) -> bool:
    """Is there room for it in a cue?"""
    return len(text) <= LINE or (len(text) <= LINES * (LINE + 1) and len(_wrap(text, LINE)) <= LINES)


def _pieces(word: Word) -> list[Word]:
    """A word -> itself, or what fits on lines, with shares of its time (letters without an end happen)."""
    count = -(-len(word.text) // LINE)
    if count <= 1:
        return [word]
    share = (word.end - word.start) / count
    return [
        Word(
            word.text[i * LINE : (i + 1) * LINE],
            word.start + i * share,
            word.start + (i + 1) * share,
            word.confidence,
        )
        for i in range(count)
    ]


def _lines(text: str) -> tuple[str, ...]:
    """Text of a cue -> its lines, of about equal length."""
    fewest = len(_wrap(text, LINE))
    least = max((len(text) + 1) // fewest - 1, 1) if fewest else LINE  # what is narrower has no room for it
    width = next((width for width in range(least, LINE) if len(_wrap(text, width)) <= fewest), LINE)
    return tuple(_wrap(text, width))


def _wrap(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, width, break_on_hyphens=False)
