"""One speaker's sound -> events: the file that joins the stages.

    samples -> Resampler -> LogMel -> Encoder -> Search -> Segmenter -> events

Whatever the chunks, sound goes through the same three methods: `accept`, `_encode`, `_flush`.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import astuple, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import audio, snapshot
from . import state as states
from .encoder import Encoder, EncoderState
from .errors import ConfigError, StreamClosedError
from .events import Event, Partial, Reason
from .features import LogMel, LogMelState
from .modelfile import Model
from .resample import Resampler, ResamplerState
from .search import Search
from .search.beam import BeamSearch
from .search.beam_state import BeamState
from .search.greedy import GreedyState
from .search.hotwords import Phrase
from .segmenter import EndpointRule, Segmenter, SegmenterState
from .vocabulary import BLANK

# A chunk is processed in pieces of this many seconds, so that an hour handed over at once needs no
# more memory than this.
_BLOCK_SECONDS = 10

# What becomes of the encoder's memory at an endpoint (docs/design.md, Endpoints).
AT_ENDPOINT = ("carry", "reset", "overlap")
# Of sound before the endpoint that a fresh memory hears once more with "overlap".
_OVERLAP_SECONDS = 2.0

Samples = NDArray[np.float32]


@dataclass(frozen=True)
class Settings:
    """What a stream was opened with; travels in its snapshots. `search` is the method's name."""

    sample_rate: int
    search: str
    rules: tuple[EndpointRule, ...]
    language_model: bool = True
    hotwords: tuple[tuple[str, float], ...] = ()
    at_endpoint: str = AT_ENDPOINT[0]
    phrases: tuple[str, ...] = ()  # if any, these only
    rescore: bool = False

    def to_dict(self) -> dict[str, Any]:
        return {
            "sample_rate": self.sample_rate,
            "search": self.search,
            "rules": [list(astuple(rule)) for rule in self.rules],
            "language_model": self.language_model,
            "hotwords": [list(pair) for pair in self.hotwords],
            "at_endpoint": self.at_endpoint,
            "phrases": list(self.phrases),
            "rescore": self.rescore,
        }


@dataclass(slots=True)
class _State:
    heard: int  # samples at the stream's own rate
    samples: int  # samples at 16 kHz
    resampler: ResamplerState
    features: LogMelState
    recent: Samples  # [T, F]: the last frames, as far as "overlap" needs them
    encoder: EncoderState
    search: GreedyState | BeamState
    segmenter: SegmenterState


class Stream:
    """One speaker's sound, chunk by chunk. Not thread-safe; opened by `Recognizer.stream`."""

    def __init__(
        self, model: Model, features: LogMel, encoder: Encoder, search: Search[Any], settings: Settings
    ) -> None:
        self._fingerprint = model.fingerprint
        self._settings = settings
        self._resampler = Resampler(settings.sample_rate)
        self._features, self._encoder, self._search = features, encoder, search
        step_samples = encoder.frames_per_step * features.config.hop_samples
        measured = model.description.calibration
        self._segmenter = Segmenter(
            settings.rules,
            step_samples,
            features.config.sample_rate,
            (measured.start_seconds, measured.end_seconds),
        )
        # Whole steps, and enough of them to fill the look-ahead.
        overlap = max(
            round(_OVERLAP_SECONDS * features.config.sample_rate / step_samples), encoder.look_ahead + 1
        )
        self._recent_frames = overlap * encoder.frames_per_step if settings.at_endpoint == "overlap" else 0
        self._silent_tokens = (BLANK, search.vocabulary.space)
        self._state = self._fresh()
        self._finished = False

    @property
    def time(self) -> float:
        """Seconds heard."""
        return self._state.heard / self._settings.sample_rate

    def accept(self, samples: ArrayLike) -> list[Event]:
        """Samples [N], any N, int16 or float in [-1, 1] -> finals, then a partial if the text changed.

        Raises AudioError for anything else (the stream stays as it was), StreamClosedError after `finish`.
        """
        return self._accept(self._checked(samples))

    def finish(self) -> list[Event]:
        """Tells all that was heard: the last final, if there is text. Raises StreamClosedError if done."""
        self._require_open()
        self._finished = True
        state = self._state
        self._flush(state)
        return self._end(state, "finish")

    def preview(self) -> Partial:
        """The best guess if the speaker stopped now. Changes nothing. Raises StreamClosedError."""
        self._require_open()
        stable = self._search.best(self._state.search).stable
        state = states.copy(self._state)
        self._flush(state)
        return self._segmenter.preview(
            state.segmenter, self._search.commit(state.search), stable, state.samples, self.time
        )

    def set_hotwords(self, hotwords: Iterable[Phrase]) -> None:
        """Phrases, or (phrase, boost), to listen for from now on, in place of those before.

        Raises ConfigError naming the phrase that cannot be heard, or when the search is greedy; the
        stream stays as it was. Raises StreamClosedError.
        """
        self._require_open()
        if not isinstance(self._search, BeamSearch):
            raise ConfigError('search "greedy" cannot use hotwords; open the stream with search="beam"')
        search = self._search.with_phrases(hotwords)
        self._search.change_phrases(self._state.search, search)  # type: ignore[arg-type]
        self._search = search
        self._settings = replace(self._settings, hotwords=search.hotwords.phrases)

    def nbest(self, count: int) -> list[tuple[str, float]]:
        """The `count` best texts of the segment if the speaker stopped now, best first, each with its score.

        Scores are natural logarithms and compare within one call only. Raises ConfigError when the
        search is greedy, StreamClosedError.
        """
        self._require_open()
        if not isinstance(self._search, BeamSearch):
            raise ConfigError('search "greedy" has one result; open the stream with search="beam"')
        if isinstance(count, bool) or not isinstance(count, int) or count < 1:
            raise ConfigError(f"nbest: a whole number of texts, 1 or more, not {count!r}")
        state = states.copy(self._state)
        self._flush(state)
        found = self._search.nbest(state.search, count)  # type: ignore[arg-type]
        return [(" ".join(word.text for word in told.words), score) for score, told in found]

    def snapshot(self) -> bytes:
        """The stream as bytes, for `Recognizer.resume` of the same model. Raises StreamClosedError."""
        self._require_open()
        return snapshot.write(self._fingerprint, self._settings.to_dict(), states.pack(self._state))

    def copy(self) -> Stream:
        """A second stream that goes on from here on its own."""
        twin = copy.copy(self)  # the stages are shared
        twin._state = states.copy(self._state)
        return twin

    def reset(self) -> None:
        """Forgets everything heard; equals a fresh stream, also after `finish`."""
        self._state = self._fresh()
        self._finished = False

    def _fresh(self) -> _State:
        return _State(
            0,
            0,
            self._resampler.start(),
            self._features.start(),
            np.zeros((0, self._features.config.mel_bands), np.float32),
            self._encoder.start(),
            self._search.start(),
            self._segmenter.start(),
        )

    def _restore(self, packed: dict[str, Any]) -> None:
        """Goes on from a packed state (`snapshot.read`). Raises SnapshotError when it is not a stream's."""
        state = states.unpack(self._state, packed)
        if isinstance(self._search, BeamSearch):
            self._search.check(state.search)  # type: ignore[arg-type]
        self._state = state

    def _checked(self, samples: ArrayLike) -> list[NDArray[Any]]:
        """Samples -> pieces of bounded size, each found usable, so that a bad chunk changes nothing."""
        self._require_open()
        if not isinstance(samples, np.ndarray) or samples.ndim != 1:
            return [audio.as_samples(samples)]
        size = self._settings.sample_rate * _BLOCK_SECONDS
        starts = range(0, max(len(samples), 1), size)
        pieces = [samples[first : first + size] for first in starts]
        for first, piece in zip(starts, pieces, strict=True):
            audio.as_samples(piece, first=first)
        return pieces

    def _accept(self, pieces: list[NDArray[Any]]) -> list[Event]:
        """Pieces from `_checked` -> events."""
        events: list[Event] = []
        changed = False
        for piece in pieces:
            frames = self._features.advance(self._state.features, self._hear(piece))
            for rows, levels in self._steps(frames):
                changed = self._decide(rows, levels, events, changed)
        return events + self._partial(changed)

    def _hear(self, piece: NDArray[Any]) -> Samples:
        """Samples [N] at the stream's own rate -> samples [N'] at 16 kHz."""
        state = self._state
        state.heard += len(piece)
        samples = self._resampler.advance(state.resampler, audio.as_samples(piece))
        state.samples += len(samples)
        return samples

    def _decide(self, rows: Samples, levels: Sequence[float], events: list[Event], changed: bool) -> bool:
        """Steps, their log_probs [S, V] and levels in dB, into the search; finals are appended to `events`.

        Returns whether the best hypothesis is another than the last event told, as `changed` said so far.
        The search hears the steps together, as far as nothing is decided between them.
        """
        state, segmenter, search = self._state, self._segmenter, self._search
        searched = step = 0

        def between_words() -> bool:
            nonlocal searched, changed
            if searched <= step:
                changed |= search.advance(state.search, rows[searched : step + 1])
                searched = step + 1
            return search.between_words(state.search)

        speech = [token not in self._silent_tokens for token in rows.argmax(1).tolist()]
        for step in range(len(rows)):
            reason = segmenter.advance(state.segmenter, speech[step], levels[step], between_words)
            if reason:
                between_words()
                events += self._end(state, reason)
                self._restart(state)
                changed = False
        if searched < len(rows):
            changed |= search.advance(state.search, rows[searched:])
        return changed

    def _partial(self, changed: bool) -> list[Event]:
        """What is to be shown of the segment in progress, if that is news."""
        if not changed:
            return []
        state = self._state
        if not self._segmenter.is_news(state.segmenter, *self._search.said(state.search)):
            return []  # mostly
        shown = self._search.shown(state.search)
        partial = self._segmenter.partial(state.segmenter, shown, state.samples, self.time)
        return [partial] if partial else []

    def _end(self, state: _State, reason: Reason) -> list[Event]:
        """Ends the segment: its final; without words, a partial that takes back what was shown, if anything.

        A sentence goes on over the end of a long segment.
        """
        shown, segment = state.segmenter.text, state.segmenter.segment
        hypothesis = self._search.commit(state.search, reason != "endpoint:length")
        final = self._segmenter.final(state.segmenter, hypothesis, state.samples, reason)
        if final:
            return [final]
        return [Partial(segment, "", "", (), self.time)] if shown else []

    def _steps(self, frames: Samples) -> Iterator[tuple[Samples, list[float]]]:
        """Frames [T, F] -> log_probs [S, V] and levels in dB of steps that may be decided together.

        Where an endpoint changes the encoder's memory no step is computed before the one before it is
        decided; else all are at once, which is faster.
        """
        state, size = self._state, self._encoder.frames_per_step
        if self._batchable:
            yield from _encode_batch([self], [frames])
            return
        begin = 0
        while begin < len(frames):
            end = begin + size - len(state.encoder.waiting)
            piece = frames[begin:end]
            if self._recent_frames:
                state.recent = np.concatenate([state.recent, piece])[-self._recent_frames :]
            yield from _encode_batch([self], [piece])
            begin = end

    @property
    def _batchable(self) -> bool:
        """Whether the encoder may hear a whole chunk before the search decides about any of it."""
        return self._settings.at_endpoint == "carry"

    def _restart(self, state: _State) -> None:
        """The encoder's memory after an endpoint. The context of the convolutions goes on in any case."""
        encoder = state.encoder
        if self._settings.at_endpoint == "reset":
            encoder.h[:], encoder.c[:] = 0, 0
        elif self._settings.at_endpoint == "overlap":
            state.encoder = self._encoder.start()
            self._encoder.advance(state.encoder, state.recent)

    def _encode(self, state: _State, samples: Samples) -> Samples:
        """Samples [N] at 16 kHz -> log_probs [S, V]."""
        state.samples += len(samples)
        return self._encoder.advance(state.encoder, self._features.advance(state.features, samples))

    def _flush(self, state: _State) -> None:
        """Brings all that was heard into the search (docs/design.md, Flush).

        No endpoint is decided in the zeros that this takes: nobody said them.
        """
        log_probs = [self._encode(state, self._resampler.finish(state.resampler))]
        frames = self._encoder.config.frames_to_finish(self._features.config.frames_covering(state.samples))
        zeros = np.zeros(self._features.config.samples_of(frames) - state.samples, np.float32)
        log_probs.append(self._encoder.advance(state.encoder, self._features.advance(state.features, zeros)))
        log_probs.append(self._encoder.finish(state.encoder))
        for block in log_probs:
            self._search.advance(state.search, block)

    def _require_open(self) -> None:
        if self._finished:
            raise StreamClosedError("this stream is finished; call reset() or open a new one")


def accept_batch(streams: Sequence[Stream], chunks: Sequence[ArrayLike]) -> list[list[Event]]:
    """`Recognizer.accept_batch`: the encoders advance in one product, each with the bits it has alone."""
    pieces = [stream._checked(chunk) for stream, chunk in zip(streams, chunks, strict=True)]
    events: list[list[Event]] = [[] for _ in streams]
    changed = [False] * len(streams)
    together: dict[int, list[int]] = {}  # numbers of the streams that share an encoder
    for number, stream in enumerate(streams):
        if stream._batchable:
            together.setdefault(id(stream._encoder), []).append(number)
        else:
            events[number] = stream._accept(pieces[number])
    for numbers in together.values():
        for round_ in range(max(len(pieces[n]) for n in numbers)):
            heard = [n for n in numbers if round_ < len(pieces[n])]
            every = [streams[n] for n in heard]
            samples = [stream._hear(pieces[n][round_]) for n, stream in zip(heard, every, strict=True)]
            frames = every[0]._features.advance_batch([s._state.features for s in every], samples)
            for n, (rows, levels) in zip(heard, _encode_batch(every, frames), strict=True):
                changed[n] = streams[n]._decide(rows, levels, events[n], changed[n])
        for n in numbers:
            events[n] += streams[n]._partial(changed[n])
    return events


def _encode_batch(streams: Sequence[Stream], frames: Sequence[Samples]) -> list[tuple[Samples, list[float]]]:
    """Frames [T, F] of streams with the same encoder -> log_probs [S, V] and levels in dB [S] of each."""
    encoder, states_ = streams[0]._encoder, [stream._state.encoder for stream in streams]
    size = encoder.frames_per_step
    parts: list[Samples] = []  # the frames of whole steps, those that wait in the encoder first
    counts = []
    for state, new in zip(states_, frames, strict=True):
        counts.append((len(state.waiting) + len(new)) // size)
        if counts[-1]:
            parts += (state.waiting, new[: counts[-1] * size - len(state.waiting)])
    levels = streams[0]._features.levels(np.concatenate(parts), size) if parts else []
    found, end = [], 0
    for rows, count in zip(encoder.advance_batch(states_, frames), counts, strict=True):
        end += count
        # With look-ahead the level is that of the newest step: a little early, as the tokens are late.
        found.append((rows, levels[end - len(rows) : end]))
    return found
