"""Hotwords: what they find, what they cost other words, what they cost in time; phrases alone, and none of them.

    python benchmarks/hotwords.py MODEL MANIFEST... [--limit 60] [--boosts 3,6,9] [--json OUT]
    python benchmarks/hotwords.py MODEL MANIFEST --phrases [--limit 60]

Listed are the rare words of the references: not among the --common first words of the language model (its words
are in the order of their frequency), at least four letters long. They are hotwords of all utterances at once, as
a list of names would be, then with 100 and 1,000 words more that nobody says. Listed: errors on listed words
(wrong, left out, put in). Others: errors on all other words of the references. Recall: listed words found.
Each recording is one segment. The sound is encoded once, and searched with each list.

--phrases: MANIFEST is of commands. One in two of its texts is a phrase to listen for; the others are said in
vain. Right: phrases told as they are; false: recordings of the other texts in which one is heard; the share of
both at several penalties (streamasr/search/phrases.py).
"""

from __future__ import annotations

import os

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"):
    os.environ[_name] = "1"

from typing import Any  # noqa: E402

import numpy as np  # noqa: E402
from numpy.typing import NDArray  # noqa: E402

from streamasr import audio  # noqa: E402
from streamasr.data.manifest import Utterance  # noqa: E402
from streamasr.recognizer import Recognizer  # noqa: E402

LogProbs = NDArray[np.float32]


class _Tape:
    """A search that only keeps what it is given."""

    def __init__(self, search: Any) -> None:
        self.search, self.rows = search, [np.zeros((0, len(search.vocabulary)), np.float32)]
        self.vocabulary = search.vocabulary

    def __getattr__(self, name: str) -> Any:
        return getattr(self.search, name)

    def advance(self, state: Any, log_probs: LogProbs) -> bool:
        self.rows.append(log_probs.copy())
        return False


def encode(recognizer: Recognizer, utterance: Utterance) -> LogProbs:
    """Recording -> log_probs [S, V] of the head that the beam searches, flush included."""
    samples, rate = audio.read(utterance.audio)
    stream = recognizer.stream(rate, search="beam", endpointing=False)
    tape = _Tape(stream._search)
    stream._search = tape
    stream.accept(samples)
    stream.finish()
    return np.concatenate(tape.rows)
