"""safetensors file <-> tensors (https://github.com/huggingface/safetensors).

    uint64 header size, little-endian as everything here
    header    JSON {name: {"dtype", "shape", "data_offsets": [begin, end]}, "__metadata__": ignored}
    values    which the offsets must cover without hole or overlap

Our own reader, because a model must load with NumPy alone, and because what is wrong with a file
must be said in terms of its tensors.
"""

from __future__ import annotations

import json
import math
import mmap
import os
import struct
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import ModelError

# Bounds on what is believed of a header; our largest model is 60 MB.
MOST_BYTES = 4 << 30
_MOST_HEADER_BYTES = 16 << 20
_MOST_AXES = 4
_MOST_TEXT_BYTES = 64 << 20  # unpacked: some six million words
_DTYPES: dict[str, np.dtype[Any]] = {
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "I32": np.dtype("<i4"),
    "U16": np.dtype("<u2"),
    "U8": np.dtype("u1"),
    "I8": np.dtype("i1"),
}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}
_FLOATS = ("F32", "F16")
# What the scales of an int8 tensor's rows are called: its own name, and this.
_SCALE = ".scale"


def parse(content: bytes, where: str) -> dict[str, NDArray[np.float32]]:
    """safetensors file of numbers that stand for floats -> float32 tensors.

    An int8 tensor is multiplied with "<name>.scale", one number a row. Raises ModelError naming `where` and
    the tensor.
    """
    tensors = views(content, where)
    floats: dict[str, NDArray[np.float32]] = {}
    for name, tensor in tensors.items():
        dtype = _NAMES[tensor.dtype]
        if dtype in _FLOATS:
            floats[name] = tensor.astype(np.float32)
        elif dtype != "I8":
            raise ModelError(f"{where}: {name}: dtype {dtype!r}, must be F32, F16 or I8")
    for name, tensor in tensors.items():
        if tensor.dtype == np.int8:
            scale = floats.pop(name + _SCALE, None)
            if scale is None or scale.shape != tensor.shape[:1]:
                raise ModelError(f"{where}: {name}: int8 needs {name}{_SCALE}, one number for each row")
            rows = scale.reshape(-1, *[1] * (tensor.ndim - 1))
            with np.errstate(invalid="ignore", over="ignore"):  # what is not finite is refused by its name
                floats[name] = tensor * rows
    return floats


def quantised(name: str, tensor: NDArray[np.floating[Any]]) -> dict[str, NDArray[Any]]:
    """Tensor -> its int8 form: each row as multiples, -127 to 127, of a 127th of its largest magnitude."""
    rows = tensor.reshape(len(tensor), -1).astype(np.float32)
    scale = np.abs(rows).max(1, initial=0.0) / np.float32(127)
    steps = np.rint(rows / np.where(scale > 0, scale, 1)[:, None])
    return {name: steps.astype(np.int8).reshape(tensor.shape), name + _SCALE: scale.astype(np.float32)}


def mapped(path: str | os.PathLike[str]) -> dict[str, NDArray[Any]]:
    """safetensors file -> read-only tensors in the file's own memory: processes share it, nothing is copied.

    Raises ModelError naming the file and the tensor.
    """
    try:
        with open(path, "rb") as file:
            content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError) as error:  # ValueError: an empty file
        raise ModelError(f"{os.fspath(path)}: cannot be read: {error}") from None
    return views(content, os.fspath(path))


def views(content: bytes | mmap.mmap, where: str) -> dict[str, NDArray[Any]]:
    """safetensors file -> tensors as stored, read-only views of it. Raises ModelError."""
    if len(content) < 8:
        raise ModelError(f"{where}: {len(content)} bytes are not a safetensors file; was it cut off?")
    size = struct.unpack_from("<Q", content)[0]
    if size > min(len(content) - 8, _MOST_HEADER_BYTES):
        raise ModelError(f"{where}: header of {size} bytes in a file of {len(content)}; was it cut off?")
    try:
        header = json.loads(content[8 : 8 + size], object_pairs_hook=_no_duplicates)
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{where}: the header is not JSON: {error}") from None
    if not isinstance(header, dict):
        raise ModelError(f"{where}: the header is not a JSON object")
    header.pop("__metadata__", None)
    values = memoryview(content)[8 + size :]
    entries = [(name, *_entry(entry, f"{where}: {name}")) for name, entry in header.items()]
    tensors: dict[str, NDArray[Any]] = {}
    position = 0
    for name, dtype, shape, (begin, end) in sorted(entries, key=lambda entry: entry[3]):
        if begin != position:
            raise ModelError(f"{where}: {name} begins at byte {begin}, must begin at {position}")
        if end - begin != math.prod(shape) * dtype.itemsize or end > len(values):
            raise ModelError(
                f"{where}: {name} {list(shape)} ends at byte {end} of {len(values)}; was the file cut off?"
            )
        tensors[name] = np.frombuffer(values[begin:end], dtype).reshape(shape)
        position = end
    if position != len(values):
        raise ModelError(f"{where}: {len(values) - position} bytes belong to no tensor")
    return tensors


def render(tensors: Mapping[str, NDArray[Any]]) -> bytes:
    """Tensors -> safetensors file, in the order of their names within one size of number.

    The widest numbers come first, so that all are aligned where the file is mapped.
    """
    header, parts, position = {}, [], 0
    for name, tensor in sorted(tensors.items(), key=lambda item: (-item[1].dtype.itemsize, item[0])):
        dtype = _NAMES[tensor.dtype.newbyteorder("<")]
        parts.append(np.ascontiguousarray(tensor, _DTYPES[dtype]).tobytes())
        end = position + len(parts[-1])
        header[name] = {"dtype": dtype, "shape": list(tensor.shape), "data_offsets": [position, end]}
        position = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the values begin at a multiple of 8, as the format recommends
    return b"".join([struct.pack("<Q", len(text)), text, *parts])


def text_tensor(words: Sequence[str]) -> NDArray[np.uint8]:
    """Words -> UTF-8 bytes, one word a line, packed by zlib (to half)."""
    return np.frombuffer(zlib.compress("\n".join(words).encode(), 9), np.uint8)


def tensor_text(tensor: NDArray[Any] | None, where: str) -> list[str]:
    """The way back. Raises ModelError."""
    if tensor is None or tensor.dtype != np.uint8 or tensor.ndim != 1:
        raise ModelError(f"{where}: holds no list of words")
    unpacker = zlib.decompressobj()
    try:
        text = unpacker.decompress(tensor.tobytes(), _MOST_TEXT_BYTES)
        if not unpacker.eof or unpacker.unused_data:
            raise ModelError(f"{where}: the list of words is cut off or above {_MOST_TEXT_BYTES:,} bytes")
        return text.decode().split("\n") if text else []
    except (zlib.error, UnicodeDecodeError) as error:
        raise ModelError(f"{where}: the list of words cannot be read: {error}") from None


def _entry(entry: Any, where: str) -> tuple[np.dtype[Any], tuple[int, ...], tuple[int, int]]:
    """One tensor of the header -> dtype, shape, (begin, end)."""
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise ModelError(f"{where}: needs dtype, shape and data_offsets, not {str(entry)[:60]}")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in _DTYPES:
        raise ModelError(f"{where}: dtype {dtype!r}, must be {' or '.join(_DTYPES)}")
    for key, numbers in (("shape", shape), ("data_offsets", offsets)):
        if not isinstance(numbers, list) or not all(type(n) is int and 0 <= n <= MOST_BYTES for n in numbers):
            raise ModelError(f"{where}: {key} is {str(numbers)[:60]}")
    if len(shape) > _MOST_AXES or len(offsets) != 2:
        raise ModelError(f"{where}: {len(shape)} axes (at most {_MOST_AXES}), {len(offsets)} offsets (2)")
    return _DTYPES[dtype], tuple(shape), (offsets[0], offsets[1])


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({key for key, _ in pairs}) != len(pairs):
        raise ValueError("a name occurs twice")
    return dict(pairs)
