"""WER of the beam search over a grid of its settings: emissions are computed once, then only searched.

    python benchmarks/tuning.py MODEL MANIFEST... [--limit 60] --set lm_weight=0.8,1 --set word_bonus=0,1

Every combination of the values is tried on every manifest (an even sample of `--limit` utterances each);
the rows come best first. The settings are those of model.json's "search" (streamasr/search/config.py).
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import streamasr
from streamasr import audio
from streamasr.data import manifest
from streamasr.evaluate import wer
from streamasr.recognizer import Recognizer
from streamasr.search.beam import BeamSearch
from streamasr.search.config import BeamConfig
from streamasr.stream import Stream


def emissions(recognizer: Recognizer, path: Path, kind: str = "beam") -> NDArray[np.float32]:
    """log_probs [S, V] of a whole recording, flush included, as that search of a stream gets them."""
    samples, rate = audio.read(path)
    stream: Stream = recognizer.stream(rate, search=kind, endpointing=False)
    rows = [np.zeros((0, len(stream._search.vocabulary)), np.float32)]
    state = stream._state
    stream._search = _Recorder(rows)  # type: ignore[assignment]
    rows.append(stream._encode(state, stream._resampler.advance(state.resampler, samples)))
    state.heard += len(samples)
    stream._flush(state)
    return np.concatenate(rows)


class _Recorder:
    def __init__(self, rows: list[NDArray[np.float32]]) -> None:
        self.rows = rows

    def advance(self, state: Any, log_probs: NDArray[np.float32]) -> bool:
        self.rows.append(log_probs)
        return False


def search(beam: BeamSearch, log_probs: NDArray[np.float32]) -> str:
    state = beam.start()
    beam.advance(state, log_probs)
    return " ".join(word.text for word in beam.commit(state).words)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model")
    parser.add_argument("manifests", nargs="+", type=Path)
    parser.add_argument("--limit", type=int, default=60)
    parser.add_argument("--no-lm", action="store_true")
    parser.add_argument("--set", action="append", default=[], dest="grid", metavar="KEY=V,V,...")
    options = parser.parse_args()
    recognizer = streamasr.load(options.model)
    opened: BeamSearch = recognizer._beam(not options.no_lm)
    grid = {
        key: [float(v) for v in values.split(",")] for key, values in (g.split("=") for g in options.grid)
    }
    heard = []
    for path in options.manifests:
        listed = manifest.read(path)
        chosen = listed[:: max(1, len(listed) // options.limit)][: options.limit]
        heard.append((path.stem, [(u.id, u.text, emissions(recognizer, u.audio)) for u in chosen]))
    steps = sum(len(e) for _, utterances in heard for _, _, e in utterances)
    rows = []
    for values in itertools.product(*grid.values()):
        changed = {k: type(getattr(BeamConfig, k))(v) for k, v in zip(grid, values, strict=True)}
        config = replace(opened.config, **changed)
        prior = recognizer.model.tensors.get("phone_output.prior")
        prior = prior if recognizer.model.description.phones else None
        beam = BeamSearch(opened.vocabulary, config, opened.lexicon, opened.model, prior)
        search(beam, heard[0][1][0][2])
        started, rates = time.perf_counter(), []
        for _, utterances in heard:
            references = {name: text for name, text, _ in utterances}
            hypotheses = {name: search(beam, log_probs) for name, _, log_probs in utterances}
            rates.append(100 * wer.score(references, hypotheses).words.rate)
        microseconds = 1e6 * (time.perf_counter() - started) / steps
        rows.append((float(np.mean(rates)), changed, rates, microseconds))
        print(f"{rows[-1][0]:.2f} {changed}", file=sys.stderr)
    print(f"| {' | '.join(grid)} | {' | '.join(name for name, _ in heard)} | mean WER % | us/step |")
    print("| --- " * (len(grid) + len(heard) + 2) + "|")
    for mean, changed, rates, microseconds in sorted(rows, key=lambda row: row[0]):
        cells = [f"{v:g}" for v in changed.values()] + [f"{r:.1f}" for r in rates]
        print(f"| {' | '.join(cells)} | {mean:.2f} | {microseconds:.0f} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
