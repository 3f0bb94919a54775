"""microphone -> chunks of samples [n] int16 mono, at the device's own rate.

The sound card calls back on a thread of its own and must not wait: it puts chunks into a bounded queue
and goes on. Whoever iterates takes them out. If that is too slow for ten seconds on end, new sound is
dropped until half of that is caught up, and counted in `lost`: one hole in place of many small ones.

Sound is 16 bit, as in WAV files, so that what is recognised can be kept to the bit.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from types import ModuleType, TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import AudioError, ConfigError, MissingDependency

CHUNK_SECONDS = 0.05  # chosen: a twentieth of a second is not seen in captions
QUEUE_SECONDS = 10.0  # chosen: longer than any pause of a healthy machine
POLL_SECONDS = 0.1  # the iteration goes on this often, sound or not
# Without any sound (silence is sound too) for so long a device is taken for gone. Sources that were
# asleep need a second or two: it must be clearly longer.
GONE_SECONDS = 6.0
FULL_SCALE = 32768

Samples = NDArray[np.int16]


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
            for chunk in microphone:            # int16 [n]; n = 0 where nothing came for 100 ms
                ...

    `device` is an id or (part of) a name of `devices()`, None for the default. Channels are averaged.
    Raises on entering: MissingDependency, AudioError, and ConfigError if there is no such device. While
    iterating: AudioError if the device is gone, after all that it gave.
    """

    def __init__(self, device: int | str | None = None) -> None:
        self.device = device
        self.name = ""
        self._id = -1
        self.sample_rate = 0  # Hz, known once open
        self.lost = 0  # samples dropped because the queue was full
        self.overflows = 0  # times the sound system dropped some before they came here
        self._given = self._taken = 0  # samples; the one is counted by PortAudio's thread only
        self._dropping = False
        self._chunks: queue.Queue[Samples] = queue.Queue(round(QUEUE_SECONDS / CHUNK_SECONDS))
        self._stopped = threading.Event()
        self._stream: Any = None

    @property
    def waiting(self) -> int:
        """Samples that were captured and not yet taken."""
        return self._given - self._taken

    def __enter__(self) -> Microphone:
        sounddevice = _sounddevice()
        chosen = _choose(devices(), self.device)
        self._id, self.name, self.sample_rate = chosen.id, chosen.name, chosen.sample_rate
        # Most devices open with two channels, which are averaged; some only with one, or with all they have.
        for channels in dict.fromkeys((min(chosen.channels, 2), chosen.channels, 1)):
            try:
                self._stream = sounddevice.InputStream(
                    device=chosen.id,
                    samplerate=chosen.sample_rate,
                    channels=channels,
                    blocksize=round(CHUNK_SECONDS * chosen.sample_rate),
                    dtype="float32",  # of int16 too, exactly; PortAudio's own conversion to int16 adds noise
                    callback=self._heard,
                )
                self._stream.start()
                return self
            except sounddevice.PortAudioError as error:
                reason = error
                if self._stream is not None:
                    self._stream.close()
        raise AudioError(
            f"{chosen.name}: cannot be opened ({reason}); another program may be using it, or "
            f"choose another device"
        )

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stream.close()

    def again(self) -> Microphone:
        """The same device, looked for anew: it may have another number, or, where it was the system's choice,
        that may be another device. No microphone may be open. Raises AudioError if it is not there."""
        sounddevice = _sounddevice()
        sounddevice._terminate()  # PortAudio looks for devices only when it starts; no public name for it
        sounddevice._initialize()
        same = [device.id for device in devices() if device.name == self.name]
        if self.device is None:
            return Microphone()
        if not same:
            raise AudioError(f"{self.name}: is not connected")
        found = Microphone(self._id if self._id in same else same[0])
        found.name, found._id = self.name, self._id
        return found

    def stop(self) -> None:
        """Ends the iteration once it has given what was said until now. Any thread may call it."""
        self._stopped.set()

    def __iter__(self) -> Iterator[Samples]:
        last = time.monotonic()  # when sound came
        ending = None
        while ending is None or time.monotonic() < ending:
            if ending is None and self._stopped.is_set():
                # What is said at this moment is still on its way through the sound system's buffers.
                ending = time.monotonic() + self._stream.latency + 2 * CHUNK_SECONDS
            active = self._stream.active  # asked first: a device that ends now may have given sound before
            chunk = self._take()
            if len(chunk):
                last = time.monotonic()
            elif not active:
                raise AudioError(f"{self.name}: is disconnected")
            elif time.monotonic() - last > GONE_SECONDS:
                raise AudioError(f"{self.name}: gives no sound any more; is it still connected?")
            yield chunk
        while self.waiting:
            yield self._take()

    def _take(self) -> Samples:
        """What has come since the last time, at most a second of it: [n], n = 0 after POLL_SECONDS."""
        parts: list[Samples] = []
        try:
            parts.append(self._chunks.get(timeout=POLL_SECONDS))
            while len(parts) * CHUNK_SECONDS < 1:  # who is behind catches up faster with longer chunks
                parts.append(self._chunks.get_nowait())
        except queue.Empty:
            pass
        chunk = np.concatenate(parts) if parts else np.zeros(0, np.int16)
        self._taken += len(chunk)
        return chunk

    def _heard(self, samples: NDArray[np.float32], count: int, moment: object, status: Any) -> None:
        """PortAudio's callback, on its own thread: samples [count, channels], valid only during the call."""
        if status and status.input_overflow:
            self.overflows += 1
        self._dropping = self._chunks.full() or (
            self._dropping and self._chunks.qsize() > self._chunks.maxsize // 2
        )
        if self._dropping:
            self.lost += count
            return
        self._given += count
        mono = samples.mean(axis=1, dtype=np.float32) * np.float32(FULL_SCALE)
        self._chunks.put_nowait(np.clip(np.rint(mono), -FULL_SCALE, FULL_SCALE - 1).astype(np.int16))


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
