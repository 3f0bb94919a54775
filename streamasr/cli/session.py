"""One session of `listen`: sound -> captions, transcript, files, and a word when something is wrong.

A microphone that goes away and comes back begins a new stream of the recogniser. The transcript goes
on, in seconds of sound: it, the sound that is kept, and the time on the screen agree.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..events import Event, Final, Partial, Transcript, Word
from .captions import DIM, LEVEL, WARNING, Captions, Line
from .keep import SoundFile, TranscriptFile
from .main import say

if TYPE_CHECKING:
    from ..live.microphone import Microphone
    from ..stream import Stream

SILENT_SECONDS = 2.0  # of nothing, or of nothing but zeros, before that is told; chosen
LAG_SECONDS = 1.0  # behind the microphone, before that is told; chosen
REDRAW_SECONDS = 0.1  # the level moves as smoothly as is worth it
REPEAT_SECONDS = 60.0  # as a line of its own; many microphones give zeros in every pause
OVERFLOW_SECONDS = 10.0  # between two remarks about the same
FULL_SCALE = 32768  # of 16 bit
METER, LOWEST_DB = 10, -50.0  # cells, and where the first one begins; speech at a desk peaks at -30 to -6


class Session:
    """`open_stream` takes a rate in Hz; `saved` and `sound` are what is kept on disk."""

    def __init__(
        self,
        open_stream: Callable[[int], Stream],
        captions: Captions,
        saved: TranscriptFile | None = None,
        sound: SoundFile | None = None,
    ) -> None:
        self.failed = False  # could something not be kept?
        self._open_stream = open_stream
        self._captions = captions
        self._saved, self._sound = saved, sound
        self._microphone: Microphone | None = None
        self._stream: Stream | None = None
        self._finals: list[Final] = []
        self._partial: Partial | None = None
        self._unsaved = False
        self._before = (0, 0.0)  # segments and seconds of earlier streams
        self._last_sound = 0.0  # monotonic clock, when some came
        self._away = 0.0  # since when the device is gone, if it is
        self._zeros = 0  # samples, the latest ones in a row
        self._peak = 0  # of the sound since the last drawing, 0 to 32768
        self._told = ""  # kind of the notice that is true now
        self._told_at: dict[str, float] = {}  # where there is no terminal: when it was last told
        self._lost = self._lost_told = self._overflows = 0
        self._next_draw = self._next_overflow = 0.0

    @property
    def connected(self) -> bool:
        """Was there ever a microphone?"""
        return self._microphone is not None

    @property
    def seconds(self) -> float:
        """Of sound that was recognised."""
        return self._before[1] + (self._stream.time if self._stream else 0.0)

    def connect(self, microphone: Microphone) -> None:
        """Sound comes from this one now, which is open."""
        self._stream = self._open_stream(microphone.sample_rate)
        if not self.connected:
            say(f"listening to {microphone.name} ({microphone.sample_rate} Hz); end with Ctrl-C")
        self._microphone = microphone
        self._last_sound = time.monotonic()
        self._zeros = self._lost = self._lost_told = self._overflows = 0

    def hear(self, chunk: NDArray[np.int16]) -> None:
        """The next sound, [n]; n = 0 where there is none yet."""
        assert self._stream and self._microphone
        if len(chunk):
            self._last_sound = time.monotonic()
            if self._away:
                away = self._last_sound - self._away
                self._note(f"{self._microphone.name} is back after {away:.0f} s")
                self._away = 0.0
            loud = np.flatnonzero(chunk)
            self._zeros = len(chunk) - 1 - int(loud[-1]) if len(loud) else self._zeros + len(chunk)
            self._peak = max(self._peak, int(np.abs(chunk.astype(np.int32)).max()))
            self._keep_sound(chunk)
            self._show(self._stream.accept(chunk))
        self._tell_losses(self._microphone)
        self.redraw()
        if self._unsaved:
            self._keep_transcript()

    def disconnect(self) -> None:
        """No more sound comes for now: what was heard is final."""
        if self._stream is None:
            return
        self._show(self._stream.finish())
        self._end_stream()
        self._away = self._away or time.monotonic()

    def abandon(self) -> None:
        """Like `disconnect`, but of the unfinished segment the last guess is taken: there is no time."""
        if self._stream is not None:
            if self._partial and self._partial.words:
                self._finals.append(_as_final(self._partial))
            self._end_stream()

    def close(self) -> None:
        """Writes all that is kept; on a terminal, the whole transcript."""
        if not self.connected:
            return
        if self._saved:
            self._keep_transcript(at_once=True)
        if self._sound:
            try:
                self._sound.close()
            except OSError as error:
                self._cannot("--save-audio", error)
        self._captions.close([final.text for final in self._finals])
        kept = [*([self._saved.path] if self._saved else []), *(self._sound.paths if self._sound else [])]
        words = sum(len(final.words) for final in self._finals)
        told = f"{_clock(self.seconds)}, {words} words" if words else "nothing was heard"
        if not self.failed and kept:
            told += f"; kept in {', '.join(map(str, kept))}"
        say(told)

    def redraw(self) -> None:
        """Level, time, lag, and what is wrong; also while there is no sound."""
        now = time.monotonic()
        if now < self._next_draw:
            return
        self._next_draw = now + REDRAW_SECONDS
        kind, notice = self._notice(now)
        if not self._captions.in_place and kind and kind != self._told:
            if kind == "away" or now - self._told_at.get(kind, -REPEAT_SECONDS) >= REPEAT_SECONDS:
                say(notice)
                self._told_at[kind] = now
        self._told = kind
        self._captions.status(self._status(), notice)
        self._peak = 0

    def _notice(self, now: float) -> tuple[str, str]:
        """(kind, what to tell), both empty where all is well."""
        assert self._microphone
        name, quiet = self._microphone.name, now - self._last_sound
        if self._away:
            return "away", f"{name} was disconnected; waiting for it ({now - self._away:.0f} s)"
        if quiet >= SILENT_SECONDS:
            return "quiet", f"no audio arriving for {quiet:.0f} s from {name}"
        if self._zeros >= SILENT_SECONDS * self._microphone.sample_rate:
            return "zeros", "the microphone is muted or silent: nothing but zeros arrive"
        if self._lag > LAG_SECONDS:
            return "lag", f"this machine is too slow: the captions are {self._lag:.1f} s behind"
        return "", ""

    @property
    def _lag(self) -> float:
        """Seconds captured and not yet recognised."""
        return self._microphone.waiting / self._microphone.sample_rate if self._microphone else 0.0

    def _status(self) -> Line:
        assert self._microphone
        decibels = 20 * math.log10(max(self._peak, 1) / FULL_SCALE)
        lit = min(max(math.ceil(METER * (1 - decibels / LOWEST_DB)), 0), METER)
        on, off = tuple(self._captions.meter)
        return (
            (LEVEL, " " + on * lit),
            (DIM, off * (METER - lit)),
            ("", f"  {_clock(self.seconds + self._lag)}"),
            (DIM, f"  lag {self._lag:.1f} s  Ctrl-C ends  {self._microphone.name}"),
        )

    def _show(self, events: list[Event]) -> None:
        segments, seconds = self._before
        for event in events:
            if isinstance(event, Final):
                self._partial = None
                self._finals.append(
                    replace(
                        event,
                        segment=segments + event.segment,
                        words=_later(event.words, seconds),
                        start=seconds + event.start,
                        end=seconds + event.end,
                    )
                )
            else:
                self._partial = replace(
                    event, segment=segments + event.segment, words=_later(event.words, seconds)
                )
            self._captions.show(event)
            self._unsaved = self._saved is not None

    def _end_stream(self) -> None:
        self._before = (len(self._finals), self.seconds)
        self._stream = self._partial = None

    def _tell_losses(self, microphone: Microphone) -> None:
        """Once for each hole, when it has ended."""
        lost, overflows = microphone.lost, microphone.overflows
        if lost > self._lost_told and lost == self._lost:
            seconds = (lost - self._lost_told) / microphone.sample_rate
            self._note(f"this machine is too slow: {seconds:.1f} s were not heard")
            self._lost_told = lost
        self._lost = lost
        now = time.monotonic()
        if overflows > self._overflows and now >= self._next_overflow:  # they come in crowds
            self._note(f"the sound system lost sound ({overflows - self._overflows} overflows)")
            self._overflows, self._next_overflow = overflows, now + OVERFLOW_SECONDS

    def _note(self, text: str) -> None:
        """A remark that stays where it was made; not part of the transcript."""
        if self._captions.in_place:
            self._captions.line(f"[{_clock(self.seconds)} {text}]", WARNING)
        else:
            say(text)

    def _keep_sound(self, chunk: NDArray[np.int16]) -> None:
        assert self._microphone
        if self._sound:
            try:
                self._sound.write(chunk, self._microphone.sample_rate)
            except OSError as error:
                self._cannot("--save-audio", error)
                self._sound = None

    def _keep_transcript(self, at_once: bool = False) -> None:
        if self._saved is None or not (at_once or self._saved.due):
            return
        finals = list(self._finals)
        if self._partial and self._partial.words:
            finals.append(_as_final(self._partial))
        try:
            self._saved.write(Transcript.of(finals, self.seconds))
            self._unsaved = False
        except OSError as error:
            self._cannot("--save", error)

    def _cannot(self, option: str, error: OSError) -> None:
        if not self.failed:
            self._note(f"{option}: cannot be written: {error.strerror or error}")
        self.failed = True


def _as_final(partial: Partial) -> Final:
    """What there is of a segment, as if it had ended."""
    words = partial.words
    confidence = math.prod(word.confidence for word in words) ** (1 / len(words))
    return Final(partial.segment, partial.text, words, words[0].start, words[-1].end, confidence, "finish")


def _later(words: tuple[Word, ...], seconds: float) -> tuple[Word, ...]:
    return tuple(replace(word, start=word.start + seconds, end=word.end + seconds) for word in words)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
