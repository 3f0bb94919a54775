"""Training checkpoints: everything that the next update depends on, written atomically.

A checkpoint is not a model: it holds optimiser and position in the data too, and is read with
`weights_only=True`, so that reading one runs no code from it.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

from ..errors import ModelError

VERSION = 1


def write(path: Path, content: dict[str, Any]) -> None:
    """Write so that `path` is, at every moment, absent, the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".part")
    with temporary.open("wb") as file:
        torch.save({"version": VERSION, **content}, file)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def read(path: Path) -> dict[str, Any]:
    """Raises ModelError if the checkpoint is missing, damaged or of another version."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise ModelError(f"{path}: no such checkpoint; start without --resume") from error
    except Exception as error:  # torch's unpickler meets damage with KeyError, IndexError and many more
        reason = type(error).__name__
        raise ModelError(f"{path}: damaged checkpoint ({reason}); delete it to start anew") from error
    if not isinstance(content, dict) or content.get("version") != VERSION:
        raise ModelError(f"{path}: not a checkpoint of version {VERSION}")
    return content
