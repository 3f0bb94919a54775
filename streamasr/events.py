"""What a stream tells its caller: frozen values, times in seconds of stream time, confidences in [0, 1].

    Partial   the segment so far; `stable` will not change, `volatile` may
    Final     a finished segment
    Word      one word of either, with its times
    Transcript  a whole recording: the finals of one stream, put together

Every rendering (terminal, JSON, subtitles, WebSocket) starts from these or from their `to_dict()`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

Reason = Literal["endpoint:silence", "endpoint:length", "finish"]


@dataclass(frozen=True, slots=True)
class Word:
    """One word: heard between `start` and `end` (seconds), `confidence` in [0, 1]."""

    text: str
    start: float
    end: float
    confidence: float

    def to_dict(self) -> dict[str, Any]:
        return {"text": self.text, "start": self.start, "end": self.end, "confidence": self.confidence}


@dataclass(frozen=True, slots=True)
class Partial:
    """Segment number `segment` after `time` seconds of the stream.

    `stable` is a prefix of every later text of the segment; `volatile` is what else of the best guess is
    likely to stay, with beam search words that have ended (docs/search.md, What is shown).
    """

    segment: int
    stable: str
    volatile: str
    words: tuple[Word, ...]
    time: float

    @property
    def text(self) -> str:
        """Both parts, with one space between them where both exist."""
        return f"{self.stable} {self.volatile}".strip()

    def to_dict(self) -> dict[str, Any]:
        """JSON-able, with `"type": "partial"`."""
        return {
            "type": "partial",
            "segment": self.segment,
            "stable": self.stable,
            "volatile": self.volatile,
            "words": [word.to_dict() for word in self.words],
            "time": self.time,
        }


@dataclass(frozen=True, slots=True)
class Final:
    """Finished segment number `segment`, from the start of its first word to the end of its last.

    `reason` says why it ended: "endpoint:silence", "endpoint:length" or "finish". Never empty.
    """

    segment: int
    text: str
    words: tuple[Word, ...]
    start: float
    end: float
    confidence: float
    reason: Reason

    def to_dict(self) -> dict[str, Any]:
        """JSON-able, with `"type": "final"`."""
        return {
            "type": "final",
            "segment": self.segment,
            "text": self.text,
            "words": [word.to_dict() for word in self.words],
            "start": self.start,
            "end": self.end,
            "confidence": self.confidence,
            "reason": self.reason,
        }


Event = Partial | Final


@dataclass(frozen=True, slots=True)
class Transcript:
    """A whole recording of `duration` seconds; `segments` are its finals, in order."""

    text: str
    words: tuple[Word, ...]
    segments: tuple[Final, ...]
    duration: float

    @classmethod
    def of(cls, finals: list[Final], duration: float) -> Transcript:
        """Finals of one stream, in order -> transcript."""
        words = tuple(word for final in finals for word in final.words)
        return cls(" ".join(final.text for final in finals), words, tuple(finals), duration)

    def to_dict(self) -> dict[str, Any]:
        return {
            "text": self.text,
            "words": [word.to_dict() for word in self.words],
            "segments": [segment.to_dict() for segment in self.segments],
            "duration": self.duration,
        }
