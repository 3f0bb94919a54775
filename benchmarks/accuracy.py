"""Word error rate beside PocketSphinx 5, on the same files in one run.

    python benchmarks/accuracy.py MANIFEST... [--limit N] [--json OUT]

Both hear each recording as a live stream: chunks of 100 ms, nothing known of what comes later.
PocketSphinx runs with its default English model and settings: one decoder, whose live cepstral mean
goes on from recording to recording, as in its own live program (started afresh for each it does worse).
Both texts are normalised and scored alike; RTF is processor seconds per second of sound on one thread,
without decoding of the files.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from streamasr import audio
from streamasr.data import manifest
from streamasr.data.manifest import Utterance
from streamasr.errors import StreamASRError
from streamasr.evaluate import report, runner
from streamasr.evaluate.runner import CHUNK_SECONDS, Result
from streamasr.resample import Resampler

RATE = 16_000  # Hz, of PocketSphinx's model


def pocketsphinx(utterances: Sequence[Utterance]) -> Iterator[Result]:
    from pocketsphinx import Decoder

    decoder = Decoder(loglevel="FATAL", cmn="live")
    for utterance in utterances:
        try:
            samples, rate = audio.read(utterance.audio)
        except StreamASRError as error:
            yield Result(utterance.id, error=str(error))
            continue
        resampler = Resampler(rate)
        state = resampler.start()
        at_rate = np.concatenate([resampler.advance(state, samples), resampler.finish(state)])
        pcm = np.clip(np.round(at_rate * 32768), -32768, 32767).astype(np.int16)
        size = round(CHUNK_SECONDS * RATE)
        begin = time.process_time()
        decoder.start_utt()
        for first in range(0, len(pcm), size):
            decoder.process_raw(pcm[first : first + size].tobytes(), no_search=False, full_utt=False)
        decoder.end_utt()
        found = decoder.hyp()
        seconds = time.process_time() - begin
        yield Result(utterance.id, found.hypstr if found else "", len(samples) / rate, seconds)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("manifests", nargs="+", type=Path, metavar="MANIFEST")
    parser.add_argument("--limit", type=int, metavar="N", help="a random sample of N of each manifest")
    parser.add_argument("--model", metavar="NAME|PATH", help="of streamasr; default: the installed one")
    parser.add_argument("--systems", default="streamasr,pocketsphinx", help="default: %(default)s")
    parser.add_argument("--json", type=Path, metavar="OUT")
    options = parser.parse_args()
    systems = options.systems.split(",")
    if unknown := set(systems) - {"streamasr", "pocketsphinx"}:
        parser.error(f"unknown system: {', '.join(sorted(unknown))}")
    corpora: dict[str, dict[str, object]] = {}
    rows = [["corpus", "system", "utterances", "words", "WER %", "95 %", "CER %", "RTF"]]
    for path in options.manifests:
        utterances = manifest.sample(manifest.read(path), options.limit)
        corpora[path.stem] = {}
        for system in systems:
            run = runner.run(utterances, options.model) if system == "streamasr" else pocketsphinx(utterances)
            measured = report.summarise(utterances, {result.id: result for result in run})
            corpora[path.stem][system] = report.corpus_dict(measured, "greedy")
            words, (low, high) = measured.score.words, measured.score.interval()
            rows.append(
                [
                    path.stem,
                    system,
                    str(len(measured.score.utterances)),
                    str(words.reference),
                    f"{100 * words.rate:.2f}",
                    f"{100 * low:.1f}-{100 * high:.1f}",
                    f"{100 * measured.score.characters.rate:.2f}",
                    "-" if measured.rtf is None else f"{measured.rtf:.3f}",
                ]
            )
            print("  ".join(rows[-1]), file=sys.stderr, flush=True)
            for failure in measured.failed:
                print(f"{path.stem}: {system}: {failure.id}: {failure.error}", file=sys.stderr)
            if options.json is not None:  # after every corpus: a long run may be cut short
                options.json.write_text(
                    json.dumps({"corpora": corpora, "limit": options.limit}, indent=2) + "\n"
                )
    print(report.columns(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
