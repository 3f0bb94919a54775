"""Recordings and arrays -> float32 mono samples in [-1, 1].

PCM WAV is read by the standard library; FLAC, MP3, Ogg Vorbis, Ogg Opus and the rarer kinds of WAV by
`soundfile`, which is imported only then. Several channels are averaged. An audio file is not
trusted: whatever is wrong with it, the caller gets an AudioError that names it.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import wave
from collections.abc import Iterator
from typing import IO, BinaryIO

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .errors import AudioError, MissingDependency

FORMATS = "wav, flac, mp3, ogg vorbis or ogg opus"
LOWEST_RATE, HIGHEST_RATE = 1_000, 768_000  # Hz; what the resampler takes, a test compares
MOST_CHANNELS = 64  # chosen: above that a header is damaged rather than a microphone array
# 60 dB above full scale: no recording, but what int16 numbers in a float array look like.
LOUDEST = 1_000.0
BLOCK_SECONDS = 10.0

Samples = NDArray[np.float32]


def read(path: str | os.PathLike[str]) -> tuple[Samples, int]:
    """path -> (samples [N] float32 mono, sample rate in Hz).

    Formats: wav, flac, mp3, ogg vorbis, ogg opus. A recording of no samples gives N = 0, a WAV
    or MP3 that was cut off what is there. Raises AudioError, and MissingDependency without `soundfile`.
    """
    return _joined(blocks(path, BLOCK_SECONDS))


def read_stream(file: BinaryIO) -> tuple[Samples, int]:
    """Binary file (such as `sys.stdin.buffer`), read to its end -> (samples [N], sample rate in Hz).

    The bytes of any recording that `read` takes. Raises as `read` does.
    """
    try:
        with _to_its_end(file) as content:
            return _joined(_decode(content, "standard input", BLOCK_SECONDS))
    except OSError as error:
        raise AudioError(f"standard input: {error.strerror or error}") from error


def blocks(path: str | os.PathLike[str], seconds: float) -> Iterator[tuple[Samples, int]]:
    """path -> pieces (samples [n], sample rate in Hz) of `seconds`, the last one shorter.

    Joined they are what `read` gives, but a long file need not be in memory. There is always at least
    one piece, so that the rate of an empty recording is known. Raises as `read` does.
    """
    name = os.fspath(path)
    try:
        with open(name, "rb") as file:
            if file.seekable():
                yield from _decode(file, name, seconds)
                return
            with _to_its_end(file) as content:  # a pipe cannot go back to its start
                yield from _decode(content, name, seconds)
    except (OSError, ValueError) as error:  # ValueError: a NUL character in the path
        reason = getattr(error, "strerror", None) or error
        raise AudioError(f"{name}: cannot be read: {reason}; check the path") from error


def as_samples(array: ArrayLike, name: str = "samples", first: int = 0) -> Samples:
    """int16 [N], or float32 or float64 [N] in [-1, 1] -> samples [N] float32; int16 is divided by 32768.

    Raises AudioError for other dtypes and shapes, NaN, infinity, and floats far beyond full scale. Its
    message calls the array `name` and its first sample number `first`.
    """
    try:
        given = np.asarray(array)
    except (ValueError, TypeError) as error:  # such as lists of unequal lengths
        raise AudioError(f"{name}: not an array of numbers: {error}") from error
    if given.ndim != 1:
        raise AudioError(
            f"{name}: shape {list(given.shape)}, must be one channel, [N]; average the channels first"
        )
    if given.dtype.kind == "i" and given.dtype.itemsize == 2:
        return given.astype(np.float32) / np.float32(32768)
    if given.dtype.kind != "f" or given.dtype.itemsize not in (4, 8):
        raise AudioError(f"{name}: dtype {given.dtype}, must be int16, or float32 or float64 in [-1, 1]")
    if given.size and not np.abs(given).max() <= LOUDEST:  # catches NaN as well
        bad = np.flatnonzero(~(np.abs(given) <= LOUDEST))
        raise AudioError(
            f"{name}: sample {first + bad[0]} is {given[bad[0]]:g}; "
            "full scale is 1.0 (integers need dtype int16)"
        )
    return np.ascontiguousarray(given, np.float32)


def _joined(pieces: Iterator[tuple[Samples, int]]) -> tuple[Samples, int]:
    """Pieces of one recording -> (all samples, sample rate)."""
    parts = list(pieces)
    return np.concatenate([samples for samples, _ in parts]), parts[0][1]


def _to_its_end(file: BinaryIO) -> IO[bytes]:
    """What is left of a file -> a file without a name, gone when it is closed. Raises OSError."""
    content = tempfile.TemporaryFile()
    try:
        shutil.copyfileobj(file, content)
        content.seek(0)
    except BaseException:
        content.close()
        raise
    return content


def _decode(file: IO[bytes], name: str, seconds: float) -> Iterator[tuple[Samples, int]]:
    """A seekable file of any format -> pieces of `seconds`, at least one."""
    start = file.read(12)
    if not start:
        raise AudioError(f"{name}: empty, 0 bytes; must be a recording in {FORMATS}")
    file.seek(0)
    if start[:4] == b"RIFF" and start[8:] == b"WAVE":
        try:
            reader = wave.open(file)
        except wave.Error:
            file.seek(0)  # float, mu-law, extensible: libsndfile knows them
        except Exception as error:  # EOFError, struct.error, RuntimeError: whatever a damaged header meets
            raise AudioError(f"{name}: WAV header damaged or cut off; record or copy it again") from error
        else:
            yield from _decode_pcm(reader, name, seconds)
            return
    yield from _decode_other(file, name, seconds)


def _decode_pcm(reader: wave.Wave_read, name: str, seconds: float) -> Iterator[tuple[Samples, int]]:
    """An open PCM WAV file -> pieces of `seconds`, at least one."""
    channels, width, rate = reader.getnchannels(), reader.getsampwidth(), reader.getframerate()
    _check_header(channels, rate, name)
    if width > 4:
        raise AudioError(f"{name}: WAV with {8 * width} bits a sample; must have 8, 16, 24 or 32")
    ask = max(int(seconds * rate), 1)
    given = 0
    while True:
        try:
            content = reader.readframes(ask)
        except Exception as error:  # as in _decode
            raise AudioError(f"{name}: damaged, cannot be decoded ({_reason(error)})") from error
        frames = len(content) // (channels * width)
        if frames or not given:
            values = _pcm_values(content[: frames * channels * width], width)
            yield _mono(values.reshape(frames, channels)), rate
        if not frames:
            return
        given += frames


def _pcm_values(content: bytes, width: int) -> Samples:
    """Little-endian integers of `width` bytes (8 bit: unsigned) -> float32 in [-1, 1)."""
    if width == 1:
        return (np.frombuffer(content, np.uint8).astype(np.float32) - np.float32(128)) / np.float32(128)
    if width == 3:
        # The three bytes become the upper three of an int32.
        wide = np.zeros((len(content) // 3, 4), np.uint8)
        wide[:, 1:] = np.frombuffer(content, np.uint8).reshape(-1, 3)
        content, width = wide.tobytes(), 4
    full_scale = np.float32(1 << (8 * width - 1))
    return np.frombuffer(content, f"<i{width}").astype(np.float32) / full_scale


def _decode_other(file: IO[bytes], name: str, seconds: float) -> Iterator[tuple[Samples, int]]:
    """Anything that libsndfile knows -> pieces of `seconds`, at least one."""
    try:
        import soundfile
    except (ImportError, OSError) as error:  # OSError: the package without its library
        raise MissingDependency(
            f"{name}: is not PCM WAV, which needs the package soundfile: pip install soundfile"
        ) from error

    class Forward(soundfile.SoundFile):  # type: ignore[misc]
        def seekable(self) -> bool:
            return False  # else it seeks after each piece, and MP3 decoders start anew there

    try:
        # By its descriptor: where libsndfile calls back into Python for bytes, Ctrl-C within such a call is
        # lost, and what has been read until then passes for the whole recording.
        os.lseek(file.fileno(), 0, os.SEEK_SET)
        reader = Forward(file.fileno(), closefd=False)
    except Exception as error:  # soundfile raises half a dozen unrelated types on damaged files
        raise AudioError(f"{name}: not a recording in {FORMATS}, or damaged ({_reason(error)})") from error
    with reader:
        channels, rate = reader.channels, reader.samplerate
        _check_header(channels, rate, name)
        ask = max(int(seconds * rate), 1)
        given = 0
        while True:
            try:
                values = reader.read(ask, dtype="float32", always_2d=True)
            except Exception as error:  # as above
                raise AudioError(f"{name}: damaged, cannot be decoded ({_reason(error)})") from error
            if len(values) or not given:
                yield as_samples(_mono(values), name, given), rate
            if not len(values):
                return
            given += len(values)


def _mono(values: Samples) -> Samples:
    """Values [N, channels] -> their mean over the channels [N]."""
    total = values[:, 0].copy()
    for channel in range(1, values.shape[1]):
        total += values[:, channel]
    return total / np.float32(values.shape[1])


def _check_header(channels: int, rate: int, name: str) -> None:
    if not 1 <= channels <= MOST_CHANNELS:
        raise AudioError(
            f"{name}: {channels} channels, must be 1 to {MOST_CHANNELS}; the header may be damaged"
        )
    if not LOWEST_RATE <= rate <= HIGHEST_RATE:
        raise AudioError(
            f"{name}: sample rate {rate} Hz, must be {LOWEST_RATE} to {HIGHEST_RATE}; "
            "the header may be damaged"
        )


def _reason(error: Exception) -> str:
    """The library's own words, without its mention of an anonymous file object."""
    return str(getattr(error, "error_string", error)).strip().rstrip(".") or type(error).__name__
