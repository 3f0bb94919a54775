"""streamasr export: checkpoint or model -> model directory or zip, with numbers of another size."""

from __future__ import annotations

import argparse
from pathlib import Path

from .. import modelfile
from ..errors import ConfigError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", metavar="MODEL", help="name, directory or zip of a model, or checkpoint.pt")
    parser.add_argument("target", type=Path, metavar="OUT", help="directory, or .zip")
    parser.add_argument("--numbers", choices=("float32", "float16", "int8"), default="float16")
    parser.add_argument("--name", help="what the model is called; default: as before")
    parser.add_argument(
        "--like",
        metavar="MODEL",
        help="model with the same tokens whose lexicon, language model, search settings and calibration go "
        "along; default: MODEL itself, or what its run began with",
    )


def run(options: argparse.Namespace) -> int:
    from dataclasses import replace

    if options.source.endswith(".pt"):
        from ..train import export

        name = options.name or options.target.stem
        export.from_checkpoint(Path(options.source), options.target, name, options.numbers, options.like)
    else:
        found = modelfile.read(modelfile.find(options.source))
        if found.folder and options.target.resolve() == found.folder.resolve():
            raise ConfigError(f"{options.target}: is the model itself; name another place")
        like = modelfile.read(modelfile.find(options.like)) if options.like else found
        description = replace(found.description, name=options.name or found.description.name)
        modelfile.write(options.target, description, found.tensors, numbers=options.numbers, like=like)
    written = modelfile.read(options.target)
    print(f"{options.target}: {options.numbers}, {written.size_bytes / 1e6:.2f} MB")
    there = [name for name in modelfile.COMPANIONS if written.folder and (written.folder / name).exists()]
    print(f"with {', '.join(there)}" if there else "without a lexicon: for greedy search")
    return 0
