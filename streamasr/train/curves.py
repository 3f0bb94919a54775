"""Training log -> a picture of loss, learning rate and validation error."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def draw(log: list[dict[str, Any]], path: Path) -> None:
    """Three panels over updates, written as PNG. Nothing happens where matplotlib is not installed."""
    try:
        import matplotlib

        matplotlib.use("Agg")
        from matplotlib import pyplot
    except ImportError:
        return
    updates = [e for e in log if "loss" in e]
    epochs = [e for e in log if "dev" in e]
    judged = "l1" if any("l1" in score for e in epochs for score in e["dev"].values()) else "cer"
    figure, (loss, rate, error) = pyplot.subplots(3, 1, figsize=(8, 9), sharex=True, layout="constrained")
    at, ends = [e["update"] for e in updates], [e["update"] for e in epochs]
    loss.plot(at, [e["loss"] for e in updates], linewidth=0.6, label="every 20th")
    loss.plot(ends, [e["train_loss"] for e in epochs], "o-", label="mean of epoch")
    loss.set_ylabel("CTC loss per token (nats)" if judged == "cer" else "error of prediction (std)")
    loss.legend()
    rate.plot(at, [e["learning_rate"] for e in updates])
    rate.set_ylabel("learning rate")
    for name in epochs[-1]["dev"] if epochs else []:
        error.plot(ends, [100 * e["dev"][name][judged] for e in epochs], "o-", label=name)
    error.set_ylabel("dev CER (%), greedy" if judged == "cer" else "dev error of prediction (% of std)")
    error.set_xlabel("update")
    if epochs:
        error.legend()
    figure.savefig(path, dpi=100)
    pyplot.close(figure)
