"""Checkpoints of runs that began with the same weights -> one with the mean of their averaged weights.

    python -m streamasr.train.soup A.pt B.pt OUT.pt

Wortsman et al., "Model soups" (arXiv:2203.05482): where fine-tuned weights lie in one basin, their mean is as
good as the best of them on what each is good at. For `streamasr export`; a run cannot go on from it.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from ..errors import ModelError, StreamASRError
from . import checkpoint
from .model import network

_SHARED = ("vocabulary", "phones")  # what a model means
_KEPT = ("config", "statistics", "phones", "prior", "vocabulary", "summary")  # of the last


def mean(paths: Sequence[Path]) -> dict[str, object]:
    """Checkpoints -> content of the one for export. Raises ModelError naming the file that does not fit."""
    contents = [checkpoint.read(path) for path in paths]
    contents = [content | {"average": network(content["average"])} for content in contents]
    last = contents[-1]
    for path, content in zip(paths, contents, strict=True):
        shapes, expected = ({k: v.shape for k, v in c["average"].items()} for c in (content, last))
        same_input = all(map(torch.equal, content["statistics"], last["statistics"]))
        if shapes != expected or not same_input or any(content.get(k) != last.get(k) for k in _SHARED):
            raise ModelError(f"{path}: of another network, vocabulary or feature statistics than {paths[-1]}")
    average = {
        name: torch.stack([content["average"][name] for content in contents]).mean(0)
        for name in last["average"]
    }
    return {"average": average} | {key: last[key] for key in _KEPT if key in last}


def main(arguments: Sequence[str] | None = None) -> int:
    given = sys.argv[1:] if arguments is None else arguments
    if len(given) < 3:
        print("usage: python -m streamasr.train.soup A.pt B.pt ... OUT.pt", file=sys.stderr)
        return 2
    *sources, out = map(Path, given)
    try:
        checkpoint.write(out, mean(sources))
    except StreamASRError as error:
        print(f"soup: {error}", file=sys.stderr)
        return 1
    print(f"{out}: mean of {len(sources)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
