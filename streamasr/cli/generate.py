"""streamasr generate: LSTM language model -> text."""

from __future__ import annotations

import argparse
from pathlib import Path

from .main import DONE


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("prompt", nargs="?", default="", metavar="PROMPT", help="how the text begins")
    parser.add_argument(
        "--model", default="en", metavar="NAME|DIR", help="with lstm_lm.safetensors and lstm_lm.json in it"
    )
    parser.add_argument("--words", type=int, default=50, metavar="N", help="default: 50")
    parser.add_argument(
        "--temperature", type=float, default=1.0, metavar="T", help="0: the likeliest; default: 1"
    )
    parser.add_argument("--top-k", type=int, default=0, metavar="K", help="of the K likeliest sub-words only")
    parser.add_argument(
        "--top-p", type=float, default=1.0, metavar="P", help="of the likeliest that have this probability"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="another seed, another text")


def run(options: argparse.Namespace) -> int:
    from .. import modelfile
    from ..data.text import normalise
    from ..search import lstm_lm
    from ..search.generation import generate

    packaged = options.model in modelfile.packaged()
    model = lstm_lm.read(modelfile.find(options.model) if packaged else Path(options.model))
    prompt = normalise(options.prompt)
    pieces = generate(
        model,
        prompt,
        options.words,
        options.temperature,
        options.top_k,
        options.top_p,
        options.seed,
    )
    before = f"{prompt} " if prompt else ""
    for piece in pieces:
        print(before + piece, end="", flush=True)
        before = ""
    print()
    return DONE
