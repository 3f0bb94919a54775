"""Speed of the search on one thread, as Markdown: processor time per step.

    python benchmarks/search.py MODEL [--beam 50] [--log-probs FILE.npz] [--seconds 60]

MODEL is a directory with lexicon.safetensors and lm.safetensors. Without recorded log-probabilities
(arrays [S, V] in an .npz) random ones are searched that look like speech: words of the lexicon, spelt with
doubt, in two steps a letter and two blanks. Compilation and the first second are not counted.
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

import numpy as np  # noqa: E402
from numpy.typing import NDArray  # noqa: E402

from streamasr import modelfile, state  # noqa: E402
from streamasr.errors import StreamASRError  # noqa: E402
from streamasr.search import lexicon, lm  # noqa: E402
from streamasr.search.beam import BeamSearch  # noqa: E402
from streamasr.search.greedy import GreedySearch  # noqa: E402
from streamasr.vocabulary import Vocabulary  # noqa: E402


def doubtful(words: list[str], vocabulary: Vocabulary, steps: int, seed: int = 0) -> NDArray[np.float32]:
    """Words -> log_probs [S, V] of some of them: letters right in two of three cases, blanks mostly sure."""
    rng = np.random.default_rng(seed)
    path: list[int] = []
    while len(path) < steps:
        for letter in vocabulary.encode(words[rng.integers(min(len(words), 20_000))] + " "):
            path += [letter, letter, 0, 0]
    logits = 1.5 * rng.standard_normal((steps, len(vocabulary)))
    logits[np.arange(steps), path[:steps]] += np.where(
        np.array(path[:steps]) == 0, rng.uniform(3, 10, steps), 5.0
    )
    return np.asarray(logits - np.log(np.exp(logits).sum(1, keepdims=True)), np.float32)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("model", metavar="MODEL")
    parser.add_argument("--beam", type=int, default=50)
    parser.add_argument("--log-probs", type=Path, metavar="FILE")
    parser.add_argument("--seconds", type=float, default=60.0, help="of speech; default: %(default)s")
    options = parser.parse_args()
    folder = modelfile.find(options.model)
    description = modelfile.read(folder).description
    vocabulary = description.vocabulary
    step_seconds = description.encoder.frames_per_step / 100
    words, model = lexicon.read(folder / "lexicon.safetensors"), lm.read(folder / "lm.safetensors")
    steps = round(options.seconds / step_seconds)
    if options.log_probs:
        recorded = np.load(options.log_probs)
        log_probs = np.concatenate([recorded[name] for name in recorded.files])[:steps]
    else:
        log_probs = doubtful([w for w in model.words if w in words.ids], vocabulary, steps)
    config = replace(description.search, beam=options.beam)
    rng = np.random.default_rng(1)
    phrases = ["".join(rng.choice([*"abcdefghijklmnopqrstuvwxyz"], 8)) for _ in range(10_000)]
    searches = {
        "greedy": GreedySearch(vocabulary),
        "beam": BeamSearch(vocabulary, config),
        "beam + lexicon": BeamSearch(vocabulary, config, words),
        "beam + lexicon + n-gram": BeamSearch(vocabulary, config, words, model),
        "the same, every step extends": BeamSearch(vocabulary, replace(config, blank_skip=1.0), words, model),
        "+ 10,000 hotwords": BeamSearch(vocabulary, config, words, model, phrases=phrases),
    }
    print(f"{len(words.words):,} words, {len(model):,} n-grams, beam {options.beam}, "
          f"{len(log_probs)} steps of {1000 * step_seconds:g} ms, one thread\n")  # fmt: skip
    print("| search | us per step | us per best() | state |\n| --- | --- | --- | --- |")
    for name, search in searches.items():
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
