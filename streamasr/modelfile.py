"""Model directory, or a zip of one <-> Model. Format: docs/design.md, Model directory (format 1).

    model.safetensors   float32, float16 or int8 with a scale for each row; read as float32
    model.json          what the tensors are
    lexicon.safetensors, lm.safetensors, g2p.safetensors    optional, for the beam search; opened when one is
    MODEL_CARD.md       for people; not read here

Files are not trusted: whatever is wrong with them, the caller gets a ModelError that names the file
and the tensor or key. Nothing in them is run.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import os
import struct
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from . import tensorfile
from .encoder import EncoderConfig
from .errors import ConfigError, ModelError
from .features import FeatureConfig
from .search.confidence import Calibration, Logistic
from .search.config import BeamConfig
from .vocabulary import Vocabulary

FORMAT = 1
PACKAGED = Path(__file__).parent / "models"
# Files of a model directory that any model with the same tokens can use.
COMPANIONS = (
    "lexicon.safetensors", "lm.safetensors", "g2p.safetensors", "lstm_lm.safetensors", "lstm_lm.json"
)  # fmt: skip
# Bounds on what is read into memory; our largest model is 60 MB.
_MOST_JSON_BYTES = 16 << 20
_MOST_FFT = 1 << 16
_MOST_OFFSET = 1.0  # seconds, of word times
_LARGEST_FLOAT = 1e30  # float32 holds it

# What zipfile meets in damaged archives; NotImplementedError is a RuntimeError.
_ZIP_ERRORS = (zipfile.BadZipFile, zlib.error, OSError, EOFError, ValueError, RuntimeError, struct.error)

T = TypeVar("T")
Tensors = dict[str, NDArray[np.float32]]


@dataclass(frozen=True)
class Description:
    """What model.json says. `training` is a free summary for people.

    "search" and "calibration" may be absent, the encoder's "mean_frames" and "mean_window", and "phones": the
    tokens of a second head, which the search with a lexicon uses.
    """

    name: str
    language: str
    licence: str
    description: str
    features: FeatureConfig
    encoder: EncoderConfig
    vocabulary: Vocabulary
    training: dict[str, Any]
    search: BeamConfig = BeamConfig()
    phones: Vocabulary | None = None
    calibration: Calibration = Calibration()

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Name and shape of every tensor of the model."""
        bands = self.features.mel_bands
        return {
            "features.mean": (bands,),
            "features.std": (bands,),
            **self.encoder.shapes(bands, len(self.vocabulary), len(self.phones) if self.phones else 0),
        }

    def to_dict(self) -> dict[str, Any]:
        """The content of model.json."""
        found = {"format": FORMAT, **asdict(self), "vocabulary": _told(self.vocabulary)}
        found["phones"] = self.phones and _told(self.phones)
        if self.phones is None:
            del found["phones"]
        if self.search == BeamConfig():
            del found["search"]
        found["calibration"] = {k: v for k, v in found["calibration"].items() if v is not None}
        if self.calibration == Calibration():
            del found["calibration"]
        return found


@dataclass(frozen=True)
class Model:
    """A model in memory. `fingerprint` is the SHA-256 of its two files, `size_bytes` their size.

    `numbers`: "int8" if its file holds such, else "float32".

    `folder` is where the files of the beam search lie, if they do; None for a zip.
    """

    description: Description
    tensors: Tensors
    fingerprint: str
    size_bytes: int
    folder: Path | None = None
    numbers: str = "float32"

    @property
    def parameters(self) -> int:
        """Numbers that were learnt; the feature statistics are not among them."""
        return sum(t.size for name, t in self.tensors.items() if not name.startswith("features."))


def packaged() -> list[str]:
    """Names of the models that came with the package."""
    return sorted(path.parent.name for path in PACKAGED.glob("*/model.json"))


def find(name_or_path: str | os.PathLike[str]) -> Path:
    """Name of a packaged model ("en"), or path of a model directory or zip -> its path.

    Raises ModelError, listing the packaged models, when there is neither.
    """
    name = os.fspath(name_or_path)
    if name in packaged():
        return PACKAGED / name
    if name and os.path.exists(name):
        return Path(name)
    names = ", ".join(packaged()) or "none"
    raise ModelError(
        f"no model {name!r}: neither a file or directory nor a packaged model (there are: {names})"
    )


def read(path: str | os.PathLike[str]) -> Model:
    """Model directory or .zip of one -> Model. Raises ModelError."""
    path = Path(path)
    if path.is_dir():
        description_bytes = _read_file(path / "model.json", _MOST_JSON_BYTES)
        tensor_bytes = _read_file(path / "model.safetensors", tensorfile.MOST_BYTES)
    else:
        description_bytes, tensor_bytes = _read_zip(path)
    description = parse_description(description_bytes, f"{path}: model.json")
    where = f"{path}: model.safetensors"
    tensors = tensorfile.parse(tensor_bytes, where)
    check_tensors(description, tensors, where)
    return _model(description, tensors, path if path.is_dir() else None, description_bytes, tensor_bytes)


def write(
    path: str | os.PathLike[str],
    description: Description,
    tensors: Mapping[str, NDArray[np.floating[Any]]],
    *,
    numbers: str = "float32",
    like: Model | None = None,
) -> None:
    """Model -> model directory, or .zip where `path` ends so. A directory's other files stay.

    `numbers`: "float32", "float16" or "int8", which is for the matrices; the rest is float16 then.
    `like`: a model with the same tokens whose search settings, calibration and, into a directory, companions
    go along. Raises ConfigError if it has others, ModelError when the tensors do not fit the description or
    do not survive float16.
    """
    path = Path(path)
    if like is not None:
        other = like.description
        if (description.vocabulary, description.phones) != (other.vocabulary, other.phones):
            raise ConfigError(
                f"{path}: its tokens are not those of the model {other.name!r}, whose lexicon is "
                "for its own; name another one with --like"
            )
        description = replace(description, search=other.search, calibration=other.calibration)
    dtype = np.float32 if numbers == "float32" else np.float16
    stored: dict[str, NDArray[Any]] = {}
    with np.errstate(over="ignore"):  # check_tensors names the tensor
        for name, tensor in tensors.items():
            if numbers == "int8" and tensor.ndim > 1:
                stored |= tensorfile.quantised(name, tensor)
            else:
                stored[name] = np.ascontiguousarray(tensor, dtype)
    check_tensors(description, tensorfile.parse(tensorfile.render(stored), str(path)), str(path))
    files = {
        "model.json": _render(description),
        "model.safetensors": tensorfile.render(stored),
    }
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in files.items():
                archive.writestr(name, content)
        return
    path.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        _replace(path / name, content)
    source = like.folder if like is not None else None
    for name in COMPANIONS:
        if source is not None and (source / name).exists():
            _replace(path / name, (source / name).read_bytes())


def write_description(path: str | os.PathLike[str], description: Description) -> None:
    """Description -> model.json of an existing model directory, whose other files stay as they are."""
    path = Path(path)
    _replace(path / "model.json", _render(description))


def parse_description(content: bytes, where: str) -> Description:
    """model.json -> Description. Raises ModelError naming `where` and the key."""
    try:
        found = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{where}: not JSON: {error}") from None
    if not isinstance(found, dict):
        raise ModelError(f"{where}: must be an object, {{...}}")
    if found.get("format") != FORMAT:
        raise ModelError(
            f"{where}: format {found.get('format')!r}; this version of streamasr reads format {FORMAT}"
        )
    keys = {field.name for field in fields(Description)} | {"format"}
    weights = {**asdict(BeamConfig()), **_object(found.pop("search", {}), f"{where}: search")}
    phones = found.pop("phones", None)
    measured = _object(found.pop("calibration", {}), f"{where}: calibration")
    _check_keys(found, keys - {"search", "phones", "calibration"}, where)
    for key in ("name", "language", "licence", "description"):
        _check_type(found[key], str, f"{where}: {key}")
    _check_type(found["training"], dict, f"{where}: training")
    try:
        features = _config(FeatureConfig, found["features"], f"{where}: features")
        shape = {"mean_frames": 0, "mean_window": 0, **_object(found["encoder"], f"{where}: encoder")}
        encoder = _config(EncoderConfig, shape, f"{where}: encoder")
        vocabulary = _vocabulary(found["vocabulary"], "characters", f"{where}: vocabulary")
        second = None if phones is None else _vocabulary(phones, "phones", f"{where}: phones")
        search = _config(BeamConfig, weights, f"{where}: search")
        calibration = _calibration(measured, f"{where}: calibration")
    except ConfigError as error:
        raise ModelError(f"{where}: {error}") from None
    if features.sample_rate != 16_000 or max(features.fft_size, features.mel_bands) > _MOST_FFT:
        raise ModelError(f"{where}: features: sample_rate must be 16000, fft_size at most {_MOST_FFT}")
    plain = {key: found[key] for key in ("name", "language", "licence", "description", "training")}
    return Description(
        **plain,
        features=features,
        encoder=encoder,
        vocabulary=vocabulary,
        search=search,
        calibration=calibration,
        phones=second,
    )


def check_tensors(description: Description, tensors: Tensors, where: str) -> None:
    """Names, shapes and finiteness against the description. Raises ModelError naming the tensor."""
    shapes = description.shapes()
    missing, extra = sorted(shapes.keys() - tensors.keys()), sorted(tensors.keys() - shapes.keys())
    if missing or extra:
        raise ModelError(
            f"{where}: lacks [{', '.join(missing)}], has unknown [{', '.join(extra)}]; "
            "does it belong to this model.json?"
        )
    for name, shape in shapes.items():
        if tensors[name].shape != shape:
            raise ModelError(f"{where}: {name} has shape {list(tensors[name].shape)}, must be {list(shape)}")
        if not np.isfinite(tensors[name]).all():
            raise ModelError(f"{where}: {name} holds NaN or infinity")
    if not (tensors["features.std"] > 0).all():
        raise ModelError(f"{where}: features.std must be above 0")


def _render(description: Description) -> bytes:
    return json.dumps(description.to_dict(), indent=1, ensure_ascii=False).encode() + b"\n"


def _replace(path: Path, content: bytes) -> None:
    """Never a half-written file under the real name."""
    part = path.with_name(f"{path.name}.part")
    part.write_bytes(content)
    os.replace(part, path)


def _model(description: Description, tensors: Tensors, folder: Path | None, *files: bytes) -> Model:
    """`files`: model.json and model.safetensors."""
    stored = tensorfile.views(files[-1], description.name).values()
    numbers = "int8" if any(tensor.dtype == np.int8 for tensor in stored) else "float32"
    digest = hashlib.sha256()
    for content in files:
        digest.update(struct.pack("<Q", len(content)))
        digest.update(content)
    for tensor in tensors.values():
        tensor.flags.writeable = False
    return Model(description, tensors, digest.hexdigest(), sum(map(len, files)), folder, numbers)


def _read_file(path: Path, most: int) -> bytes:
    try:
        size = path.stat().st_size
        if size > most:
            raise ModelError(f"{path}: {size} bytes, at most {most} can be a model's")
        return path.read_bytes()
    except OSError as error:
        reason = error.strerror or error
        raise ModelError(f"{path}: cannot be read: {reason}; is this a model directory?") from None


def _read_zip(path: Path) -> tuple[bytes, bytes]:
    """Zip of a model directory, its files at the top or in one folder -> its two files."""
    try:
        with zipfile.ZipFile(path) as archive:
            members: dict[str, str] = {}
            for name in archive.namelist():
                pure = PurePosixPath(name)
                if pure.is_absolute() or ".." in pure.parts or "\\" in name or ":" in name:
                    raise ModelError(f"{path}: holds a file named {name!r}, which no model has")
                if len(pure.parts) <= 2 and members.setdefault(pure.name, name) != name:
                    raise ModelError(f"{path}: holds {pure.name} twice; zip one model directory")
            contents = []
            wanted = {"model.json": _MOST_JSON_BYTES, "model.safetensors": tensorfile.MOST_BYTES}
            for name, most in wanted.items():
                if name not in members:
                    raise ModelError(f"{path}: holds no {name}; zip a model directory")
                with archive.open(members[name]) as file:
                    contents.append(file.read(most + 1))  # the size in a zip's header may lie
                if len(contents[-1]) > most:
                    raise ModelError(f"{path}: {name} unpacks to more than {most} bytes")
            return contents[0], contents[1]
    except ModelError:
        raise
    except _ZIP_ERRORS as error:
        raise ModelError(f"{path}: neither a model directory nor a readable zip of one: {error}") from None


def _told(vocabulary: Vocabulary) -> dict[str, Any]:
    return {"kind": vocabulary.kind, "tokens": list(vocabulary.tokens)}


def _vocabulary(found: Any, kind: str, where: str) -> Vocabulary:
    """The inverse of `_told`. Raises ModelError and ConfigError."""
    _check_type(found, dict, where)
    _check_keys(found, {"kind", "tokens"}, where)
    _check_type(found["tokens"], list, f"{where}.tokens")
    for token in found["tokens"]:
        _check_type(token, str, f"{where}.tokens")
    if found["kind"] != kind:
        raise ModelError(f"{where}.kind: must be {kind!r} here, not {found['kind']!r}")
    return Vocabulary(tuple(found["tokens"]), kind)


def _config(kind: type[T], found: Any, where: str) -> T:
    """JSON object -> frozen configuration; all keys must be there, of the fields' types."""
    _check_type(found, dict, where)
    types = {field.name: field.type for field in fields(kind)}  # type: ignore[arg-type]
    _check_keys(found, set(types), where)
    for key, value in found.items():
        expected = {"int": int, "float": float, "str": str, "bool": bool}[str(types[key])]
        if expected is not float:
            _check_type(value, expected, f"{where}.{key}")
        elif type(value) not in (int, float) or not abs(value) < _LARGEST_FLOAT:
            raise ModelError(f"{where}.{key}: must be a finite number, not {str(value)[:60]!r}")
    return kind(**found)


def _calibration(found: dict[str, Any], where: str) -> Calibration:
    offsets: dict[str, Any] = {"start_seconds": 0.0, "end_seconds": 0.0}
    searches: dict[str, Any] = dict.fromkeys({field.name for field in fields(Calibration)} - offsets.keys())
    _check_keys({**offsets, **searches, **found}, {*offsets, *searches}, where)
    for key in offsets.keys() & found.keys():
        offsets[key] = value = found[key]
        if type(value) not in (int, float) or not abs(value) <= _MOST_OFFSET:
            raise ModelError(f"{where}.{key}: must be -{_MOST_OFFSET:g} to {_MOST_OFFSET:g}, not {value!r}")
    for key in searches.keys() & found.keys():
        searches[key] = _config(Logistic, found[key], f"{where}.{key}")
    return Calibration(**offsets, **searches)


def _object(found: Any, where: str) -> dict[str, Any]:
    _check_type(found, dict, where)
    return dict(found)


def _check_keys(found: dict[str, Any], expected: set[str], where: str) -> None:
    for key in sorted(found.keys() - expected):
        near = difflib.get_close_matches(key, expected, 1)
        raise ModelError(f"{where}: unknown key {key!r}" + (f"; did you mean {near[0]!r}?" if near else ""))
    for key in sorted(expected - found.keys()):
        raise ModelError(f"{where}: lacks {key!r}")


def _check_type(value: Any, expected: type, where: str) -> None:
    if type(value) is not expected:
        raise ModelError(f"{where}: must be {expected.__name__}, not {str(value)[:60]!r}")
