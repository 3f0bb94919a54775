"""Stage protocol, and what can be done with any stage's state: copy, pack, unpack.

A state is a slotted dataclass of NumPy arrays, ints, floats, strings, and lists or tuples of those,
or of other states. Packed, it is one flat dictionary

    {"encoder.h": array, "search.texts": ["so", "it"], "heard": 16000, ...}

that holds arrays and JSON values only. A fresh state of the same stage is the template that says
what a packed one must look like: same names, same types, same dtypes, same shapes. Only what waits
or grows may have another length: an array of one dimension, and an axis or a list that is empty in
the fresh state.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any, Protocol, TypeVar, get_args, get_origin, get_type_hints

import numpy as np
from numpy.typing import NDArray

from .errors import SnapshotError

S = TypeVar("S")
X = TypeVar("X", contravariant=True)
Y = TypeVar("Y", covariant=True)
T = TypeVar("T")

_SCALARS = (bool, int, float, str)


class Stage(Protocol[S, X, Y]):
    """x -> y with memory. The stage is shared and never changes; `state` belongs to one stream."""

    def start(self) -> S: ...

    def advance(self, state: S, x: X, /) -> Y:
        """What x brings; y may be empty. Changes `state`, keeps no view of x."""
        ...

    def finish(self, state: S) -> Y:
        """What is still owed. The state is at its end."""
        ...


def copy(state: T) -> T:
    """State -> equal state that shares no array or list with it."""
    value: Any = state
    if isinstance(value, np.ndarray):
        return value.copy()  # type: ignore[return-value]
    if isinstance(value, list | tuple):
        return type(value)(copy(item) for item in value)  # type: ignore[return-value]
    if is_dataclass(value) and not isinstance(value, type):
        return type(value)(*(copy(getattr(value, field.name)) for field in fields(value)))  # type: ignore[return-value]
    _require_scalar("state", value)
    return state


def pack(state: Any) -> dict[str, Any]:
    """State -> flat dictionary of arrays and JSON values. Arrays are not copied."""
    return dict(_leaves("", state))


def _leaves(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    if is_dataclass(value) and not isinstance(value, type):
        for field in fields(value):
            yield from _leaves(f"{name}.{field.name}" if name else field.name, getattr(value, field.name))
    elif isinstance(value, list | tuple) and not all(isinstance(item, _SCALARS) for item in value):
        for index, item in enumerate(value):
            yield from _leaves(f"{name}.{index}", item)
    elif isinstance(value, list | tuple):
        yield name, list(value)
    else:
        if not isinstance(value, np.ndarray):
            _require_scalar(name, value)
        yield name, value


def unpack(template: T, packed: dict[str, Any]) -> T:
    """Packed state -> state like `template`, a fresh state of the same stage.

    Raises SnapshotError when a name is missing or unknown, or a value does not fit the template.
    """
    left = dict(packed)
    state = _build("", template, None, left)
    if left:
        raise SnapshotError(f"the snapshot holds values that no stage knows: {', '.join(sorted(left))}")
    return state  # type: ignore[no-any-return]


def _build(name: str, template: Any, hint: Any, left: dict[str, Any]) -> Any:
    """One value of the state; takes what it used out of `left`. `hint` is the field's declared type."""
    if is_dataclass(template) and not isinstance(template, type):
        hints = get_type_hints(type(template))
        return type(template)(
            *(
                _build(
                    f"{name}.{field.name}" if name else field.name,
                    getattr(template, field.name),
                    hints[field.name],
                    left,
                )
                for field in fields(template)
            )
        )
    if isinstance(template, list | tuple) and not all(isinstance(item, _SCALARS) for item in template):
        return type(template)(
            _build(f"{name}.{index}", item, None, left) for index, item in enumerate(template)
        )
    if name not in left:
        raise SnapshotError(f"the snapshot lacks {name}")
    value = left.pop(name)
    if isinstance(template, np.ndarray):
        return _array(name, template, value)
    if isinstance(template, list | tuple):
        if not isinstance(value, list) or (template and len(value) != len(template)):
            raise SnapshotError(f"the snapshot's {name} is not a list of the expected length")
        kind = get_args(hint)[0] if get_origin(hint) in (list, tuple) else None
        for item in value:
            if type(item) is not kind if kind in _SCALARS else not isinstance(item, _SCALARS):
                raise SnapshotError(f"the snapshot's {name} holds {item!r}")
        return type(template)(value)
    if type(value) is not type(template):
        raise SnapshotError(f"the snapshot's {name} is {type(value).__name__}, not {type(template).__name__}")
    return value


def _array(name: str, template: NDArray[Any], value: Any) -> NDArray[Any]:
    fits = (
        isinstance(value, np.ndarray)
        and value.dtype == template.dtype
        and value.ndim == template.ndim
        and (
            template.ndim == 1
            or all(want in (0, has) for want, has in zip(template.shape, value.shape, strict=True))
        )
    )
    if not fits:
        has = f"{value.dtype} {value.shape}" if isinstance(value, np.ndarray) else type(value).__name__
        raise SnapshotError(f"the snapshot's {name} is {has}, not {template.dtype} {template.shape}")
    return np.array(value)


def _require_scalar(name: str, value: Any) -> None:
    # Exact types: a NumPy scalar or None would not survive the way through JSON.
    if type(value) not in _SCALARS:
        raise TypeError(f"{name}: a state holds arrays, numbers and text, not {type(value).__name__}")
