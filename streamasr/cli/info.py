"""streamasr info: what a model is."""

from __future__ import annotations

import argparse
import json
import textwrap


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="as JSON")
    parser.add_argument("--model", metavar="NAME|PATH", help="default: the English model that is installed")


def run(options: argparse.Namespace) -> int:
    import streamasr

    info = (streamasr.load() if options.model is None else streamasr.load(options.model)).info
    if options.json:
        print(json.dumps(info, ensure_ascii=False, indent=2))
        return 0
    parts = ", ".join(
        f"{part.replace('_', ' ')} {milliseconds(seconds)}"
        for part, seconds in info["latency_seconds"].items()
        if part != "total"
    )
    encoder = ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in info["encoder"].items())
    tokens = info["vocabulary"]["tokens"]
    rows = {
        "model": f"{info['name']} ({info['language']})",
        "description": info["description"],
        "licence": info["licence"],
        "latency": f"{milliseconds(info['latency_seconds']['total'])} algorithmic ({parts})",
        "step": milliseconds(info["step_seconds"]),
        "parameters": f"{info['parameters']:,}",
        "size": f"{info['size_bytes'] / 1e6:.3g} MB",
        "vocabulary": f"{len(tokens)} {info['vocabulary']['kind']}: {' '.join(map(repr, tokens))}",
        "encoder": encoder,
        "search": ", ".join(info["searches"]),
        "sample rate": f"{info['sample_rate']} Hz inside; any other is converted",
        "fingerprint": info["fingerprint"],
    }
    for name, value in rows.items():
        print(textwrap.fill(value, 100, initial_indent=f"{name:<13}", subsequent_indent=" " * 13))
    return 0


def milliseconds(seconds: float) -> str:
    return f"{1000 * seconds:.0f} ms"
