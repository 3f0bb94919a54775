from __future__ import annotations

import json
import struct
import zipfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from strategies import JOINT, PLAIN, random_model, thorough

import streamasr
from streamasr import modelfile, tensorfile
from streamasr.cli.main import main
from streamasr.encoder import EncoderConfig
from streamasr.errors import ConfigError, ModelError

SMALL = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.ones(3, np.float16)}
SMALL_BYTES = tensorfile.render(SMALL)


def safetensors_bytes(header: Any, values: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + values


# --- safetensors, against the package of that name


def test_reads_what_safetensors_writes() -> None:
    found = tensorfile.parse(safetensors.numpy.save(SMALL, {"made": "by hand"}), "x")
    assert found.keys() == SMALL.keys()
    for name, tensor in SMALL.items():
        assert found[name].dtype == np.float32
        np.testing.assert_array_equal(found[name], tensor)


def test_safetensors_reads_what_we_write() -> None:
    found = safetensors.numpy.load(SMALL_BYTES)
    for name, tensor in SMALL.items():
        assert found[name].dtype == tensor.dtype
        np.testing.assert_array_equal(found[name], tensor)


def entry(dtype: Any = "F32", shape: Any = (2,), offsets: Any = (0, 8)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "0 bytes"),
        (struct.pack("<Q", 1 << 60) + b"{}", "header of"),
        (safetensors_bytes(b"{nonsense"), "not JSON"),
        (safetensors_bytes(b"\xff\xfe{}"), "not JSON"),
        (safetensors_bytes(b"[" * 100_000), "not JSON"),
        (safetensors_bytes([1]), "not a JSON object"),
        (safetensors_bytes(b'{"a": {}, "a": {}}'), "twice"),
        (safetensors_bytes({"a": 3}), "a: needs dtype"),
        (safetensors_bytes({"a": {**entry(), "more": 1}}, b"x" * 8), "a: needs dtype"),
        (safetensors_bytes({"a": entry("I64")}, b"x" * 8), "a: dtype 'I64'"),
        (safetensors_bytes({"a": entry(["F32"])}, b"x" * 8), "a: dtype"),
        (safetensors_bytes({"a": entry(shape=[-2])}, b"x" * 8), "a: shape"),
        (safetensors_bytes({"a": entry(shape=[True, 2])}, b"x" * 8), "a: shape"),
        (safetensors_bytes({"a": entry(shape=[1] * 9)}, b"x" * 4), "a: 9 axes"),
        (safetensors_bytes({"a": entry(offsets=[0, 8, 9])}, b"x" * 8), "a: 1 axes"),
        (safetensors_bytes({"a": entry(offsets=[0, 1e3])}, b"x" * 8), "a: data_offsets"),
        (safetensors_bytes({"a": entry(offsets=[8, 0])}, b"x" * 8), "a begins at byte 8"),
        (safetensors_bytes({"a": entry(offsets=[4, 12])}, b"x" * 12), "a begins at byte 4"),
        (safetensors_bytes({"a": entry(shape=[3])}, b"x" * 8), r"a \[3\] ends"),
        (safetensors_bytes({"a": entry()}, b"x" * 7), r"a \[2\] ends at byte 8 of 7"),
        (safetensors_bytes({"a": entry(), "b": entry(offsets=[4, 12])}, b"x" * 12), "b begins at byte 4"),
        (safetensors_bytes({"a": entry()}, b"x" * 9), "1 bytes belong to no tensor"),
    ],
)
def test_damaged_tensors(content: bytes, message: str) -> None:
    with pytest.raises(ModelError, match=message) as error:
        tensorfile.parse(content, "here")
    assert str(error.value).startswith("here: ")


@thorough
@given(st.integers(0, len(SMALL_BYTES) - 1), st.integers(0, 255), st.booleans())
def test_fuzzed_tensors(position: int, byte: int, cut: bool) -> None:
    """Cut, or with one byte changed: read, or refused with a ModelError; nothing else."""
    data = bytearray(SMALL_BYTES)
    data[position] = byte
    try:
        tensorfile.parse(bytes(data[:position] if cut else data), "here")
    except ModelError:
        return
    assert not cut


# --- whole models


def test_round_trip(tmp_path: Path) -> None:
    description, tensors = random_model(JOINT)
    modelfile.write(tmp_path / "m", description, tensors)
    model = modelfile.read(tmp_path / "m")
    assert model.description == description
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(model.tensors[name], tensor)
        assert not model.tensors[name].flags.writeable
    assert sorted(path.name for path in (tmp_path / "m").iterdir()) == ["model.json", "model.safetensors"]
    assert model.parameters == sum(t.size for t in tensors.values()) - 160
    assert model.size_bytes == sum(path.stat().st_size for path in (tmp_path / "m").iterdir())


def test_float16(tmp_path: Path) -> None:
    description, tensors = random_model(PLAIN)
    modelfile.write(tmp_path, description, tensors, numbers="float16")
    model = modelfile.read(tmp_path)
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(model.tensors[name], tensor.astype(np.float16).astype(np.float32))
    tensors["output.bias"][0] = 1e6
    with pytest.raises(ModelError, match=r"output\.bias holds NaN or infinity"):
        modelfile.write(tmp_path, description, tensors, numbers="float16")


def test_zip_equals_directory(tmp_path: Path) -> None:
    description, tensors = random_model(JOINT)
    modelfile.write(tmp_path / "m", description, tensors)
    modelfile.write(tmp_path / "m.zip", description, tensors)
    with zipfile.ZipFile(tmp_path / "folder.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for path in (tmp_path / "m").iterdir():
            archive.write(path, f"m/{path.name}")
    fingerprints = {modelfile.read(tmp_path / name).fingerprint for name in ("m", "m.zip", "folder.zip")}
    assert len(fingerprints) == 1
    other = modelfile.Description(**{**vars(description), "licence": "other"})
    modelfile.write(tmp_path / "m", other, tensors)
    assert modelfile.read(tmp_path / "m").fingerprint not in fingerprints


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["../model.json"], "named '../model.json'"),
        (["/model.json"], "named '/model.json'"),
        (["a\\model.json"], "named"),
        (["model.json"], "no model.safetensors"),
        (["a/model.json", "b/model.json"], "model.json twice"),
        ([], "no model.json"),
    ],
)
def test_bad_zips(tmp_path: Path, names: list[str], message: str) -> None:
    with zipfile.ZipFile(tmp_path / "m.zip", "w") as archive:
        for name in names:
            archive.writestr(zipfile.ZipInfo(name), "{}")
    with pytest.raises(ModelError, match=message):
        modelfile.read(tmp_path / "m.zip")


def test_damaged_zip(tmp_path: Path) -> None:
    modelfile.write(tmp_path / "m.zip", *random_model(JOINT))
    content = (tmp_path / "m.zip").read_bytes()
    for damaged in (
        content[: len(content) // 2],
        b"PK\x03\x04" + b"x" * 50,
        content[:200] + b"!" + content[201:],
    ):
        (tmp_path / "d.zip").write_bytes(damaged)
        with pytest.raises(ModelError, match=r"d\.zip"):
            modelfile.read(tmp_path / "d.zip")


def changed(content: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    *parents, last = path.split(".")
    inner = content
    for parent in parents:
        inner = inner[parent]
    if value is None:
        del inner[last]
    else:
        inner[last] = value
    return content


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("format", 2, "format 2; this version of streamasr reads format 1"),
        ("licence", None, "lacks 'licence'"),
        ("license", "MIT", "unknown key 'license'; did you mean 'licence'"),
        ("name", 3, "name: must be str"),
        ("training", [], "training: must be dict"),
        ("features", [], "features: must be dict"),
        ("features.floor", "x", r"features\.floor: must be a finite number"),
        ("features.floor", float("inf"), r"features\.floor: must be a finite number"),
        ("features.floor", float("nan"), r"features\.floor: must be a finite number"),
        ("features.floor", 10**400, r"features\.floor: must be a finite number"),
        ("features.sample_rate", 8000, "features"),
        ("features.fft_size", 1 << 40, "fft_size"),
        ("encoder.hidden", None, "encoder: lacks 'hidden'"),
        ("encoder.hiden", 3, "did you mean 'hidden'"),
        ("encoder.hidden", 16.0, r"encoder\.hidden: must be int"),
        ("encoder.hidden", 17, r"weight_x has shape|weight_h has shape|gain has shape|bias has shape"),
        ("encoder.layers", 3, r"lacks \[layers\.2\.bias"),
        ("encoder.layers", 1 << 40, "layers must be 1 to 256"),
        ("encoder.look_ahead", 1, r"lacks \[look_ahead\.weight\]"),
        ("encoder.norm", "none", r"has unknown \[layers\.0\.cell_bias"),
        ("encoder.cell", "tree", "cell must be one of lstm, gru, rnn"),
        ("vocabulary.tokens", ["a"], "token 0"),
        ("vocabulary.tokens", ["<blank>", 3], "vocabulary.tokens: must be str"),
        ("vocabulary.kind", "phones", "phones"),
    ],
)
def test_model_json(tmp_path: Path, path: str, value: Any, message: str) -> None:
    modelfile.write(tmp_path, *random_model(JOINT))
    file = tmp_path / "model.json"
    file.write_text(json.dumps(changed(json.loads(file.read_text()), path, value)))
    with pytest.raises(ModelError, match=message) as error:
        modelfile.read(tmp_path)
    assert str(tmp_path) in str(error.value)


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff", b"[" * 100_000])
def test_model_json_that_is_none(tmp_path: Path, content: bytes) -> None:
    modelfile.write(tmp_path, *random_model(JOINT))
    (tmp_path / "model.json").write_bytes(content)
    with pytest.raises(ModelError, match=r"model\.json"):
        modelfile.read(tmp_path)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("output.bias", np.nan, r"output\.bias holds NaN"),
        ("features.std", 0.0, r"features\.std must be above 0"),
    ],
)
def test_tensor_values(tmp_path: Path, name: str, value: float, message: str) -> None:
    description, tensors = random_model(JOINT)
    modelfile.write(tmp_path, description, tensors)
    tensors[name][1] = value
    (tmp_path / "model.safetensors").write_bytes(tensorfile.render(tensors))
    with pytest.raises(ModelError, match=message):
        modelfile.read(tmp_path)
    with pytest.raises(ModelError, match=message):
        modelfile.write(tmp_path, description, tensors)


def test_missing_files(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"model\.json: cannot be read"):
        modelfile.read(tmp_path)
    (tmp_path / "x.zip").write_bytes(b"")
    with pytest.raises(ModelError, match="neither a model directory nor a readable zip"):
        modelfile.read(tmp_path / "x.zip")


def test_find(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(modelfile, "PACKAGED", tmp_path)
    with pytest.raises(ModelError, match=r"no model 'en'.*\(there are: none\)"):
        streamasr.load("en")
    modelfile.write(tmp_path / "en", *random_model(JOINT))
    assert modelfile.find("en") == tmp_path / "en"
    assert modelfile.find(str(tmp_path / "en")) == tmp_path / "en"
    assert streamasr.load().info["name"] == "tiny"
    for name in ("de", "", "../nowhere"):
        with pytest.raises(ModelError, match=r"\(there are: en\)"):
            modelfile.find(name)


def test_config_bounds() -> None:
    for field, value in [("hidden", 0), ("flush_steps", -1), ("cell", "x"), ("norm", "x")]:
        with pytest.raises(ConfigError, match=field):
            EncoderConfig(**{**asdict(JOINT), field: value})


# --- int8


def test_int8_keeps_each_row_within_half_a_step(tmp_path: Path) -> None:
    description, tensors = random_model(JOINT)
    modelfile.write(tmp_path / "f32", description, tensors)
    modelfile.write(tmp_path / "i8", description, tensors, numbers="int8")
    found = modelfile.read(tmp_path / "i8")
    assert found.description == description
    for name, tensor in tensors.items():
        if tensor.ndim == 1:
            np.testing.assert_array_equal(found.tensors[name], tensor.astype(np.float16).astype(np.float32))
            continue
        rows, kept = (t.reshape(len(t), -1) for t in (tensor, found.tensors[name]))
        assert (np.abs(rows - kept).max(1) <= np.abs(rows).max(1) / 254 * (1 + 1e-5)).all(), name
    small, large = (modelfile.read(tmp_path / kind).size_bytes for kind in ("i8", "f32"))
    assert small < 0.5 * large  # tiny tensors: the header counts


@pytest.mark.parametrize("scale", [None, np.ones(3, np.float32), np.ones((2, 1), np.float32)])
def test_int8_without_its_scale_is_refused(scale: NDArray[np.float32] | None) -> None:
    tensors: dict[str, Any] = {"w": np.ones((2, 3), np.int8)}
    if scale is not None:
        tensors["w.scale"] = scale
    with pytest.raises(ModelError, match=r"here: w: int8 needs w\.scale, one number for each row"):
        tensorfile.parse(tensorfile.render(tensors), "here")


def test_export_of_a_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    modelfile.write(tmp_path / "m", *random_model(JOINT))
    assert main(["export", str(tmp_path / "m"), str(tmp_path / "small.zip"), "--numbers", "int8"]) == 0
    assert "int8" in capsys.readouterr().out
    assert modelfile.read(tmp_path / "small.zip").description == modelfile.read(tmp_path / "m").description
    assert main(["export", str(tmp_path / "m"), str(tmp_path / "m")]) == 2
    assert "is the model itself" in capsys.readouterr().err
