"""Files that commands write: all or nothing, and known to be possible before the work starts."""

from __future__ import annotations

import os
from pathlib import Path

from ..errors import ConfigError


def make_folder(path: Path, option: str) -> None:
    """Creates the folder for the results of `option`, parents included.

    Raises: ConfigError if it cannot be created or written to.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{option}: cannot create the folder {path}: {error.strerror or error}") from error
    if not os.access(path, os.W_OK | os.X_OK):
        raise ConfigError(f"{option}: no permission to write to {path}; choose another place")


def write(path: Path, text: str) -> None:
    """Replaces the file in one step: a reader sees the old text or the new one, never half of it."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text(text, encoding="utf-8", newline="\n")
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
