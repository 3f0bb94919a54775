from __future__ import annotations

import io
import os
import sys
import threading
import wave
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from streamasr import audio
from streamasr.errors import AudioError, MissingDependency

RATE = 16000
TONE = (0.5 * np.sin(np.arange(RATE) / 20)).astype(np.float32)

# Container, encoding, largest difference from TONE: half a quantum for PCM; the lossy ones measured, twice.
ENCODINGS = {
    "u8.wav": ("WAV", "PCM_U8", 1 / 127),
    "16.wav": ("WAV", "PCM_16", 1 / 32767),
    "24.wav": ("WAV", "PCM_24", 1 / 8388607),
    "32.wav": ("WAV", "PCM_32", 1e-7),
    "float.wav": ("WAV", "FLOAT", 0.0),
    "double.wav": ("WAV", "DOUBLE", 0.0),
    "extensible.wav": ("WAVEX", "PCM_16", 1 / 32767),
    "ulaw.wav": ("WAV", "ULAW", 0.032),
    "16.flac": ("FLAC", "PCM_16", 1 / 32767),
    "24.flac": ("FLAC", "PCM_24", 1 / 8388607),
    "vorbis.ogg": ("OGG", "VORBIS", 0.05),
    "opus.ogg": ("OGG", "OPUS", 0.4),
    "mpeg.mp3": ("MP3", "MPEG_LAYER_III", 0.1),
}


def saved(folder: Path, name: str, samples: NDArray[np.floating] = TONE, rate: int = RATE) -> Path:
    container, encoding, _ = ENCODINGS[name]
    path = folder / name
    soundfile.write(path, samples, rate, format=container, subtype=encoding)
    return path


def damaged(folder: Path, name: str, at: int, content: bytes) -> Path:
    """The 16-bit WAV file with the header bytes from `at` replaced."""
    path = saved(folder, "16.wav")
    whole = bytearray(path.read_bytes())
    whole[at : at + len(content)] = content
    (folder / name).write_bytes(whole)
    return folder / name


@pytest.mark.parametrize("name", ENCODINGS)
@pytest.mark.parametrize("channels", [1, 2])
def test_reads_every_format(tmp_path: Path, name: str, channels: int) -> None:
    samples, rate = audio.read(saved(tmp_path, name, np.stack([TONE] * channels, axis=1)))
    assert (rate, samples.dtype, samples.ndim) == (RATE, np.float32, 1)
    assert len(samples) == len(TONE)
    end = -1000 if "opus" in name else None  # libsndfile's encoder spoils the last packets
    assert np.abs(samples - TONE)[:end].max() <= ENCODINGS[name][2]


@pytest.mark.parametrize("name", ["8000", "44100", "48000"])
def test_tells_the_rate_of_the_file(tmp_path: Path, name: str) -> None:
    for encoding in ("16.wav", "16.flac"):
        assert audio.read(saved(tmp_path, encoding, rate=int(name)))[1] == int(name)


@pytest.mark.parametrize("name", ENCODINGS)
def test_blocks_and_streams_give_the_bits_of_read(tmp_path: Path, name: str) -> None:
    path = saved(tmp_path, name, np.stack([TONE, -0.3 * TONE], axis=1))
    whole, _ = audio.read(path)
    pieces = list(audio.blocks(str(path), 0.0371))
    assert len(pieces) == -(-len(TONE) // int(0.0371 * RATE))
    np.testing.assert_array_equal(np.concatenate([samples for samples, _ in pieces]), whole)
    with path.open("rb") as file:
        np.testing.assert_array_equal(audio.read_stream(file)[0], whole)


def test_channels_are_averaged(tmp_path: Path) -> None:
    three = np.stack([TONE, np.zeros_like(TONE), np.full_like(TONE, 0.25)], axis=1)
    for name in ("16.wav", "float.wav"):
        samples, _ = audio.read(saved(tmp_path, name, three))
        np.testing.assert_allclose(samples, (TONE + 0.25) / 3, atol=1 / 32767)  # one 16-bit quantum


def test_pcm_wav_is_exact_to_the_quantum_and_needs_no_soundfile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "soundfile", None)
    for width, lowest, highest in [(2, -32768, 32767), (3, -8388608, 8388607), (4, -(2**31), 2**31 - 1)]:
        values = [lowest, -1, 0, 1, highest]
        with wave.open(str(tmp_path / "a.wav"), "wb") as writer:
            writer.setnchannels(1)
            writer.setsampwidth(width)
            writer.setframerate(RATE)
            writer.writeframes(b"".join(value.to_bytes(width, "little", signed=True) for value in values))
        samples, _ = audio.read(tmp_path / "a.wav")
        np.testing.assert_array_equal(samples, np.float32(values) / np.float32(-lowest))


def test_without_soundfile_the_fix_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(tmp_path, "16.flac")
    monkeypatch.setitem(sys.modules, "soundfile", None)
    with pytest.raises(MissingDependency, match=r"16\.flac: .*pip install soundfile"):
        audio.read(path)


@pytest.mark.parametrize("name", ["16.wav", "float.wav", "vorbis.ogg"])
def test_no_samples_are_a_valid_recording(tmp_path: Path, name: str) -> None:
    path = saved(tmp_path, name, TONE[:0])
    samples, rate = audio.read(path)
    assert (len(samples), samples.dtype, rate) == (0, np.float32, RATE)
    assert len(list(audio.blocks(path, 1.0))) == 1


def test_a_wav_that_was_cut_off_gives_what_is_there(tmp_path: Path) -> None:
    whole = saved(tmp_path, "16.wav").read_bytes()
    (tmp_path / "cut.wav").write_bytes(whole[: 44 + 2 * 239 + 1])
    samples, _ = audio.read(tmp_path / "cut.wav")
    np.testing.assert_array_equal(samples, audio.read(tmp_path / "16.wav")[0][:239])


def test_a_wav_of_unknown_length_is_read_to_its_end(tmp_path: Path) -> None:
    path = damaged(tmp_path, "piped.wav", 40, b"\xff\xff\xff\xff")  # as ffmpeg writes into a pipe
    assert len(audio.read(path)[0]) == len(TONE)


BAD_FILES = {
    "missing.wav": (None, "No such file.*check the path"),
    "empty.wav": (b"", "empty, 0 bytes"),
    "text.wav": (b"This is no recording.\n" * 9, "not a recording in wav, flac, mp3"),
    "noise.raw": (b"\0" * 999, "not a recording in wav, flac, mp3"),
    "header.wav": (b"RIFF\x24\0\0\0WAVEfmt \x10\0", "damaged"),
    "cut.wav": (b"RIFF\x24\0\0\0WAVEfmt \x10\0\0\0\x01\0", "header damaged or cut off"),
    "riff.wav": (b"RIFF\x24\0\0\0WAVE", "damaged"),
    "header.flac": (b"fLaC\0\0\0\x22\x10", "damaged"),
    "header.ogg": (b"OggS\0\x02" + b"\0" * 20, "damaged"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_bad_files_are_named(tmp_path: Path, name: str) -> None:
    content, message = BAD_FILES[name]
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(AudioError, match=f"{name}: .*{message}") as raised:
        audio.read(tmp_path / name)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("at", "content", "message"),
    [
        (22, b"\xff\xff", "65535 channels, must be 1 to 64"),
        (22, b"\0\0", "damaged"),
        (24, b"\0\0\0\0", "sample rate 0 Hz, must be 1000 to 768000"),
        (24, b"\xff\xff\xff\xff", "sample rate 4294967295 Hz"),
        (34, b"\0\0", "damaged"),
        (34, b"\x40\0", "64 bits a sample"),
        (36, b"abcd", "damaged"),
    ],
)
def test_absurd_headers_are_refused(tmp_path: Path, at: int, content: bytes, message: str) -> None:
    with pytest.raises(AudioError, match=f"absurd.wav: .*{message}"):
        audio.read(damaged(tmp_path, "absurd.wav", at, content))


def test_directories_and_impossible_paths_are_refused(tmp_path: Path) -> None:
    with pytest.raises(AudioError, match="cannot be read: .*check the path"):
        audio.read(tmp_path)
    with pytest.raises(AudioError, match="cannot be read: .*check the path"):
        audio.read("a\0b")


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e4])
def test_impossible_samples_in_a_file_are_refused(tmp_path: Path, bad: float) -> None:
    samples = np.tile(TONE, 11)  # more than one block
    samples[170_123] = bad
    with pytest.raises(AudioError, match=r"float\.wav: sample 170123 is"):
        audio.read(saved(tmp_path, "float.wav", samples))


@pytest.mark.parametrize("name", ["16.wav", "float.wav", "16.flac", "vorbis.ogg", "opus.ogg"])
def test_random_damage_raises_nothing_but_audio_error(tmp_path: Path, name: str) -> None:
    whole = saved(tmp_path, name, TONE[:4000]).read_bytes()
    rng = np.random.default_rng(0)
    refused = 0
    for trial in range(60):
        content = bytearray(whole)
        for _ in range(rng.integers(1, 20)):
            content[rng.integers(len(content) if trial % 2 else 100)] = rng.integers(256)
        try:
            samples, _ = audio.read_stream(io.BytesIO(content[: rng.integers(1, len(content) + 1)]))
        except AudioError as error:
            refused += 1
            assert str(error).startswith("standard input: ")
        else:
            assert np.isfinite(samples).all()
    assert refused


def test_arrays_become_samples() -> None:
    integers = np.array([-32768, 0, 16384, 32767], np.int16)
    expected = np.array([-1, 0, 0.5, 32767 / 32768], np.float32)
    for array in (
        integers,
        integers.astype(">i2"),
        expected,
        expected.astype(np.float64),
        [-1.0, 0.0, 0.5, 32767 / 32768],
        np.repeat(expected, 2)[::2],
    ):
        samples = audio.as_samples(array)
        assert samples.dtype == np.float32 and samples.flags.c_contiguous
        np.testing.assert_array_equal(samples, expected)
    for empty in (np.zeros(0, np.int16), np.zeros(0, np.float32), []):
        assert audio.as_samples(empty).shape == (0,)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((2, 3), np.float32), r"shape \[2, 3\], must be one channel"),
        (np.float32(0), r"shape \[\]"),
        (None, "shape"),
        ([[1.0], [1.0, 2.0]], "not an array of numbers"),
        (np.zeros(3, np.int32), "dtype int32, must be int16, or float32 or float64"),
        (np.zeros(3, np.uint8), "dtype uint8"),
        (np.zeros(3, np.float16), "dtype float16"),
        (np.zeros(3, np.complex64), "dtype complex64"),
        (np.zeros(3, bool), "dtype bool"),
        (["a"], "dtype <U1"),
        (np.array([0, np.nan]), "sample 1 is nan"),
        (np.array([0, 0, -np.inf], np.float32), "sample 2 is -inf"),
        (np.array([1e300]), "sample 0 is 1e\\+300"),
        (np.array([12.0, 20000.0]), "sample 1 is 20000; full scale is 1.0"),
    ],
)
def test_other_arrays_are_refused_in_one_line(array: object, message: str) -> None:
    with pytest.raises(AudioError, match=f"samples: .*{message}") as raised:
        audio.as_samples(array)  # type: ignore[arg-type]
    assert "\n" not in str(raised.value)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
@pytest.mark.parametrize("name", ["16.wav", "16.flac"])
def test_a_named_pipe_is_a_recording_too(tmp_path: Path, name: str) -> None:
    path, pipe = saved(tmp_path, name), tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=lambda: pipe.write_bytes(path.read_bytes()))
    writer.start()
    np.testing.assert_array_equal(audio.read(pipe)[0], audio.read(path)[0])
    writer.join()


def test_a_broken_pipe_is_an_audio_error() -> None:
    class Broken(io.RawIOBase):
        def read(self, size: int = -1) -> bytes:
            raise OSError(5, os.strerror(5))

    with pytest.raises(AudioError, match="standard input: "):
        audio.read_stream(Broken())  # type: ignore[arg-type]


def test_an_interrupt_while_libsndfile_reads_is_not_lost(tmp_path: Path) -> None:
    """Within a call back into Python it would be: what was read until then passed for the whole."""
    path = tmp_path / "long.flac"
    soundfile.write(path, np.random.default_rng(0).normal(0, 0.1, 16_000 * 60).astype(np.float32), 16_000)
    calling_back = mock.patch.object(soundfile.SoundFile, "_init_virtual_io", side_effect=AssertionError)
    with path.open("rb") as file, calling_back:
        assert sum(len(piece) for piece, _ in audio._decode(file, "long.flac", 10.0)) == 16_000 * 60
        assert len(audio.read_stream(io.BytesIO(path.read_bytes()))[0]) == 16_000 * 60
