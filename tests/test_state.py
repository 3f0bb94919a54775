from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from streamasr import state
from streamasr.errors import SnapshotError


@dataclass(slots=True)
class Inner:
    h: np.ndarray[Any, Any]
    texts: list[str]


@dataclass(slots=True)
class Outer:
    count: int
    rate: float
    name: str
    tail: np.ndarray[Any, Any]
    inner: Inner
    pairs: list[Inner]
    numbers: tuple[int, ...]


def fresh() -> Outer:
    def inner() -> Inner:
        return Inner(np.zeros((2, 3), np.float32), [])

    return Outer(0, 0.5, "x", np.zeros(0, np.float32), inner(), [inner(), inner()], (1, 2))


def used() -> Outer:
    outer = fresh()
    outer.count, outer.tail = 7, np.arange(5, dtype=np.float32)
    outer.inner.texts = ["so", "it"]
    outer.pairs[1].h[:] = 3.0
    return outer


def test_round_trip() -> None:
    packed = state.pack(used())
    assert set(packed) == {
        *("count", "rate", "name", "tail", "inner.h", "inner.texts", "numbers"),
        *("pairs.0.h", "pairs.0.texts", "pairs.1.h", "pairs.1.texts"),
    }
    again = state.unpack(fresh(), packed)
    assert str(state.pack(again)) == str(packed)
    assert type(again) is Outer and type(again.numbers) is tuple


def test_copy_shares_nothing() -> None:
    one = used()
    two = state.copy(one)
    two.tail[:] = -1
    two.inner.texts.append("is")
    two.pairs[0].h[:] = -1
    assert str(state.pack(one)) == str(state.pack(used()))


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("count", 1.0, "count is float, not int"),
        ("count", True, "count is bool, not int"),
        ("name", 3, "name is int, not str"),
        ("tail", np.zeros(3, np.float64), "tail is float64"),
        ("tail", np.zeros((3, 1), np.float32), "tail is float32"),
        ("inner.h", np.zeros((1, 3), np.float32), "inner.h is float32"),
        ("inner.h", [1, 2], "inner.h is list"),
        ("inner.texts", ["so", 3], "inner.texts holds 3"),
        ("inner.texts", "so", "inner.texts is not a list"),
        ("numbers", [1, 2, 3], "numbers is not a list of the expected length"),
        ("new", 1, "no stage knows: new"),
    ],
)
def test_what_does_not_fit_is_refused(name: str, value: Any, message: str) -> None:
    with pytest.raises(SnapshotError, match=message):
        state.unpack(fresh(), {**state.pack(used()), name: value})


def test_missing_is_refused() -> None:
    packed = state.pack(used())
    del packed["inner.h"]
    with pytest.raises(SnapshotError, match=r"lacks inner\.h"):
        state.unpack(fresh(), packed)


def test_only_plain_values() -> None:
    outer = used()
    outer.count = np.int64(3)  # type: ignore[assignment]
    for function in (state.pack, state.copy):
        with pytest.raises(TypeError, match="int64"):
            function(outer)
