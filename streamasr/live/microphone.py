"""microphone -> chunks of samples [N] float32 mono, at the device's own rate.

The sound card calls back on a thread of its own and must not wait: it puts chunks into a bounded queue
and goes on. Whoever iterates takes them out. If that is too slow for ten seconds on end, the newest
chunks are dropped and counted in `lost_samples`; memory does not grow.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from types import ModuleType, TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import AudioError, ConfigError, MissingDependency

CHUNK_SECONDS = 0.05  # chosen: a twentieth of a second is not seen in captions
QUEUE_SECONDS = 10.0  # chosen: longer than any pause of a healthy machine
SILENT_SECONDS = 2.0  # without any chunk (silence gives chunks too) a device is taken for gone
POLL_SECONDS = 0.1  # how late `stop()` is noticed while no chunk arrives


@dataclass(frozen=True, slots=True)
class Device:
    """One input: `id` is PortAudio's number, `sample_rate` (Hz) its default."""

    id: int
    name: str
    channels: int
    sample_rate: int
    is_default: bool


def devices() -> list[Device]:
    """All inputs of this machine.

    Raises: MissingDependency without PortAudio, AudioError if the machine has no input.
    """
    sounddevice = _sounddevice()
    default = sounddevice.default.device[0]
    found = [
        Device(i, str(d["name"]), d["max_input_channels"], round(d["default_samplerate"]), i == default)
        for i, d in enumerate(sounddevice.query_devices())
        if d["max_input_channels"] > 0
    ]
    if not found:
        raise AudioError("no microphone found; connect one, or allow this program to use it")
    return found


class Microphone:
    """Open while in a `with` block; iterating gives chunks until `stop()`.

        with Microphone() as microphone:
            for chunk in microphone:            # float32 [N], about 50 ms
                ...

    `device` is an id or (part of) a name of `devices()`, None for the default. Channels are averaged.
    Raises on entering: MissingDependency, AudioError, and ConfigError if there is no such device. While
    iterating: AudioError if the device is gone.
    """

    def __init__(self, device: int | str | None = None) -> None:
        self.device = device
        self.name = ""
        self.sample_rate = 0  # Hz, known once open
        self.lost_samples = 0
        self._chunks: queue.Queue[NDArray[np.float32]] = queue.Queue(round(QUEUE_SECONDS / CHUNK_SECONDS))
        self._stopped = threading.Event()
        self._stream: Any = None

    def __enter__(self) -> Microphone:
        sounddevice = _sounddevice()
        chosen = _choose(devices(), self.device)
        self.name, self.sample_rate = chosen.name, chosen.sample_rate
        try:
            self._stream = sounddevice.InputStream(
                device=chosen.id,
                samplerate=chosen.sample_rate,
                # Drivers refuse to open fewer channels than they like; two are common to all.
                channels=min(chosen.channels, 2),
                blocksize=round(CHUNK_SECONDS * chosen.sample_rate),
                dtype="float32",
                callback=self._heard,
            )
            self._stream.start()
        except sounddevice.PortAudioError as error:
            raise AudioError(
                f"{chosen.name}: cannot be opened ({error}); another program may be using it, or "
                f"choose another device"
            ) from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stream.close()

    def stop(self) -> None:
        """Ends the iteration once it has given what was heard until now. Any thread may call it."""
        self._stopped.set()

    def __iter__(self) -> Iterator[NDArray[np.float32]]:
        missing = 0.0  # seconds without a chunk
        while not self._stopped.is_set():
            try:
                yield self._chunks.get(timeout=POLL_SECONDS)
                missing = 0.0
            except queue.Empty:
                missing += POLL_SECONDS
                if missing >= SILENT_SECONDS:
                    raise AudioError(
                        f"{self.name}: gives no sound any more; is it still connected?"
                    ) from None
        for _ in range(self._chunks.qsize()):
            yield self._chunks.get_nowait()

    def _heard(self, samples: NDArray[np.float32], count: int, time: object, status: object) -> None:
        """PortAudio's callback, on its own thread: samples [count, channels], valid only during the call."""
        try:
            self._chunks.put_nowait(samples.mean(axis=1, dtype=np.float32))
        except queue.Full:
            self.lost_samples += count


def _choose(found: list[Device], wanted: int | str | None) -> Device:
    if wanted is None:
        return next((device for device in found if device.is_default), found[0])
    if isinstance(wanted, int):
        matches = [device for device in found if device.id == wanted]
    else:
        exact = [device for device in found if device.name == wanted]
        matches = exact or [device for device in found if wanted.casefold() in device.name.casefold()]
    if len(matches) == 1:
        return matches[0]
    names = ", ".join(f'{device.id} "{device.name}"' for device in matches or found)
    problem = "is the name of several inputs" if matches else "is no input"
    raise ConfigError(f"device {wanted} {problem}; choose one of: {names}")


def _sounddevice() -> ModuleType:
    try:
        import sounddevice
    except ImportError as error:
        raise MissingDependency(
            "the microphone needs the package sounddevice: pip install sounddevice"
        ) from error
    except OSError as error:  # the package is there, the system's library is not
        raise MissingDependency(
            "the microphone needs the PortAudio library: apt install libportaudio2 (Debian, Ubuntu) or "
            "brew install portaudio (macOS)"
        ) from error
    module: ModuleType = sounddevice
    return module
