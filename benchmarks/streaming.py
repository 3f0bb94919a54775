"""Speed and memory of one stream on one thread, as Markdown.

    python benchmarks/streaming.py [FILE...] [--minutes 10] [--chunk 0.1] [--model NAME|PATH]

The recordings (default: those of the demo) are played one after the other, again and again, into one
stream. Time is that of the clock on the wall, taken around every `accept`; decoding of files is left
out. The first second is not counted: caches are cold, memory is still being asked for.
"""

from __future__ import annotations

import os

# Read by the BLAS libraries when NumPy is imported.
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"):
    os.environ[_name] = "1"

import argparse  # noqa: E402
import itertools  # noqa: E402
import platform  # noqa: E402
import sys  # noqa: E402
import time  # noqa: E402
from collections.abc import Iterator  # noqa: E402
from pathlib import Path  # noqa: E402

import numpy as np  # noqa: E402
from numpy.typing import NDArray  # noqa: E402

import streamasr  # noqa: E402
from streamasr import audio  # noqa: E402
from streamasr.errors import StreamASRError  # noqa: E402

SAMPLES = Path(__file__).parents[1] / "demo" / "samples"
WARM_UP_SECONDS = 1.0
CROWD, CROWD_CHUNKS = 200, 20


def chunks(files: list[Path], seconds: float) -> tuple[int, Iterator[NDArray[np.float32]]]:
    """Recordings of one sample rate -> (that rate in Hz, endless chunks of `seconds`)."""
    read = [audio.read(path) for path in files]
    rates = {rate for _, rate in read}
    if len(rates) != 1:
        sys.exit(f"recordings of one sample rate, please, not {sorted(rates)}")
    rate = rates.pop()
    sound = np.concatenate([samples for samples, _ in read])
    size = max(1, round(seconds * rate))
    whole = sound[: len(sound) // size * size].reshape(-1, size)
    if not len(whole):
        sys.exit("the recordings are shorter than one chunk")
    return rate, itertools.cycle(whole)


def memory() -> float | None:
    """Resident memory of this process in MB, None where the system does not say."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, IndexError, ValueError):
        return None
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def megabytes(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f} MB"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("files", nargs="*", type=Path, metavar="FILE", help="default: demo/samples/*.flac")
    parser.add_argument("--minutes", type=float, default=10.0, help="of sound; default: %(default)s")
    parser.add_argument("--chunk", type=float, default=0.1, help="seconds; default: %(default)s")
    parser.add_argument("--model", metavar="NAME|PATH", help="default: the installed one")
    options = parser.parse_args()
    recognizer = streamasr.load(options.model) if options.model else streamasr.load()
    rate, sound = chunks(options.files or sorted(SAMPLES.glob("*.flac")), options.chunk)
    stream = recognizer.stream(sample_rate=rate)
    while stream.time < WARM_UP_SECONDS:
        stream.accept(next(sound))
    count = max(1, round(60 * options.minutes / options.chunk))
    times = np.empty(count)
    start_memory, start_state = memory(), len(stream.snapshot())
    for i in range(count):
        chunk = next(sound)
        begin = time.perf_counter()
        stream.accept(chunk)
        times[i] = time.perf_counter() - begin
    end_memory, end_state = memory(), len(stream.snapshot())
    begin = time.perf_counter()
    stream.finish()
    finish = time.perf_counter() - begin
    before = memory()
    crowd = [recognizer.stream(sample_rate=rate) for _ in range(CROWD)]
    begin = time.process_time()
    for _ in range(CROWD_CHUNKS):
        recognizer.accept_batch(crowd, [next(sound) for _ in crowd])
    batched = (time.process_time() - begin) / (CROWD_CHUNKS * CROWD * options.chunk)
    after = memory()
    info = recognizer.info
    p50, p95, p99 = 1000 * np.quantile(times, (0.5, 0.95, 0.99))
    rows = [
        ("model", f"{info['name']}, {info['parameters']:,} parameters, {info['size_bytes'] / 1e6:.1f} MB"),
        ("sound", f"{options.minutes:g} minutes at {rate} Hz in chunks of {1000 * options.chunk:g} ms"),
        ("real-time factor", f"{times.sum() / (count * options.chunk):.4f}"),
        (
            "time per chunk",
            f"p50 {p50:.2f} ms, p95 {p95:.2f} ms, p99 {p99:.2f} ms, max {1000 * times.max():.1f} ms",
        ),
        ("time of finish", f"{1000 * finish:.1f} ms"),
        ("algorithmic latency", f"{1000 * info['latency_seconds']['total']:.0f} ms"),
        ("memory at start, end", f"{megabytes(start_memory)}, {megabytes(end_memory)}"),
        ("state at start, end", f"{start_state / 1000:.1f} kB, {end_state / 1000:.1f} kB"),
        (f"memory, {CROWD} streams more", megabytes(after and before and after - before)),
        ("their real-time factor, each", f"{batched:.4f}, in one batch"),
        ("machine", f"{processor()}, one thread"),
        ("versions", f"Python {platform.python_version()}, NumPy {np.__version__}, {platform.system()}"),
    ]
    print("| | |\n| --- | --- |")
    for name, value in rows:
        print(f"| {name} | {value} |")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except StreamASRError as error:
        sys.exit(str(error))
