"""Foreign implementations that tests compare with, imported so that warnings and missing parts do no harm."""

from __future__ import annotations

import importlib
import sys
import types
import warnings
from typing import Any

import pytest


def load_torchaudio() -> Any:
    """The package torchaudio, or a skip with the reason.

    Its wheels carry a native library for CUDA, and importing the package beside a CPU build of torch
    fails with OSError. The parts that are compared with here are pure Python: they work when a
    stand-in says that there is no native library.
    """
    try:
        return _load("torchaudio")
    except (ImportError, OSError):
        pass
    for name in [name for name in sys.modules if name.split(".")[0] == "torchaudio"]:
        del sys.modules[name]
    absent: Any = types.ModuleType("torchaudio._extension")
    absent._IS_TORCHAUDIO_EXT_AVAILABLE = False
    absent._IS_ALIGN_AVAILABLE = False
    absent.fail_if_no_align = lambda function: function
    sys.modules[absent.__name__] = absent
    try:
        return _load("torchaudio")
    except (ImportError, OSError, AttributeError) as error:
        pytest.skip(f"torchaudio does not load beside this torch: {error}")


def load(name: str) -> Any:
    """The module `name`, or a skip with the reason."""
    try:
        return _load(name)
    except (ImportError, OSError) as error:
        pytest.skip(f"{name} does not load: {error}")


def _load(name: str) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # theirs, not ours
        return importlib.import_module(name)
