"""Speed of training, as Markdown: one layer beside torch's, then whole updates of the English model.

    python benchmarks/training.py [CONFIG ...] [--quick] > training.md

CONFIG: other models than that of configs/en.toml, beside it.

Variants take turns, so that whatever else the machine does hits all of them; the minimum is the best
estimate of a quiet machine, the median says how quiet it was. Rates of a layer count the products only,
6 T B 4H (I + H) FLOP forward and backward, so the norms, gates and cells look like waste.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import nn

from streamasr.features import FeatureConfig
from streamasr.train import config
from streamasr.train.ctc import ctc_loss
from streamasr.train.lnlstm import RecurrentLayer
from streamasr.train.model import AcousticModel

CONFIG = Path(__file__).parents[1] / "configs" / "en.toml"
TOKENS, PHONES = 29, 40  # a-z, apostrophe, space, blank; 39 phones of English and the blank

Work = Callable[[], object]


def interleaved(variants: dict[str, Work], rounds: int) -> dict[str, list[float]]:
    """Seconds of every round of every variant, after one run each that does not count (compilation)."""
    for work in variants.values():
        work()
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(rounds):
        for name, work in variants.items():
            started = time.perf_counter()
            work()
            seconds[name].append(time.perf_counter() - started)
    return seconds


def machine() -> str:
    name = platform.processor() or platform.machine()
    try:
        with open("/proc/cpuinfo") as file:
            name = next(line.split(":", 1)[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    threads = torch.get_num_threads()
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
    return (
        f"{name}, {os.cpu_count()} cores, {threads} threads used, load {load:.1f}; {platform.system()}, "
        f"Python {platform.python_version()}, torch {torch.__version__}; {time.strftime('%Y-%m-%d')}"
    )


def product(dtype: torch.dtype, rows: int) -> tuple[Work, float]:
    """A product of the shape of a layer's input product, and its FLOP."""
    x, w = torch.randn(rows, 512).to(dtype), torch.randn(2048, 512).to(dtype)
    out = torch.empty(rows, 2048, dtype=dtype)  # a fresh one would measure page faults
    return (lambda: torch.mm(x, w.t(), out=out)), 2.0 * rows * 512 * 2048


def layer(kind: str, steps: int, batch: int, units: int) -> Work:
    """Forward and backward of one layer; the input needs its gradient, as inside a stack."""
    dtype = torch.bfloat16 if kind.endswith("bfloat16") else torch.float32
    x = torch.randn(steps, batch, units).to(dtype).requires_grad_()
    pull = torch.randn(steps, batch, units).to(dtype)
    module: nn.Module
    if kind.startswith("nn.LSTM"):
        module = nn.LSTM(units, units).to(dtype)
    else:
        cell, norm = kind.split()[:2]
        module = RecurrentLayer(units, units, cell, norm)
        module.compute_dtype = dtype
        if "loop" in kind:
            module._kernel = module._loop  # type: ignore[method-assign]

    def work() -> None:
        x.grad = None
        module.zero_grad()
        module(x)[0].backward(pull)

    return work


def layers(quick: bool) -> None:
    steps, batch, units = (20, 8, 64) if quick else (200, 32, 512)
    flop = 6.0 * steps * batch * 4 * units * (2 * units)
    peaks = {}
    for name, dtype in (("bfloat16", torch.bfloat16), ("float32", torch.float32)):
        work, count = product(dtype, 256 if quick else 12_800)
        seconds = interleaved({name: work}, 5 if quick else 20)[name]
        peaks[name] = count / min(seconds) / 1e9
    print(
        f"Large matrix products: bfloat16 {peaks['bfloat16']:.0f}, float32 {peaks['float32']:.0f} GFLOP/s.\n"
    )
    kinds = [
        "lstm joint kernel bfloat16", "lstm separate kernel bfloat16", "lstm none kernel bfloat16",
        "lstm joint kernel float32", "nn.LSTM (no norm) bfloat16", "nn.LSTM (no norm) float32",
        "lstm joint loop float32", "gru joint kernel bfloat16", "rnn joint kernel bfloat16",
    ]  # fmt: skip
    timings = interleaved({kind: layer(kind, steps, batch, units) for kind in kinds}, 2 if quick else 7)
    ours = min(timings[kinds[0]])
    print(f"One layer, forward and backward, T = {steps}, B = {batch}, I = H = {units}:\n")
    print("| variant | minimum, ms | median, ms | GFLOP/s | of the product's rate | time, of the first |")
    print("| --- | --- | --- | --- | --- | --- |")
    for kind, seconds in timings.items():
        gates = {"gru": 3 / 4, "rnn": 1 / 4}.get(kind.split()[0], 1.0)
        rate = flop * gates / min(seconds) / 1e9
        share = rate / peaks["bfloat16" if kind.endswith("bfloat16") else "float32"]
        print(
            f"| {kind} | {1e3 * min(seconds):.0f} | {1e3 * statistics.median(seconds):.0f} "
            f"| {rate:.0f} | {100 * share:.0f} % | {min(seconds) / ours:.1f} |"
        )


def updates(path: Path, quick: bool) -> None:
    """Forward, both losses, backward, clipping, AdamW, as the loop does them, on random frames."""
    settings = config.read(path, ["model.hidden=32", "model.channels=4"] if quick else [])
    rows, seconds_each = (2, 2.0) if quick else (30, 8.0)
    k = settings.model.frames_per_step
    count = int(seconds_each * 100) // k * k
    random = np.random.default_rng(0)
    frames = torch.randn(rows, count, FeatureConfig().mel_bands)
    lengths = torch.full((rows,), count)
    tokens = [random.integers(1, TOKENS, int(14 * seconds_each)) for _ in range(rows)]  # 14 letters a second
    phones = [random.integers(1, PHONES, int(11 * seconds_each)) for _ in range(rows)]
    variants: dict[str, Work] = {}
    sizes = {}
    for name in ("bfloat16", "float32"):
        model = AcousticModel(settings.model, frames.shape[2], TOKENS, PHONES, name)
        optimiser = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)
        sizes[name] = sum(p.numel() for p in model.parameters())

        def work(model: AcousticModel = model, optimiser: torch.optim.Optimizer = optimiser) -> None:
            optimiser.zero_grad(set_to_none=True)
            out = model(frames, lengths)
            loss = ctc_loss(out.logits, tokens, out.steps).mean()
            if out.phone_logits is not None:
                loss = (
                    loss + settings.train.phone_weight * ctc_loss(out.phone_logits, phones, out.steps).mean()
                )
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), settings.optimiser.clip_norm)
            optimiser.step()

        variants[name] = work
    timings = interleaved(variants, 2 if quick else 5)
    m = settings.model
    print(
        f"\nWhole updates of the model of `configs/{path.name}` ({m.layers} x {m.hidden} "
        f"{m.cell.upper()}, norm {m.norm}, {sizes['bfloat16'] / 1e6:.1f} M parameters), {rows} utterances of "
        f"{seconds_each:.0f} s a batch, random data, augmentation not counted:\n"
    )
    print("| products | minimum, s | median, s | speech per second |")
    print("| --- | --- | --- | --- |")
    for name, seconds in timings.items():
        speed = rows * seconds_each / min(seconds)
        print(f"| {name} | {min(seconds):.2f} | {statistics.median(seconds):.2f} | {speed:.0f} s |")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("configs", nargs="*", type=Path, metavar="CONFIG")
    parser.add_argument(
        "--quick", action="store_true", help="tiny sizes: checks that it runs, measures nothing"
    )
    options = parser.parse_args()
    torch.manual_seed(0)
    print(f"## Training speed\n\n{machine()}\n")
    layers(options.quick)
    for path in dict.fromkeys([CONFIG, *(path.resolve() for path in options.configs)]):
        updates(path, options.quick)


if __name__ == "__main__":
    main()
