"""Word times and stability: what a live stream says when, beside forced alignment.

    python benchmarks/times.py MODEL MANIFEST... [--limit N] [--search greedy|beam] [--write]

Each recording is heard in chunks of 100 ms. References for where a word starts and ends:

    pocketsphinx   its aligner and English model, nothing of ours; recordings with a word that its
                   dictionary lacks are left out
    torchaudio     forced_align of the model's own letters to the reference text: it tells what the
                   search adds, and not how late the model is; left out where torchaudio does not load

Words that were heard rightly are compared. "before" is without offsets; "after" has the medians of the
errors taken away, those of one half of the utterances from the other half. --write puts what pocketsphinx
says into model.json. Stability: from the end of a word (pocketsphinx) to the moment it is stable, to the
moment when it is first shown, and to that from which on it is shown; "taken back" is the share of words shown
as volatile that were changed.

    python benchmarks/times.py MODEL MANIFEST... --shown     stability, with other rules of what is shown
"""

from __future__ import annotations

import os

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"):
    os.environ[_name] = "1"

import argparse  # noqa: E402
import re  # noqa: E402
import sys  # noqa: E402
from collections.abc import Callable, Sequence  # noqa: E402
from dataclasses import dataclass, field, replace  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402
from unittest import mock  # noqa: E402

import numpy as np  # noqa: E402
from numpy.typing import NDArray  # noqa: E402

from streamasr import audio, modelfile  # noqa: E402
from streamasr.data import manifest  # noqa: E402
from streamasr.data.text import normalise  # noqa: E402
from streamasr.errors import StreamASRError  # noqa: E402
from streamasr.evaluate import report, wer  # noqa: E402
from streamasr.evaluate.runner import CHUNK_SECONDS  # noqa: E402
from streamasr.events import Event, Final, Partial, Word  # noqa: E402
from streamasr.recognizer import Recognizer  # noqa: E402
from streamasr.resample import Resampler  # noqa: E402
from streamasr.search import Hypothesis, beam  # noqa: E402
from streamasr.stream import Settings, Stream  # noqa: E402

Span = tuple[float, float]  # seconds
_STABILITY = [
    "words",
    "stable p50",
    "p90",
    "first p50",
    "p90",
    "for good p50",
    "p90",
    "taken back %",
    "stable changed",
]


def pocketsphinx(decoder: Any, samples: NDArray[np.float32], text: str) -> list[Span] | None:
    """Samples [N] at 16 kHz, normalised text -> start and end of each word; None if it cannot be aligned."""
    try:
        decoder.set_align_text(text)
        decoder.start_utt()
        pcm = np.clip(np.round(samples * 32768), -32768, 32767).astype(np.int16)
        decoder.process_raw(pcm.tobytes(), full_utt=True)
        decoder.end_utt()
        found = [s for s in decoder.seg() or () if not s.word.startswith(("<", "["))]
    except RuntimeError:
        return None
    if [re.sub(r"\(\d+\)$", "", s.word) for s in found] != text.split():
        return None
    return [(s.start_frame / 100, (s.end_frame + 1) / 100) for s in found]


class _Emissions:
    """In place of a search: keeps the log-probabilities."""

    def __init__(self, vocabulary: Any) -> None:
        self.vocabulary, self.rows = vocabulary, []  # type: ignore[var-annotated]

    def start(self) -> Any:
        return None

    def advance(self, _: object, log_probs: NDArray[np.float32]) -> bool:
        self.rows.append(log_probs.copy())
        return False

    def between_words(self, _: object) -> bool:
        return True

    def commit(self, *_: object) -> Any:
        from streamasr.search import Hypothesis

        return Hypothesis((), 0)


def own(recognizer: Recognizer, samples: NDArray[np.float32], text: str) -> list[Span] | None:
    """The same by torchaudio, of the model's own characters."""
    import torch

    try:
        from torchaudio.functional import forced_align
    except (ImportError, OSError):  # its wheels want CUDA's libraries
        return None
    vocabulary = recognizer.model.description.vocabulary
    search = _Emissions(vocabulary)
    settings = Settings(16_000, "greedy", ())
    stream = Stream(recognizer.model, recognizer._features, recognizer._encoder, search, settings)
    stream.accept(samples)
    stream.finish()
    rows = np.concatenate(search.rows)
    tokens = vocabulary.encode(text)
    if not tokens or len(rows) < 2 * len(tokens):
        return None
    path, _ = forced_align(torch.from_numpy(rows)[None], torch.tensor([tokens], dtype=torch.int32))
    places: list[list[int]] = []  # steps of each token
    before = 0
    for step, token in enumerate(path[0].tolist()):
        if token and token != before:
            places.append([])
        if token:
            places[-1].append(step)
        before = token
    spans, seconds, number = [], recognizer.info["step_seconds"], 0
    for word in text.split():
        last = number + len(word) - 1
        spans.append((places[number][0] * seconds, (places[last][-1] + 1) * seconds))
        number = last + 2  # the space
    return spans


@dataclass
class _Corpus:
    """What was measured of one corpus; times in seconds."""

    # Utterance, errors of start and end: beside pocketsphinx, beside torchaudio.
    errors: list[list[tuple[int, float, float]]] = field(default_factory=lambda: [[], []])
    stable: list[float] = field(default_factory=list)
    first: list[float] = field(default_factory=list)  # shown at all, at its place in the segment
    shown: list[float] = field(default_factory=list)  # shown for good
    volatile: int = 0  # words shown that were not stable
    taken_back: int = 0  # of them
    broken: int = 0  # texts that changed a stable word: there must be none


Rule = Callable[[Any, Any], Hypothesis]  # search and its state -> what is to be shown


class _Watched:
    """A search that notes what each rule would show."""

    def __init__(self, search: Any, rules: Sequence[Rule]) -> None:
        self.search, self.rules = search, rules
        self.noted: list[Hypothesis] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.search, name)

    def shown(self, state: Any) -> Hypothesis:
        self.noted = [rule(self.search, state) for rule in self.rules]
        shown: Hypothesis = self.search.shown(state)
        return shown


def listen(
    stream: Stream, samples: NDArray[np.float32], rate: int, rules: Sequence[Rule]
) -> list[list[tuple[float, Event]]]:
    """Events in chunks, each with the time at which it came, by each rule."""
    size = round(CHUNK_SECONDS * rate)
    watched = _Watched(stream._search, rules)
    stream._search = watched  # type: ignore[assignment]
    heard: list[list[tuple[float, Event]]] = [[] for _ in rules]
    for first in range(0, len(samples) + size, size):
        watched.noted = []
        found = stream.accept(samples[first : first + size]) if first < len(samples) else stream.finish()
        # A partial without words takes back what was shown.
        kept = [event for event in found if isinstance(event, Final) or not event.words]
        for number, events in enumerate(heard):
            events += [(stream.time, event) for event in kept]
            if watched.noted:
                shown = watched.noted[number]
                texts = [word.text for word in shown.words]
                parts = " ".join(texts[: shown.stable]), " ".join(texts[shown.stable :])
                events.append((stream.time, Partial(0, *parts, (), stream.time)))
        if first >= len(samples):
            break
    return heard


def follow(events: Sequence[tuple[float, Event]], corpus: _Corpus) -> list[tuple[float, float, float]]:
    """Events -> for each word of the finals: when it was stable, first shown, and shown for good. Counts
    changes."""
    times: list[tuple[float, float, float]] = []
    shown: list[tuple[str, float]] = []  # word and since when
    first: dict[tuple[int, str], float] = {}  # place and word: when
    stable: list[float] = []
    for time, event in events:
        words = event.text.split()
        both = zip(shown, words, strict=False)
        kept = next((i for i, (a, b) in enumerate(both) if a[0] != b), min(len(shown), len(words)))
        corpus.broken += kept < len(stable)
        corpus.taken_back += len(shown) - kept
        shown = shown[:kept] + [(word, time) for word in words[kept:]]
        for place_and_word in enumerate(words):
            first.setdefault(place_and_word, time)
        sure = len(event.stable.split()) if isinstance(event, Partial) else len(words)
        corpus.volatile += max(len(words) - max(kept, sure), 0)
        stable += [time] * (sure - len(stable))
        if isinstance(event, Final):
            times += [
                (since_stable, first[place, word], since)
                for place, (since_stable, (word, since)) in enumerate(zip(stable, shown, strict=True))
            ]
            shown, stable, first = [], [], {}
    return times


def measure(
    recognizer: Recognizer,
    search: str | None,
    utterances: Sequence[manifest.Utterance],
    rules: Sequence[Rule] = (lambda search, state: search.shown(state),),
) -> list[_Corpus]:
    """What was measured by each rule of what is shown; errors of times stand in the first."""
    from pocketsphinx import Decoder

    corpora = [_Corpus() for _ in rules]
    for number, utterance in enumerate(utterances):
        samples, rate = audio.read(utterance.audio)
        heard = listen(recognizer.stream(rate, search=search), samples, rate, rules)
        times = [follow(events, corpus) for events, corpus in zip(heard, corpora, strict=True)]
        words: list[Word] = [
            word for _, event in heard[0] if isinstance(event, Final) for word in event.words
        ]
        text = normalise(utterance.text)
        scored = wer.score({"": text}, {"": " ".join(word.text for word in words)}).utterances[0]
        if sum(b is not None for _, b in scored.alignment) != len(words) or not text:
            continue
        resampler = Resampler(rate)
        state = resampler.start()
        sound = np.concatenate([resampler.advance(state, samples), resampler.finish(state)])
        # Its cepstral mean goes on from recording to recording, so each has a decoder of its own.
        references = (
            pocketsphinx(Decoder(loglevel="FATAL", lm=None), sound, text),
            own(recognizer, sound, text),
        )
        said = told = 0
        for a, b in scored.alignment:
            if a == b:
                for errors, spans in zip(corpora[0].errors, references, strict=True):
                    if spans:
                        start, end = spans[said]
                        errors.append((number, words[told].start - start, words[told].end - end))
                if references[0]:
                    end = references[0][said][1]
                    for corpus, found in zip(corpora, times, strict=True):
                        corpus.stable.append(found[told][0] - end)
                        corpus.first.append(found[told][1] - end)
                        corpus.shown.append(found[told][2] - end)
            said, told = said + (a is not None), told + (b is not None)
    return corpora


def offsets(errors: Sequence[tuple[int, float, float]]) -> NDArray[np.float64]:
    """Errors -> what to add to starts and ends, seconds [2]."""
    return -np.median(np.array(errors)[:, 1:], axis=0) if errors else np.zeros(2)


def row(values: NDArray[np.float64]) -> list[str]:
    """Errors [words, 2] -> median and 90th percentile of their sizes in ms, of starts and of ends."""
    if not len(values):
        return ["-"] * 4
    return [f"{1000 * np.quantile(np.abs(values[:, k]), q):.0f}" for k in (0, 1) for q in (0.5, 0.9)]


def stability(name: str, corpus: _Corpus) -> list[str]:
    """Row of the table."""
    delays = [
        f"{1000 * np.quantile(each, q):.0f}" if each else "-"
        for each in (corpus.stable, corpus.first, corpus.shown)
        for q in (0.5, 0.9)
    ]
    share = f"{100 * corpus.taken_back / max(corpus.volatile, 1):.1f}"
    return [name, str(len(corpus.stable)), *delays, share, str(corpus.broken)]


def rules_of_what_is_shown() -> dict[str, Rule]:
    """The whole best hypothesis, and other settings of `BeamSearch.shown`."""

    def rule(share: float, patience: int) -> Rule:
        def shown(search: Any, state: Any) -> Hypothesis:
            with mock.patch.multiple(beam, _MAJORITY=share, _PATIENCE=patience):
                return beam.BeamSearch.shown(search, state)

        return shown

    shares = {f"share {share:g}": rule(share, beam._PATIENCE) for share in (0.0, 0.3, 0.5, 0.6, 0.7, 0.9)}
    return {"all": beam.BeamSearch.best, **shares, "share 0.5, no patience": rule(0.5, 10**6)}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", metavar="MODEL")
    parser.add_argument("manifests", nargs="+", type=Path, metavar="MANIFEST")
    parser.add_argument("--limit", type=int, metavar="N", help="a random sample of N of each manifest")
    parser.add_argument("--search", choices=("greedy", "beam"), help="default: the model's")
    parser.add_argument("--shown", action="store_true", help="compare rules of what is shown")
    parser.add_argument("--write", action="store_true", help="the offsets into the model's model.json")
    options = parser.parse_args()
    folder = modelfile.find(options.model)
    model = modelfile.read(folder)
    bare = replace(model.description.calibration, start_seconds=0.0, end_seconds=0.0)
    recognizer = Recognizer(replace(model, description=replace(model.description, calibration=bare)))
    heard = {path.stem: manifest.sample(manifest.read(path), options.limit) for path in options.manifests}
    if options.shown:
        rules = rules_of_what_is_shown()
        rows = [["corpus, rule", *_STABILITY]]
        for name, utterances in heard.items():
            found = measure(recognizer, "beam", utterances, list(rules.values()))
            rows += [stability(f"{name}, {rule}", each) for rule, each in zip(rules, found, strict=True)]
        print(report.columns(rows))
        return 0
    corpora = {name: measure(recognizer, options.search, utterances)[0] for name, utterances in heard.items()}
    everything, halves = {}, {}
    for k, reference in enumerate(("pocketsphinx", "torchaudio")):
        every = everything[reference] = [error for corpus in corpora.values() for error in corpus.errors[k]]
        halves[reference] = [offsets([e for e in every if e[0] % 2 != half]) for half in (0, 1)]
    head = ["reference", "words", "start p50", "p90", "end p50", "p90"]
    rows = [["corpus", *head, "after: start p50", "p90", "end p50", "p90"]]
    for name, corpus in corpora.items():
        for reference, errors in zip(("pocketsphinx", "torchaudio"), corpus.errors, strict=True):
            values = np.array([error[1:] for error in errors]).reshape(-1, 2)
            after = [v + halves[reference][e[0] % 2] for e, v in zip(errors, values, strict=True)]
            rows.append([name, reference, str(len(values)), *row(values), *row(np.array(after))])
    print("Errors of word times, ms\n\n" + report.columns(rows))
    found = offsets(everything["pocketsphinx"])
    print(f"\noffsets: start {found[0]:+.3f} s, end {found[1]:+.3f} s\n")
    rows = [["corpus", *_STABILITY], *(stability(name, corpus) for name, corpus in corpora.items())]
    print("Stability: ms after the end of a word\n\n" + report.columns(rows))
    if options.write:
        measured = replace(
            model.description.calibration,
            start_seconds=round(float(found[0]), 3),
            end_seconds=round(float(found[1]), 3),
        )
        modelfile.write_description(folder, replace(model.description, calibration=measured))
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except StreamASRError as error:
        sys.exit(str(error))
