"""Hypotheses + endpoint rules -> Partial and Final events.

Endpoints are decided step by step, so they do not depend on chunks, from two signs: a step is silent if
its likeliest token is (blank or space), and quiet if it is not much louder than the background. What is
silent but loud is somebody the model does not understand, or who hesitates: it is no pause, though not
for ever, as it may be music. Steps are integers here; seconds are made on the way into an event.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from .errors import ConfigError
from .events import Final, Partial, Reason, Word
from .search import Hypothesis, TimedWord

# A length rule waits for the end of the word in progress, but not longer than this: chosen, above
# the length of any word that is not spelt out.
_WORD_SECONDS = 2.0

# Levels in dB. The background is the level of the quietest steps: it falls at once and rises slowly, so
# that it gets over a dip or a new noise in a second or two, but not up to the speech between two words.
# Measured on read speech and on learners (docs/design.md, Endpoints), as is what is loud.
_RISE = 20.0  # a second
_LOUD = 10.0  # above the background
# A quiet room, about 60 dB below full scale: after digital silence a room is not loud.
_LEAST_BACKGROUND = -15.0
_UNKNOWN = 1000.0  # background before the first step: falls to its level
# Silent steps, loud or not, that are a pause in any case: so many times a rule's.
_MOST_SILENCE = 2
LONGEST_SECONDS = 86_400.0  # of a rule: a day


@dataclass(frozen=True, slots=True)
class EndpointRule:
    """A segment ends when all that the rule asks for holds.

    `silence_seconds` of silent and quiet steps, or twice that of silent ones, at its end;
    `length_seconds` since its first speech, waiting for the end of a word; and some speech in it. Without
    `needs_speech` the length is counted from the end of the segment before, and a segment may end
    without speech: unseen, as no final is empty.
    """

    needs_speech: bool = True
    silence_seconds: float = 0.0
    length_seconds: float = 0.0

    def __post_init__(self) -> None:
        if not isinstance(self.needs_speech, bool):
            raise ConfigError(f"endpoint rule: needs_speech must be true or false, not {self.needs_speech!r}")
        for name, value in (
            ("silence_seconds", self.silence_seconds),
            ("length_seconds", self.length_seconds),
        ):
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if not number or not 0 <= value <= LONGEST_SECONDS:
                raise ConfigError(
                    f"endpoint rule: {name} must be 0 to {LONGEST_SECONDS:g}, not {value!r:.80}"
                )
        if self.silence_seconds == 0 and self.length_seconds == 0:
            raise ConfigError("endpoint rule: silence_seconds or length_seconds must be above 0")


# Silence: pauses within sentences read aloud seldom reach a second. Length: what fits on a screen.
DEFAULT_RULES = (EndpointRule(silence_seconds=1.0), EndpointRule(length_seconds=20.0))


@dataclass(slots=True)
class SegmenterState:
    segment: int  # number of the segment in progress
    step: int  # steps heard, since the start of the stream
    begin: int  # first step of the segment
    first_speech: int  # -1: none in this segment
    last_speech: int
    loud: int  # loud steps since the last speech, or since the segment began
    background: float  # level in dB
    text: str  # of the last partial; with the stable part's length, what its reader has seen
    stable: int
    end: int  # samples (16 kHz): where the last final's words end


class Segmenter:
    """Rules over steps of `step_samples` samples at `sample_rate` Hz.

    `offsets` (seconds) are added to the starts and ends of words: how far their tokens stand from them.
    """

    def __init__(
        self,
        rules: Sequence[EndpointRule],
        step_samples: int,
        sample_rate: int,
        offsets: tuple[float, float] = (0.0, 0.0),
    ) -> None:
        self.rules = tuple(rules)
        self._step_samples = step_samples
        self._sample_rate = sample_rate
        self._offsets = tuple(round(seconds * sample_rate) for seconds in offsets)

    def start(self) -> SegmenterState:
        return SegmenterState(0, 0, 0, -1, -1, 0, _UNKNOWN, "", 0, 0)

    def advance(
        self, state: SegmenterState, speech: bool, level: float, between_words: Callable[[], bool]
    ) -> Reason | None:
        """One step -> why to end here, if so.

        Is its likeliest token speech, how loud is it in dB (`LogMel.level`), would an end now cut no word?
        That last is asked only where it decides.
        """
        risen = state.background + _RISE * self._seconds(1)
        state.background = max(_LEAST_BACKGROUND, min(level, risen))
        if speech:
            state.last_speech, state.loud = state.step, 0
            if state.first_speech < 0:
                state.first_speech = state.step
        else:
            state.loud += level > state.background + _LOUD
        state.step += 1
        for rule in self.rules:
            if self._holds(rule, state, between_words):
                return "endpoint:silence" if rule.silence_seconds else "endpoint:length"
        return None

    def is_news(self, state: SegmenterState, texts: Sequence[str], stable: int) -> bool:
        """Whether these words, the first of them stable, are not what the reader has seen."""
        return (" ".join(texts), len(" ".join(texts[:stable]))) != (state.text, state.stable)

    def partial(
        self, state: SegmenterState, hypothesis: Hypothesis, samples: int, time: float
    ) -> Partial | None:
        """What to show after `samples` samples (16 kHz), `time` seconds; None when it has been shown."""
        stable, volatile = _texts(hypothesis, hypothesis.stable)
        shown = f"{stable} {volatile}".strip(), len(stable)
        if shown == (state.text, state.stable):
            return None
        state.text, state.stable = shown
        return self.preview(state, hypothesis, hypothesis.stable, samples, time)

    def preview(
        self, state: SegmenterState, hypothesis: Hypothesis, stable: int, samples: int, time: float
    ) -> Partial:
        """The hypothesis as a partial whose first `stable` words are stable. Changes nothing."""
        words = self._words(state, hypothesis.words, samples)
        return Partial(state.segment, *_texts(hypothesis, stable), words, time)

    def final(
        self, state: SegmenterState, hypothesis: Hypothesis, samples: int, reason: Reason
    ) -> Final | None:
        """Ends the segment: its Final, None if it has no words. `samples` (16 kHz) is where sound ends."""
        if reason != "finish":  # the end of the step, not of a chunk that may go on
            samples = min(samples, state.step * self._step_samples)
        words = self._words(state, hypothesis.words, samples)
        number = state.segment
        state.begin, state.first_speech, state.last_speech, state.loud = state.step, -1, -1, 0
        state.text, state.stable = "", 0
        if not words:
            return None
        state.segment += 1
        state.end = round(words[-1].end * self._sample_rate)
        # Geometric mean over the words; a word of confidence 0 makes it 0.
        logs = [math.log(max(word.confidence, 1e-300)) for word in words]
        return Final(
            number,
            " ".join(word.text for word in words),
            words,
            words[0].start,
            words[-1].end,
            min(math.exp(math.fsum(logs) / len(logs)), 1.0),
            reason,
        )

    def _holds(self, rule: EndpointRule, state: SegmenterState, between_words: Callable[[], bool]) -> bool:
        if rule.needs_speech and state.first_speech < 0:
            return False
        silent = state.step - (state.last_speech + 1 if state.last_speech >= 0 else state.begin)
        length = state.step - (state.first_speech if rule.needs_speech else state.begin)
        pause = max(silent - state.loud, silent / _MOST_SILENCE)
        if self._seconds(pause) < rule.silence_seconds or self._seconds(length) < rule.length_seconds:
            return False
        if rule.silence_seconds or self._seconds(length) >= rule.length_seconds + _WORD_SECONDS:
            return True
        return between_words()

    def _words(self, state: SegmenterState, words: tuple[TimedWord, ...], samples: int) -> tuple[Word, ...]:
        """Steps -> seconds, with the offsets: in order, and none beyond the end of the sound."""
        (early, late), size, rate = self._offsets, self._step_samples, self._sample_rate
        told, before = [], state.end
        starts = [word.first * size + early for word in words]
        for i, word in enumerate(words):
            end = (word.last + 1) * size + late
            if i + 1 < len(words) and end > starts[i + 1]:  # where the offsets make them overlap
                end = (end + starts[i + 1]) // 2
            start = min(max(starts[i], before), samples)
            before = min(max(end, start), samples)
            told.append(Word(word.text, start / rate, before / rate, word.confidence))
        return tuple(told)

    def _seconds(self, steps: float) -> float:
        return steps * self._step_samples / self._sample_rate


def _texts(hypothesis: Hypothesis, stable: int) -> tuple[str, str]:
    """Text of the first `stable` words, and of the others."""
    texts = [word.text for word in hypothesis.words]
    return " ".join(texts[:stable]), " ".join(texts[stable:])
