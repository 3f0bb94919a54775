"""A stream's state <-> bytes.

    magic         8 bytes, b"SASRSNAP"
    version       uint32, little-endian as everything here
    header size   uint32
    header        JSON: "model" (fingerprint), "stream" (the settings it was opened with),
                  "values" (numbers, texts and lists of the packed state),
                  "arrays" [[name, dtype, shape], ...]
    arrays        raw, in the order of the header
    checksum      SHA-256 of all the above

No pickle, no code: nothing in a snapshot is run. The settings and the packed state are checked by
whoever rebuilds the stream; this file checks that the bytes are whole, of this format and of this
model. The checksum is against accidents: who can forge it can forge the words of that one stream.
"""

from __future__ import annotations

import hashlib
import json
import math
import operator
import struct
from typing import Any

import numpy as np

from .errors import SnapshotError

MAGIC = b"SASRSNAP"
VERSION = 3
_HEAD = struct.Struct("<8sII")
_CHECKSUM_BYTES = 32
_DTYPES = ("float32", "float64", "int32", "int64")


def write(fingerprint: str, stream: dict[str, Any], packed: dict[str, Any]) -> bytes:
    """Model fingerprint, JSON-able settings, packed state (`state.pack`) -> bytes."""
    arrays = {name: value for name, value in packed.items() if isinstance(value, np.ndarray)}
    header = {
        "model": fingerprint,
        "stream": stream,
        "values": {name: value for name, value in packed.items() if name not in arrays},
        "arrays": [[name, array.dtype.name, list(array.shape)] for name, array in arrays.items()],
    }
    text = json.dumps(header, allow_nan=False).encode()
    parts = [_HEAD.pack(MAGIC, VERSION, len(text)), text]
    parts += [array.astype(array.dtype.newbyteorder("<"), order="C").tobytes() for array in arrays.values()]
    body = b"".join(parts)
    return body + hashlib.sha256(body).digest()


def read(data: bytes, fingerprint: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Bytes -> (settings, packed state).

    Raises SnapshotError when the bytes are no snapshot, are cut or changed, or belong to another
    format version or another model.
    """
    if not isinstance(data, bytes | bytearray | memoryview):
        raise SnapshotError(f"a snapshot is bytes, not {type(data).__name__}")
    data = bytes(data)
    if len(data) < _HEAD.size + _CHECKSUM_BYTES or not data.startswith(MAGIC):
        raise SnapshotError(f"these {len(data)} bytes are not a streamasr snapshot, or only its beginning")
    _, version, header_bytes = _HEAD.unpack_from(data)
    if version != VERSION:
        raise SnapshotError(f"the snapshot has format {version}; this version of streamasr reads {VERSION}")
    body = data[:-_CHECKSUM_BYTES]
    if hashlib.sha256(body).digest() != data[-_CHECKSUM_BYTES:]:
        raise SnapshotError("the snapshot is damaged: its checksum does not match; was it cut or changed?")
    try:
        header = json.loads(body[_HEAD.size : _HEAD.size + header_bytes], parse_constant=_no_constant)
        model, stream, packed = header["model"], dict(header["stream"]), dict(header["values"])
        # Plain tuples, checked here, so that nothing below can meet a type it does not expect.
        arrays = [(str(n), str(d), tuple(map(operator.index, s))) for n, d, s in header["arrays"]]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise SnapshotError(f"the snapshot's header cannot be read: {error!r}") from None
    if model != fingerprint:
        raise SnapshotError(
            f"the snapshot belongs to model {str(model)[:12]}, not to this one ({fingerprint[:12]}); "
            "resume it with the model it was taken from"
        )
    position = _HEAD.size + header_bytes
    for name, dtype, shape in arrays:
        if dtype not in _DTYPES or not all(0 <= n <= len(body) for n in shape):
            raise SnapshotError(f"the snapshot's {name} has dtype {dtype} and shape {list(shape)}")
        kind = np.dtype(dtype)
        size = math.prod(shape) * kind.itemsize
        if position + size > len(body):
            raise SnapshotError(f"the snapshot ends inside {name}")
        raw = np.frombuffer(body, kind.newbyteorder("<"), math.prod(shape), position)
        packed[name] = raw.reshape(shape).astype(kind)
        position += size
    if position != len(body):
        raise SnapshotError(f"the snapshot has {len(body) - position} bytes too many")
    return stream, packed


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no number of a stream")
