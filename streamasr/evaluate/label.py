"""Self-training: writes what a model hears, where it is sure of it, as transcripts to train on.

    python -m streamasr.evaluate.label MODEL MANIFEST OUT [--confidence 0.8] [--jobs N]

The texts of MANIFEST are not looked at. OUT is a manifest of the recordings whose words are right with a mean
probability of at least `--confidence`, as the model's calibrated confidences say (Kahn et al. 2020,
arXiv:1909.09116, filter by a likewise averaged score). Where nothing is heard, nothing can be learnt.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from ..data import manifest
from ..errors import StreamASRError
from . import runner


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Arguments -> options."""
    parser = argparse.ArgumentParser(prog="python -m streamasr.evaluate.label", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("model", metavar="MODEL", help="name of a packaged model, or a model directory")
    parser.add_argument("manifest", metavar="MANIFEST", type=Path, help="recordings without transcripts")
    parser.add_argument("out", metavar="OUT", type=Path, help="the manifest that is written")
    parser.add_argument("--confidence", metavar="P", type=float, default=0.8, help="default: 0.8")
    parser.add_argument("--jobs", metavar="N", type=int, default=os.cpu_count() or 1, help="processes")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(sys.argv[1:] if arguments is None else arguments)
    try:
        utterances = manifest.read(options.manifest)
        by_id = {utterance.id: utterance for utterance in utterances}
        labelled, seconds, failed = [], 0.0, 0
        for result in runner.run(utterances, options.model, options.jobs):
            seconds += result.audio_seconds
            if result.error is not None:
                failed += 1
                print(f"label: {result.id}: {result.error}", file=sys.stderr)
            elif result.text and float(np.mean(result.confidences)) >= options.confidence:
                duration = round(result.audio_seconds, 3)
                labelled.append(replace(by_id[result.id], text=result.text, duration=duration))
        labelled.sort(key=lambda utterance: utterance.id)
        manifest.write(options.out, labelled)
    except StreamASRError as error:
        print(f"label: {error}", file=sys.stderr)
        return 1
    kept = sum(utterance.duration or 0.0 for utterance in labelled)
    print(
        f"{options.out}: {len(labelled)} of {len(utterances)} recordings, {kept / 3600:.2f} of"
        f" {seconds / 3600:.2f} h, {failed} unreadable"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
