"""streamasr train: configuration -> trained model."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..errors import MissingDependency


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", type=Path, metavar="CONFIG", help="TOML file; see configs/")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        dest="overrides",
        help="such as optimiser.learning_rate=1e-3",
    )
    parser.add_argument(
        "--from",
        default="",
        metavar="MODEL",
        dest="source",
        help="begin with the weights of this model (name, directory or checkpoint.pt): fine-tuning",
    )
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint of this run")


def run(options: argparse.Namespace) -> int:
    from ..train import config

    config.read(options.config, options.overrides)  # what is wrong is said before torch is loaded
    try:
        from ..train.loop import main
    except ModuleNotFoundError as error:
        if error.name not in ("torch", "numba", "tqdm"):
            raise
        missing = f"training needs the package {error.name}: pip install torch numba tqdm"
        raise MissingDependency(missing) from error
    return main(options.config, options.overrides, options.resume, options.source)
