"""Speed of the search on one thread, as Markdown: processor time per step.

    python benchmarks/search.py MODEL [FILE...] [--beam 50] [--seconds 60]

The steps are those of recordings (default: the demo's), played again and again; letters for the searches
without a lexicon, what the model has a lexicon of for the others. Compilation and the first second are not
counted.
"""

from __future__ import annotations

import os

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"):
    os.environ[_name] = "1"

import argparse  # noqa: E402
import sys  # noqa: E402
import time  # noqa: E402
from dataclasses import replace  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

import numpy as np  # noqa: E402
from tuning import emissions  # noqa: E402

import streamasr  # noqa: E402
from streamasr import state  # noqa: E402
from streamasr.errors import StreamASRError  # noqa: E402
from streamasr.search.beam import BeamSearch  # noqa: E402

DEMO = Path(__file__).parents[1] / "demo" / "samples"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("model", metavar="MODEL")
    parser.add_argument("files", nargs="*", type=Path, metavar="FILE")
    parser.add_argument("--beam", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=60.0, help="of speech; default: %(default)s")
    options = parser.parse_args()
    recognizer = streamasr.load(options.model)
    step_seconds = recognizer.info["step_seconds"]
    steps = round(options.seconds / step_seconds)
    files = options.files or sorted(DEMO.glob("*.flac"))
    rows = {
        kind: np.concatenate([emissions(recognizer, f, kind) for f in files]) for kind in ("greedy", "beam")
    }
    rows = {kind: np.resize(found, (steps, found.shape[1])) for kind, found in rows.items()}
    full, bare = recognizer._beam(True), recognizer._beam(False)
    config = replace(full.config, beam=options.beam)
    words, model, vocabulary = full.lexicon, full.model, full.vocabulary
    assert words is not None and model is not None, "the model brings no lexicon and language model"
    phrases = np.random.default_rng(1).choice(np.array(words.words), 10_000, replace=False).tolist()
    every = replace(config, blank_skip=1.0)
    letters = recognizer.model.description.vocabulary
    searches: dict[str, tuple[str, Any]] = {
        "greedy": ("greedy", recognizer._greedy),
        "beam, letters": ("greedy", BeamSearch(letters, config)),
        "beam + lexicon": ("beam", bare),
        "beam + lexicon + n-gram": ("beam", BeamSearch(vocabulary, config, words, model)),
        "the same, every step extends": ("beam", BeamSearch(vocabulary, every, words, model)),
        "+ 10,000 hotwords": ("beam", BeamSearch(vocabulary, config, words, model, phrases=phrases)),
    }
    print(f"{len(words.words):,} words, {len(model):,} n-grams, beam {options.beam}, "
          f"{steps} steps of {1000 * step_seconds:g} ms, one thread\n")  # fmt: skip
    print("| search | us per step | us per best() | state |\n| --- | --- | --- | --- |")
    for name, (kind, search) in searches.items():
        log_probs = rows[kind]
        s = search.start()
        search.advance(s, log_probs[:33])
        search.best(s)
        spent = told = 0.0
        for number, row in enumerate(log_probs):
            begin = time.process_time()
            search.advance(s, row[None])
            search.between_words(s)
            spent += time.process_time() - begin
            if number % 3 == 0:
                begin = time.process_time()
                search.best(s)
                told += time.process_time() - begin
            if number % 300 == 299:
                search.commit(s)
        size = sum(v.nbytes for v in state.pack(s).values() if isinstance(v, np.ndarray))
        micro = 1e6 / len(log_probs)
        print(f"| {name} | {micro * spent:.1f} | {3 * micro * told:.1f} | {size / 1000:.1f} kB |")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except StreamASRError as error:
        sys.exit(str(error))
