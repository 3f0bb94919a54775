"""streamasr train-lm: configuration and texts -> LSTM language model."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..errors import MissingDependency


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", type=Path, metavar="CONFIG", help="TOML file; see configs/lm.toml")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        dest="overrides",
        help="such as train.epochs=2",
    )
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint of this run")


def run(options: argparse.Namespace) -> int:
    try:
        from ..train import lm
    except ModuleNotFoundError as error:
        if error.name not in ("torch", "numba", "tqdm"):
            raise
        missing = f"training needs the package {error.name}: pip install torch numba tqdm"
        raise MissingDependency(missing) from error
    return lm.main(options.config, options.overrides, options.resume)
