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
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint of this run")


def run(options: argparse.Namespace) -> int:
    try:
        import torch  # noqa: F401  # asked here, so that any other ImportError keeps its traceback
    except ImportError as error:
        raise MissingDependency("training needs the package torch: pip install torch torchaudio") from error
    from ..train.loop import main

    return main(options.config, options.overrides, options.resume)
