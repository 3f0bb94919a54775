"""What `listen` keeps: transcript and sound, on disk all the time, so that a crash loses nothing."""

from __future__ import annotations

import itertools
import time
import wave
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError
from ..events import Transcript
from .output import make_folder, write
from .render import FORMATS

EVERY_SECONDS = 1.0  # chosen: what a crash may cost
# The transcript of hours takes a second to write. It may cost a twentieth of the time.
SHARE = 1 / 20
LONGEST_WAV = 2**32 - 2**20  # bytes; its header counts in 32 bits


def free(path: Path) -> Path:
    """`path`, or the first of talk-2.srt, talk-3.srt ... that is not there: nobody can say it all again."""
    names = itertools.chain([path], (path.with_stem(f"{path.stem}-{n}") for n in itertools.count(2)))
    return next(name for name in names if not name.exists())


class TranscriptFile:
    """Written anew, in one step, whenever it is time. The name's end says the format.

    `path` is the one that was asked for, or if that is there already a new one beside it.
    """

    def __init__(self, path: Path) -> None:
        """Raises ConfigError if it cannot be written there."""
        suffix = path.suffix.lower().removeprefix(".")
        if suffix not in FORMATS:
            raise ConfigError(f"--save: {path}: the name must end in one of .{' .'.join(FORMATS)}")
        if path.is_dir():
            raise ConfigError(f"--save: {path} is a folder; name a file")
        make_folder(path.absolute().parent, "--save")
        self.path = free(path)
        self._render = FORMATS[suffix]
        self._next = 0.0

    @property
    def due(self) -> bool:
        return time.monotonic() >= self._next

    def write(self, transcript: Transcript) -> None:
        """Raises OSError."""
        begun = time.monotonic()
        # Also after a failure: a full disk is not asked again with every chunk.
        self._next = begun + EVERY_SECONDS
        write(self.path, self._render(transcript))
        now = time.monotonic()
        self._next = now + max(EVERY_SECONDS, (now - begun) / SHARE)


class SoundFile:
    """WAV, 16 bit mono, whose header is right at any moment.

    A WAV has one rate and at most 4 GB: where a chunk does not fit, the next file begins: talk.wav,
    talk-2.wav, ..., whichever are not there yet.
    """

    def __init__(self, path: Path) -> None:
        """Raises ConfigError if it cannot be written there."""
        if path.suffix.lower() != ".wav":
            raise ConfigError(f"--save-audio: {path}: the name must end in .wav")
        if path.is_dir():
            raise ConfigError(f"--save-audio: {path} is a folder; name a file")
        make_folder(path.absolute().parent, "--save-audio")
        self._asked, self.path = path, free(path)
        try:
            self.path.open("ab").close()
        except OSError as error:
            raise ConfigError(
                f"--save-audio: {path}: cannot be written: {error.strerror or error}"
            ) from error
        self.paths: list[Path] = []
        self._file: BinaryIO | None = None
        self._rate = 0
        self._pending: list[NDArray[np.int16]] = []

    def write(self, samples: NDArray[np.int16], sample_rate: int) -> None:
        """Samples [n] -> the end of the file, at least once a second. Raises OSError."""
        if self._file is None or sample_rate != self._rate or self._wave.tell() * 2 > LONGEST_WAV:
            self.close()
            self._open(sample_rate)
        self._pending.append(samples)
        if not self._wave.tell() or sum(map(len, self._pending)) >= EVERY_SECONDS * sample_rate:
            self._flush()

    def close(self) -> None:
        """Raises OSError."""
        if self._file is not None:
            with self._file:
                self._flush()
                self._wave.close()
            self._file = None

    def _open(self, sample_rate: int) -> None:
        path = free(self._asked) if self.paths else self.path
        self._file = path.open("wb")
        self._wave = wave.open(self._file)
        self._wave.setnchannels(1)
        self._wave.setsampwidth(2)
        self._wave.setframerate(sample_rate)
        self._rate = sample_rate
        self.paths.append(path)

    def _flush(self) -> None:
        assert self._file is not None
        self._wave.writeframes(b"".join(samples.tobytes() for samples in self._pending))
        self._file.flush()
        self._pending = []
