"""The arithmetic under the encoder: the same five functions in each file.

centre(frames [T, F], ...) -> (counted, background)                  one stream; running_mean.subtract
subsample(frames [2 + S k, F], columns [2, C, F/2]) -> [S, I]        one stream
recur(x [R, I], active [S], h [B, L, H], c [B, L, H]) -> [R, H]      B streams
look_ahead(ring [K + 1, H]) -> [1, H]
output(y [R, H]) -> log_probs [R, V]
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from .reference import ReferenceEngine

Array = NDArray[np.float32]


class Engine(Protocol):
    def with_head(self, weight: Array, bias: Array, /) -> Any: ...

    def centre(
        self,
        frames: Array,
        scale: Array,
        mean: NDArray[np.float64],
        counted: float,
        background: float,
        window: float,
        /,
    ) -> tuple[float, float]: ...

    def subsample(self, frames: Array, columns: Array, /) -> Array: ...

    def recur(self, x: Array, active: Any, h: Array, c: Array, /) -> Array: ...

    def look_ahead(self, ring: Array, /) -> Array: ...

    def output(self, y: Array, /) -> Array: ...


def open_engine(cell: str, norm: str, bands: int, tensors: Mapping[str, Array], numbers: str) -> Engine:
    """int8.py for int8 models of the shape it is written for, where numba is installed; else reference.py."""
    if (numbers, cell, norm) == ("int8", "lstm", "joint"):
        try:
            from .int8 import Int8Engine
        except ImportError:
            return ReferenceEngine(cell, norm, bands, tensors)
        return Int8Engine(bands, tensors)
    return ReferenceEngine(cell, norm, bands, tensors)


@contextlib.contextmanager
def compilation_told(tell: Callable[[], None]) -> Iterator[None]:
    """Calls `tell` once if numba compiles something within: on a machine's first start that takes a while."""
    try:
        from numba.core import event
    except ImportError:
        yield
        return

    class Listener(event.Listener):  # type: ignore[misc]
        told = False

        def on_start(self, _: object) -> None:
            if not self.told:
                self.told = True
                tell()

        def on_end(self, _: object) -> None:
            pass

    with event.install_listener("numba:compile", Listener()):
        yield
