"""streamasr info: what a model is."""

from __future__ import annotations

import argparse
import json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="as JSON")
    parser.add_argument("--model", metavar="NAME|PATH", help="default: the English model that is installed")


def run(options: argparse.Namespace) -> int:
    import streamasr

    info = (streamasr.load(options.model) if options.model else streamasr.load()).info
    if options.json:
        print(json.dumps(info, ensure_ascii=False, indent=2))
        return 0
    width = max(len(key) for key in info)
    for key, value in info.items():
        print(f"{key.replace('_', ' '):<{width}}  {value}")
    return 0
