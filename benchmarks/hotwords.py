"""Hotwords: what they find, what they cost other words and in time; and phrases, or none of them.

    python benchmarks/hotwords.py MODEL MANIFEST... [--limit 60] [--boosts 3,6,9] [--common 20000]
    python benchmarks/hotwords.py MODEL MANIFEST... --phrases [--limit 60]

Listed are the rare words of the references: at least four letters, not among the --common first words of
the language model, which has them in the order of their frequency. All are hotwords of every utterance, as
a list of names would be, then with 100, 1,000 and 10,000 rare words more that nobody says. Listed wrong:
share of the listed words that are not heard. Others: all other errors, hotwords that nobody said among them,
per other word. Each recording is one segment; it is encoded once and searched with each list. Times are
processor time on one thread.

--phrases: for manifests of commands. Every other text is a phrase, then the others are. Right: what is one
is told as it is. Wrong: another phrase is told. False: a phrase is told where another text was said.
"""

from __future__ import annotations

import os

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"):
    os.environ[_name] = "1"

import argparse  # noqa: E402
import sys  # noqa: E402
import time  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

import numpy as np  # noqa: E402
from numpy.typing import NDArray  # noqa: E402

import streamasr  # noqa: E402
from streamasr import audio  # noqa: E402
from streamasr.data import manifest  # noqa: E402
from streamasr.data.manifest import Utterance  # noqa: E402
from streamasr.data.text import normalise  # noqa: E402
from streamasr.errors import ConfigError, StreamASRError  # noqa: E402
from streamasr.evaluate import wer  # noqa: E402
from streamasr.recognizer import Recognizer  # noqa: E402
from streamasr.search.beam import BeamSearch  # noqa: E402
from streamasr.search.phrases import PENALTY, PhraseSearch  # noqa: E402

LogProbs = NDArray[np.float32]
LEAST_LETTERS = 4  # shorter words sound like parts of others
LISTS = (100, 1000, 10_000)
PENALTIES = (0.5, 1.0, PENALTY, 2.0, 3.0)


class Tape:
    """A search that keeps what it is given, and hears nothing."""

    def __init__(self, search: Any) -> None:
        self.search = search
        self.rows = [np.zeros((0, len(search.vocabulary)), np.float32)]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.search, name)

    def advance(self, state: Any, log_probs: LogProbs) -> bool:
        self.rows.append(log_probs.copy())
        return False


def encode(recognizer: Recognizer, utterance: Utterance) -> LogProbs:
    """Recording -> log_probs [S, V] as the beam gets them, flush included."""
    samples, rate = audio.read(utterance.audio)
    stream = recognizer.stream(rate, search="beam", endpointing=False)
    tape = Tape(stream._search)
    stream._search = tape
    stream.accept(samples)
    stream.finish()
    return np.concatenate(tape.rows)


def told(search: BeamSearch, log_probs: LogProbs) -> str:
    state = search.start()
    search.advance(state, log_probs)
    return " ".join(word.text for word in search.commit(state).words)


def errors(references: dict[str, str], found: dict[str, str], listed: set[str]) -> tuple[float, float, float]:
    """-> error rates of listed words, of all others, of all words."""
    score = wer.score(references, found)
    pairs = [pair for each in score.utterances for pair in each.alignment]
    said = sum(reference in listed for reference, _ in pairs)
    missed = sum(reference in listed and heard != reference for reference, heard in pairs)
    others = score.words.errors - missed
    return (
        missed / max(said, 1),
        others / max(score.words.reference - said, 1),
        score.words.errors / max(score.words.reference, 1),
    )


def hotwords(search: BeamSearch, corpus: dict[str, tuple[str, LogProbs]], options: Any) -> None:
    if search.model is None:
        raise ConfigError("the model has no language model, whose order of words says which are rare")
    common = set(search.model.words[: options.common])
    references = {name: text for name, (text, _) in corpus.items()}
    every = {word for text in references.values() for word in text.split()}
    listed = {word for word in every if len(word) >= LEAST_LETTERS and word not in common}
    rare = [w for w in search.model.words[options.common :] if len(w) >= LEAST_LETTERS and w not in every]
    unused = [rare[i] for i in np.random.default_rng(0).permutation(len(rare))[: max(LISTS)]]
    new = len(listed - set(search.lexicon.ids)) if search.lexicon else 0
    print(f"{len(corpus)} utterances, {len(listed)} words listed ({new} not in the lexicon), such as "
          f"{', '.join(sorted(listed)[:6])}\n")  # fmt: skip
    print("| hotwords | boost | listed wrong % | others % | WER % |\n| --- | --- | --- | --- | --- |")
    runs: list[tuple[str, float, list[str]]] = [("none", 0.0, [])]
    for boost in options.boosts:
        runs.append(("listed", boost, sorted(listed)))
        runs += [(f"listed and {n:,} unused", boost, sorted(listed) + unused[:n]) for n in LISTS]
    for name, boost, words in runs:
        hot = search.with_phrases([(word, boost) for word in words])
        found = {key: told(hot, log_probs) for key, (_, log_probs) in corpus.items()}
        rates = errors(references, found, listed)
        print(
            f"| {name} | {boost:g} | " + " | ".join(f"{100 * rate:.2f}" for rate in rates) + " |", flush=True
        )
    rows = np.concatenate([log_probs for _, log_probs in corpus.values()])[:2000]
    print("\n| hotwords | us per step |\n| --- | --- |")
    for count in (0, *LISTS):
        hot = search.with_phrases(unused[:count])
        state = hot.start()
        hot.advance(state, rows[:33])
        begin = time.process_time()
        for row in rows[33:]:
            hot.advance(state, row[None])
        print(f"| {count:,} | {1e6 * (time.process_time() - begin) / len(rows[33:]):.1f} |", flush=True)


def phrases(search: BeamSearch, corpus: dict[str, tuple[str, LogProbs]]) -> None:
    texts = sorted({text for text, _ in corpus.values()})
    print(f"{len(corpus)} utterances of {len(texts)} texts\n")
    print("| penalty | right % | wrong % | false % |\n| --- | --- | --- | --- |")
    for penalty in PENALTIES:
        right, wrong, false = 0, 0, 0
        for half in (texts[::2], texts[1::2]):
            only = PhraseSearch(search, half, penalty)
            for text, log_probs in corpus.values():
                found = told(only, log_probs)
                right += found == text
                wrong += text in half and found not in (text, "")
                false += text not in half and found != ""
        print(
            f"| {penalty:g} | "
            + " | ".join(f"{100 * n / len(corpus):.1f}" for n in (right, wrong, false))
            + " |"
        )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("model", metavar="MODEL", help="with lexicon and language model")
    parser.add_argument("manifests", nargs="+", type=Path, metavar="MANIFEST")
    parser.add_argument("--limit", type=int, default=60, metavar="N", help="of each; default: %(default)s")
    parser.add_argument("--boosts", type=lambda text: [float(each) for each in text.split(",")],
                        default=[3.0, 6.0, 9.0], help="default: 3,6,9")  # fmt: skip
    parser.add_argument("--common", type=int, default=20_000, metavar="N", help="default: %(default)s")
    parser.add_argument("--phrases", action="store_true", help="measure phrase mode instead")
    options = parser.parse_args()
    recognizer = streamasr.load(options.model)
    for path in options.manifests:
        utterances = manifest.sample(manifest.read(path), options.limit)
        corpus = {each.id: (normalise(each.text), encode(recognizer, each)) for each in utterances}
        print(f"\n{path.stem}: ", end="")
        if options.phrases:
            phrases(recognizer._beam(False), corpus)
        else:
            hotwords(recognizer._beam(True), corpus, options)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except StreamASRError as error:
        sys.exit(str(error))
