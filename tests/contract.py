"""One contract, one checker: what every stage must do, whatever it computes.

    from contract import check_stage
    check_stage(LogMel(FeatureConfig()), samples)

Checks, to the bit: any chunks give the same; what came out does not depend on what comes later;
states copy, pack and unpack; streams do not disturb each other; the state does not grow.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamasr import snapshot, state


def check_stage(stage: Any, x: NDArray[Any], seed: int = 0) -> None:
    """Stage from arrays [N, ...] to arrays [M, ...]; x should give several outputs."""
    whole = _all(stage, [x])
    _check_chunks(stage, x, whole, seed)
    _check_causality(stage, x, whole)
    _check_states(stage, x, whole)
    _check_isolation(stage, x, whole)
    _check_boundedness(stage, x)


def state_bytes(value: Any) -> int:
    """Size of a state: of its arrays, and of its numbers and texts as they are packed."""
    packed = state.pack(value)
    return sum(v.nbytes if isinstance(v, np.ndarray) else len(repr(v)) for v in packed.values())


def _all(stage: Any, chunks: list[NDArray[Any]]) -> NDArray[Any]:
    s = stage.start()
    return np.concatenate([*(stage.advance(s, chunk) for chunk in chunks), stage.finish(s)])


def _check_chunks(stage: Any, x: NDArray[Any], whole: NDArray[Any], seed: int) -> None:
    rng = np.random.default_rng(seed)
    ragged = np.split(x, np.sort(rng.integers(0, len(x) + 1, 7)))
    short = x[: min(len(x), 700)]
    np.testing.assert_array_equal(_all(stage, ragged), whole)
    np.testing.assert_array_equal(_all(stage, [*short[:, None]]), _all(stage, [short]))
    # A caller may reuse its buffer: no view of it is kept.
    s, buffer, outputs = stage.start(), x[:0], []
    for chunk in ragged:
        buffer = chunk.copy()
        outputs.append(stage.advance(s, buffer).copy())
        buffer[...] = 0
    np.testing.assert_array_equal(np.concatenate([*outputs, stage.finish(s)]), whole)


def _check_causality(stage: Any, x: NDArray[Any], whole: NDArray[Any]) -> None:
    for count in (0, 1, len(x) // 3, len(x) - 1):
        early = stage.advance(stage.start(), x[:count])
        np.testing.assert_array_equal(early, whole[: len(early)])


def _check_states(stage: Any, x: NDArray[Any], whole: NDArray[Any]) -> None:
    middle = len(x) // 2
    s = stage.start()
    first = stage.advance(s, x[:middle])
    copied = state.copy(s)
    _, packed = snapshot.read(snapshot.write("m", {}, state.pack(s)), "m")
    unpacked = state.unpack(stage.start(), packed)
    for other in (s, copied, unpacked):
        rest = np.concatenate([stage.advance(other, x[middle:]), stage.finish(other)])
        np.testing.assert_array_equal(np.concatenate([first, rest]), whole)


def _check_isolation(stage: Any, x: NDArray[Any], whole: NDArray[Any]) -> None:
    a, b = stage.start(), stage.start()
    out_a, out_b = [], []
    for chunk in np.array_split(x, 4):
        out_a.append(stage.advance(a, chunk))
        out_b.append(stage.advance(b, chunk[::-1].copy()))
    np.testing.assert_array_equal(np.concatenate([*out_a, stage.finish(a)]), whole)


def _check_boundedness(stage: Any, x: NDArray[Any]) -> None:
    s = stage.start()
    sizes = []
    for _ in range(3):
        for chunk in np.array_split(x, 5):
            stage.advance(s, chunk)
            sizes.append(state_bytes(s))
    # What waits for a block comes and goes (at most one block: far below this); nothing else may.
    assert max(sizes[5:]) <= max(sizes[:5]) + 4000, sizes
