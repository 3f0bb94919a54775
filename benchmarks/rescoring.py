"""Rescoring with the LSTM language model: WER by its weight, oracle of the n best, ms of time a final.

    python benchmarks/rescoring.py MODEL MANIFEST... [--lstm runs/lm] [--limit 60] [--weights 0,0.1,0.2,0.4]

The n best of an even sample of every manifest, each utterance one segment, are searched once. The weight that
is best on dev belongs into model.json, "search": {"rescore_weight": ...}.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np

import streamasr
from streamasr import audio
from streamasr.data import manifest
from streamasr.evaluate import wer
from streamasr.search import lstm_lm
from streamasr.search.rescoring import MOST_TEXTS, Rescorer


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path)
    parser.add_argument("manifests", nargs="+", type=Path)
    parser.add_argument("--lstm", type=Path, help="folder of lstm_lm.safetensors; default: MODEL")
    parser.add_argument("--limit", type=int, default=60)
    parser.add_argument("--weights", default="0,0.05,0.1,0.2,0.3,0.4,0.6,0.8")
    options = parser.parse_args()
    recognizer = streamasr.load(options.model)
    rescorer = Rescorer(lstm_lm.read(options.lstm or options.model), 1.0)
    weights = [float(weight) for weight in options.weights.split(",")]
    print(f"| manifest | {' | '.join(f'{w:g}' for w in weights)} | oracle of {MOST_TEXTS} | ms: mean, most |")
    print("| --- " * (len(weights) + 3) + "|")
    for path in options.manifests:
        listed = manifest.read(path)
        references: dict[str, str] = {}
        chosen: list[dict[str, str]] = [{} for _ in weights]
        oracle: dict[str, str] = {}
        times = []
        for u in listed[:: max(1, len(listed) // options.limit)][: options.limit]:
            samples, rate = audio.read(u.audio)
            stream = recognizer.stream(rate, search="beam", endpointing=False, rescore=False)
            stream.accept(samples)
            found = stream.nbest(MOST_TEXTS)
            texts = [text for text, _ in found]
            begun = time.process_time()
            own = np.array(rescorer.score([], [text.split() for text in texts]))
            times.append(time.process_time() - begun)
            scores = np.array([score for _, score in found])
            references[u.id] = u.text
            for weight, hypotheses in zip(weights, chosen, strict=True):
                hypotheses[u.id] = texts[int(np.argmax(scores + weight * own))]
            errors = [wer.score({u.id: u.text}, {u.id: text}).words.errors for text in texts]
            oracle[u.id] = texts[int(np.argmin(errors))]
            print(f"\r{path.stem}: {len(references)}", end="", file=sys.stderr)
        rates = [100 * wer.score(references, each).words.rate for each in (*chosen, oracle)]
        milliseconds = 1e3 * np.array(times)
        cells = [f"{rate:.2f}" for rate in rates]
        cells.append(f"{milliseconds.mean():.0f}, {milliseconds.max():.0f}")
        print(f"\r| {path.stem} | {' | '.join(cells)} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
