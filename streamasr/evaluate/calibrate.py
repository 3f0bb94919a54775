"""Measures what a model's confidences mean, and writes that into its model.json.

    python -m streamasr.evaluate.calibrate MODEL MANIFEST... [--limit N]

MODEL is a directory. Of the recordings, which the model must not have been trained on, every word that is
heard is compared with what was said. For each kind of search a logistic map of search/confidence.py is
fitted to all of them; what is printed was measured by halves: fitted to every other utterance, the other
half judged. AUC: how often a right word is surer than a wrong one.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import modelfile
from ..data import manifest
from ..data.manifest import Utterance
from ..errors import ConfigError, StreamASRError
from ..recognizer import Recognizer
from ..search.confidence import Calibration, Evidence, Logistic
from . import calibration, report, runner, wer
from .runner import Listening

# Chosen: pulls weights to 0 as hard as that many words would, which matters only where there are few.
_RIDGE = 1.0
_ROUNDS = 50
_SEARCHES = {
    "greedy": Listening("greedy"),
    "lexicon": Listening("beam", language_model=False),
    "beam": Listening("beam"),
}


class Recorder:
    """In place of a confidence: notes the evidence, and gives its place in the notes."""

    def __init__(self) -> None:
        self.noted: list[Evidence] = []

    def of(self, evidence: Evidence) -> float:
        self.noted.append(evidence)
        return float(len(self.noted) - 1)


def gather(
    model: modelfile.Model, utterances: Sequence[Utterance], name: str
) -> tuple[list[Evidence], list[bool], list[int]]:
    """The words that the search `name` hears: evidence, whether they were said, number of the utterance.

    Raises ConfigError when a recording cannot be read.
    """
    recorder = Recorder()
    # Only `of` is asked of it.
    description = replace(model.description, calibration=Calibration(**{name: recorder}))  # type: ignore[arg-type]
    recognizer = Recognizer(replace(model, description=description))
    evidence, right, numbers = [], [], []
    for number, utterance in enumerate(utterances):
        recorder.noted.clear()
        result = runner.transcribe(recognizer, utterance, _SEARCHES[name])
        if result.error is not None:
            raise ConfigError(f"calibrate: {utterance.id}: {result.error}")
        scored = wer.score({utterance.id: utterance.text}, {utterance.id: result.text})
        for place, said in report.judged(scored.utterances[0], result):
            evidence.append(recorder.noted[int(place)])
            right.append(said)
            numbers.append(number)
    return evidence, right, numbers


def fit(evidence: Sequence[Evidence], right: Sequence[bool]) -> Logistic:
    """Logistic regression by Newton's method. Raises ConfigError without both right and wrong words."""
    features, target = np.array([e.features() for e in evidence]), np.array(right, np.float64)
    if len(set(right)) < 2:
        raise ConfigError(
            f"calibrate: of {len(right)} words heard, all are right or none; take more recordings"
        )
    mean, spread = features.mean(0), features.std(0)
    used = spread > 0  # a search without a language model has none to weigh
    spread[~used] = 1.0
    inputs = np.column_stack([np.ones(len(target)), (features - mean) / spread])
    ridge = _RIDGE * np.diag([0.0] + [1.0] * features.shape[1])
    weights = np.zeros(inputs.shape[1])
    for _ in range(_ROUNDS):
        p = _sigmoid(inputs @ weights)
        slope = inputs.T @ (target - p) - ridge @ weights
        curve = (inputs * (p * (1 - p))[:, None]).T @ inputs + ridge
        weights += np.linalg.solve(curve, slope)
    slopes = weights[1:] / spread
    bias = float(weights[0] - slopes @ mean)
    return Logistic(round(bias, 6), *(round(float(w), 6) for w in slopes))


def _sigmoid(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(1.0 / (1.0 + np.exp(-x)))


def _judge(confidences: Sequence[float], right: Sequence[bool]) -> tuple[str, str]:
    words = list(zip(confidences, right, strict=True))
    return f"{calibration.expected_error(words):.3f}", f"{calibration.area(words):.3f}"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", metavar="MODEL", type=Path)
    parser.add_argument("manifests", nargs="+", type=Path, metavar="MANIFEST")
    parser.add_argument("--limit", type=int, metavar="N", help="a random sample of N of each manifest")
    options = parser.parse_args()
    model = modelfile.read(options.model)
    searches = ["greedy"]
    for file, name in (("lexicon", "lexicon"), ("lm", "beam")):
        if (options.model / f"{file}.safetensors").exists():
            searches.append(name)
    corpora = {path.stem: manifest.sample(manifest.read(path), options.limit) for path in options.manifests}
    utterances = [utterance for each in corpora.values() for utterance in each]
    corpus = [name for name, each in corpora.items() for _ in each]
    found: dict[str, Any] = {}
    rows = [["search", "corpus", "words", "right %", "ECE", "AUC", "raw ECE", "raw AUC"]]
    for name in searches:
        evidence, right, numbers = gather(model, utterances, name)
        sure = [0.0] * len(right)
        for half in (0, 1):
            chosen = [i for i, number in enumerate(numbers) if number % 2 == half]
            others = [i for i, number in enumerate(numbers) if number % 2 != half]
            fitted = fit([evidence[i] for i in chosen], [right[i] for i in chosen])
            for i in others:
                sure[i] = fitted.of(evidence[i])
        found[name] = fit(evidence, right)
        for part in (None, *corpora):
            those = [i for i, number in enumerate(numbers) if part in (None, corpus[number])]
            said = [right[i] for i in those]
            if len(set(said)) < 2:
                continue
            rows.append(
                [name, part or "all", str(len(those)), f"{100 * np.mean(said):.1f}"]
                + [*_judge([sure[i] for i in those], said)]
                + [*_judge([evidence[i].sound for i in those], said)]
            )
    measured = replace(model.description.calibration, **found)
    modelfile.write_description(options.model, replace(model.description, calibration=measured))
    print(report.columns([[f"{row[0]} {row[1]}", *row[2:]] for row in rows]))
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except StreamASRError as error:
        sys.exit(str(error))
