"""Whoever waits for the compiler is told so, once."""

from __future__ import annotations

import pytest

from streamasr.engine import compilation_told


def test_told_once_and_only_within() -> None:
    numba = pytest.importorskip("numba")
    told: list[int] = []
    with compilation_told(lambda: told.append(1)):
        assert told == []
        successor = numba.njit(lambda x: x + 1)
        assert successor(1) == 2 and successor(1.5) == 2.5
    assert numba.njit(lambda x: x - 1)(1) == 0
    assert told == [1]
