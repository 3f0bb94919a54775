"""Size, perplexity and WER of language models, as Markdown: what pruning costs.

    python benchmarks/language_models.py MODEL LM... --manifests dev.jsonl ... [--pronunciations FILE ...]

Every utterance goes through the acoustic model once; then it is searched with each LM (lm.safetensors, as
python -m streamasr.data.ngram makes them) and a lexicon of its words. Perplexity is that of the transcripts,
ends of sentences and unknown words counted.
"""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from tuning import emissions, search

import streamasr
from streamasr import modelfile
from streamasr.data import lexicon as lexicons
from streamasr.data import manifest
from streamasr.data.text import normalise
from streamasr.errors import StreamASRError
from streamasr.evaluate import wer
from streamasr.search import lexicon, lm
from streamasr.search.beam import BeamSearch


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("model", metavar="MODEL")
    parser.add_argument("lms", type=Path, nargs="+", metavar="LM")
    parser.add_argument("--manifests", type=Path, nargs="+", required=True, metavar="MANIFEST")
    parser.add_argument("--limit", type=int, default=60, help="utterances of each; default: %(default)s")
    parser.add_argument(
        "--pronunciations", type=Path, nargs="+", metavar="FILE", help="for a model of phones"
    )
    options = parser.parse_args()
    model = modelfile.read(modelfile.find(options.model))
    vocabulary = model.description.phones or model.description.vocabulary
    prior = model.tensors.get("phone_output.prior")
    spoken = lexicons.pronunciations(options.pronunciations or [], vocabulary.tokens)

    def lexicon_of(words: tuple[str, ...]) -> lexicon.Lexicon:
        if spoken:
            return lexicons.from_pronunciations(words, spoken, len(vocabulary))[0]
        return lexicons.from_words(words, vocabulary)[0]

    heard = []
    with TemporaryDirectory() as folder:  # the model beside a lexicon: the search decides which head is heard
        modelfile.write(Path(folder) / "model", model.description, model.tensors)
        lexicon_of(lm.read(options.lms[0]).words[:1000]).write(Path(folder) / "model" / "lexicon.safetensors")
        recognizer = streamasr.load(Path(folder) / "model")
        for path in options.manifests:
            chosen = manifest.sample(manifest.read(path), options.limit)
            heard.append({u.id: (normalise(u.text), emissions(recognizer, u.audio)) for u in chosen})
    names = [path.stem for path in options.manifests]
    print(f"| model | MB | words | n-grams | {' | '.join(f'{n}: perplexity | WER %' for n in names)} |")
    print("| --- " * (4 + 2 * len(names)) + "|")
    for path in options.lms:
        language = lm.read(path)
        beam = BeamSearch(vocabulary, model.description.search, lexicon_of(language.words), language, prior)
        cells = [
            path.stem,
            f"{path.stat().st_size / 1e6:.1f}",
            f"{len(language.words):,}",
            f"{len(language):,}",
        ]
        for utterances in heard:
            scores = [score for text, _ in utterances.values() for score in language.sentence(text)]
            told = {}
            for name, (_, log_probs) in utterances.items():
                told[name] = search(beam, log_probs)
            rate = wer.score({name: text for name, (text, _) in utterances.items()}, told).words.rate
            cells += [f"{math.exp(-float(np.mean(scores))):.0f}", f"{100 * rate:.1f}"]
        print(f"| {' | '.join(cells)} |", flush=True)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except StreamASRError as error:
        sys.exit(str(error))
