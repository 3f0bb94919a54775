import contextlib
import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import thorough

from streamasr import snapshot
from streamasr.errors import SnapshotError

PACKED = {
    "a": np.arange(6, dtype=np.float32).reshape(2, 3),
    "b": np.zeros(0, np.int64),
    "count": 3,
    "log_prob": -0.1,
    "texts": ["so", "ça"],
}
DATA = snapshot.write("model-1", {"sample_rate": 8000}, PACKED)


def test_round_trip() -> None:
    settings, packed = snapshot.read(DATA, "model-1")
    assert settings == {"sample_rate": 8000}
    assert packed.keys() == PACKED.keys()
    for name, value in PACKED.items():
        np.testing.assert_array_equal(packed[name], value)
        assert type(packed[name]) is type(value)


def test_other_model() -> None:
    with pytest.raises(SnapshotError, match="belongs to model model-1"):
        snapshot.read(DATA, "model-2")


def test_other_version() -> None:
    data = DATA[:8] + b"\x01" + DATA[9:-32]
    with pytest.raises(SnapshotError, match="format 1"):
        snapshot.read(data + hashlib.sha256(data).digest(), "model-1")


@pytest.mark.parametrize("data", [b"", b"SASR", b"\x80\x04pickle", DATA[:40], DATA[:-1], DATA + b"x"])
def test_not_whole(data: bytes) -> None:
    with pytest.raises(SnapshotError):
        snapshot.read(data, "model-1")


def test_not_bytes() -> None:
    with pytest.raises(SnapshotError, match="not str"):
        snapshot.read("text", "model-1")  # type: ignore[arg-type]


@thorough
@given(st.integers(0, len(DATA) - 1), st.integers(1, 255))
def test_any_changed_byte_is_noticed(position: int, change: int) -> None:
    data = bytearray(DATA)
    data[position] ^= change
    with pytest.raises(SnapshotError):
        snapshot.read(bytes(data), "model-1")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"[2, 3]", b"[3, 3]"),  # more than there is
        (b"[2, 3]", b"[2, 2]"),  # less
        (b"[2, 3]", b"[-2,3]"),
        (b"[2, 3]", b"[2.,3]"),
        (b"[0]]", b"[9]]"),
        (b'"int64"', b'"int99"'),
        (b"-0.1", b" NaN"),
        (b'"model"', b'"modal"'),
    ],
)
def test_well_signed_lies(old: bytes, new: bytes) -> None:
    assert DATA.count(old) == 1
    body = DATA.replace(old, new)[:-32]
    with pytest.raises(SnapshotError):
        snapshot.read(body + hashlib.sha256(body).digest(), "model-1")


@thorough
@given(st.integers(16, len(DATA) - 33), st.binary(min_size=1, max_size=4))
def test_well_signed_nonsense_is_refused_or_read(position: int, change: bytes) -> None:
    """With a right checksum the header is still not believed: nothing but SnapshotError comes out."""
    body = DATA[:position] + change + DATA[position + len(change) : -32]
    with contextlib.suppress(SnapshotError):
        snapshot.read(body + hashlib.sha256(body).digest(), "model-1")
