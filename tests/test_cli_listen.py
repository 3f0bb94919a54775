"""The microphone and its captions, with a stand-in for PortAudio (the package sounddevice)."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import sys
import threading
import time
import types
import wave
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import streamasr
from streamasr import audio
from streamasr.cli import listen
from streamasr.cli.captions import Captions
from streamasr.cli.keep import SoundFile, TranscriptFile
from streamasr.cli.main import main
from streamasr.cli.render import FORMATS
from streamasr.cli.session import Session
from streamasr.errors import AudioError, ConfigError, MissingDependency
from streamasr.live import microphone
from streamasr.live.microphone import Microphone, devices

pyte = pytest.importorskip("pyte")
wcwidth = pytest.importorskip("wcwidth")
Captured = pytest.CaptureFixture[str]


class PortAudioError(Exception):
    pass


class FakeStream:
    """Plays the next of `sounds` [n, 2] into the callback, as fast as it can, then calls `at_end`."""

    sounds: list[NDArray[np.float32]] = []
    at_end: Callable[[], None] = staticmethod(lambda: None)
    unplugged = False  # after its sound, a stream is no longer active
    refused: tuple[int, ...] = ()  # numbers of channels that the device does not like
    latency = 0.0

    def __init__(self, **options: Any) -> None:
        if options["channels"] in self.refused:
            raise PortAudioError("Device unavailable")
        self.options = options
        self.active = True

    def start(self) -> None:
        threading.Thread(target=self._play).start()

    def _play(self) -> None:
        size = self.options["blocksize"]
        sound = self.sounds.pop(0) if self.sounds else np.zeros((0, 2), np.float32)
        for first in range(0, len(sound), size):
            block = sound[first : first + size, : self.options["channels"]].copy()
            self.options["callback"](block, len(block), None, None)
            block[:] = np.nan  # PortAudio uses its memory again
        if not self.sounds:
            self.at_end()
        self.active = not self.unplugged

    def close(self) -> None:
        pass


DEVICES = [
    {"name": "Speakers", "max_input_channels": 0, "default_samplerate": 48000.0},
    {"name": "Built-in microphone", "max_input_channels": 2, "default_samplerate": 44100.0},
    {"name": "USB microphone", "max_input_channels": 8, "default_samplerate": 16000.0},
]


@pytest.fixture
def sounddevice(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    module: Any = types.ModuleType("sounddevice")
    module.query_devices = lambda: DEVICES
    module.default = types.SimpleNamespace(device=[2, 0])
    module.InputStream = type("Stream", (FakeStream,), {"sounds": []})
    module._terminate = module._initialize = lambda: None
    module.PortAudioError = PortAudioError
    monkeypatch.setitem(sys.modules, "sounddevice", module)
    return module


@pytest.fixture
def no_portaudio(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    (tmp_path / "sounddevice.py").write_text('raise OSError("PortAudio library not found")')
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "sounddevice", raising=False)


def noise(seconds: float, rate: int, seed: int = 1) -> NDArray[np.float32]:
    """Two channels [n, 2], the same, of 16 bit."""
    one = np.random.default_rng(seed).integers(-20_000, 20_000, round(seconds * rate))
    return np.stack([one, one], axis=1).astype(np.float32) / 32768


def as_int16(sound: NDArray[np.float32]) -> NDArray[np.int16]:
    return np.rint(sound[:, 0] * 32768).astype(np.int16)


def test_devices_are_the_inputs(sounddevice: Any) -> None:
    assert [(d.id, d.sample_rate, d.is_default) for d in devices()] == [(1, 44100, False), (2, 16000, True)]


def test_chunks_are_the_mean_of_the_channels_and_nothing_is_lost(sounddevice: Any) -> None:
    sound = noise(1.03, 44100)
    sound[:, 1] = 0.25
    sounddevice.InputStream.sounds = [sound]
    opened = Microphone("built")
    sounddevice.InputStream.at_end = staticmethod(opened.stop)
    with opened:
        assert opened.sample_rate == 44100
        heard = np.concatenate(list(opened))
    np.testing.assert_array_equal(heard, np.rint((sound[:, 0] + 0.25) * 16384).astype(np.int16))
    assert opened.lost == opened.waiting == 0


def test_too_loud_is_clipped_and_does_not_wrap_around(sounddevice: Any) -> None:
    sounddevice.InputStream.sounds = [np.repeat([[1.5], [-1.5], [1.0], [-1.0]], 2, axis=1).astype(np.float32)]
    opened = Microphone()
    sounddevice.InputStream.at_end = staticmethod(opened.stop)
    with opened:
        assert np.concatenate(list(opened)).tolist() == [32767, -32768, 32767, -32768]


def test_a_full_queue_drops_one_piece_and_counts_it(sounddevice: Any) -> None:
    sound = noise(microphone.QUEUE_SECONDS + 1, 16000)
    sounddevice.InputStream.sounds = [sound]
    finished = threading.Event()
    sounddevice.InputStream.at_end = staticmethod(finished.set)
    with Microphone() as opened:
        assert finished.wait(10)
        assert opened.waiting == microphone.QUEUE_SECONDS * 16000
        assert opened.lost == 16000
        block = sound[:800]
        for _ in range(4):  # a second each; new sound comes in again when half of it is done
            opened._take()
            opened._heard(block, len(block), None, None)
        assert opened.lost == 16000 + 4 * 800
        opened._take()
        opened._heard(block, len(block), None, None)
        opened._heard(block, len(block), None, None)
        opened.stop()
        assert sum(len(chunk) for chunk in opened) == 5 * 16000 + 2 * 800
        assert (opened.lost, opened.waiting) == (16000 + 4 * 800, 0)


def test_overflows_of_the_sound_system_are_counted(sounddevice: Any) -> None:
    with Microphone() as opened:
        for overflow in (False, True):
            opened._heard(noise(0.05, 16000), 800, None, types.SimpleNamespace(input_overflow=overflow))
    assert opened.overflows == 1


def test_a_device_that_goes_away_gives_first_what_it_has(sounddevice: Any) -> None:
    sound = noise(0.3, 16000)
    sounddevice.InputStream.sounds, sounddevice.InputStream.unplugged = [sound], True
    heard = []
    with pytest.raises(AudioError, match="USB microphone: is disconnected"), Microphone() as opened:
        for chunk in opened:
            heard.append(chunk)
    np.testing.assert_array_equal(np.concatenate(heard), as_int16(sound))


def test_a_device_that_says_nothing_any_more(sounddevice: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(microphone, "GONE_SECONDS", 0.2)
    with Microphone() as opened, pytest.raises(AudioError, match="USB microphone: gives no sound any more"):
        assert not any(len(chunk) for chunk in opened)


def test_a_device_is_found_again_by_its_name(sounddevice: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with Microphone("usb") as opened:
        pass
    assert opened.again().device == 2
    monkeypatch.setattr(sounddevice, "query_devices", lambda: DEVICES[1:])
    moved = opened.again()
    assert moved.device == 1
    with moved:
        assert moved.name == "USB microphone"
    monkeypatch.setattr(sounddevice, "query_devices", lambda: DEVICES[:2])
    with pytest.raises(AudioError, match="USB microphone: is not connected"):
        moved.again()
    assert Microphone().again().device is None


def test_a_device_that_is_fussy_about_channels(sounddevice: Any) -> None:
    sounddevice.InputStream.refused = (2,)
    with Microphone("usb") as opened:
        assert opened._stream.options["channels"] == 8
    sounddevice.InputStream.refused = (2, 8)
    with Microphone("usb") as opened:
        assert opened._stream.options["channels"] == 1


@pytest.mark.parametrize(
    ("wanted", "message"),
    [(0, "device 0 is no input"), ("mic", "several inputs.*1 .*2 "), ("phone line", "is no input; choose")],
)
def test_devices_that_cannot_be_meant(sounddevice: Any, wanted: int | str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Microphone(wanted).__enter__()


def test_a_device_in_use(sounddevice: Any) -> None:
    sounddevice.InputStream.refused = (1, 2)
    with pytest.raises(AudioError, match="cannot be opened .Device unavailable."):
        Microphone(1).__enter__()


def test_without_portaudio(no_portaudio: None, capsys: Captured, tiny_directory: Any) -> None:
    with pytest.raises(MissingDependency, match="libportaudio2"):
        devices()
    assert main(["listen", "--model", str(tiny_directory)]) == 2
    assert "brew install portaudio" in capsys.readouterr().err


def test_no_microphone(sounddevice: Any, capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sounddevice, "query_devices", lambda: DEVICES[:1])
    assert main(["listen", "--list-devices"]) == 1
    assert capsys.readouterr().err == (
        "streamasr: no microphone found; connect one, or allow this program to use it\n"
    )


def test_list_devices(sounddevice: Any, capsys: Captured) -> None:
    assert main(["listen", "--list-devices"]) == 0
    assert capsys.readouterr().out == (
        "    1  Built-in microphone  (44100 Hz, 2 channels)\n*   2  USB microphone  (16000 Hz, 8 channels)\n"
    )


posix = pytest.mark.skipif(sys.platform == "win32", reason="signals")


def end() -> None:
    os.kill(os.getpid(), signal.SIGINT)


@posix
def test_ctrl_c_is_the_ordinary_end(
    sounddevice: Any, capsys: Captured, tiny_directory: Any, tiny: streamasr.Recognizer, tmp_path: Path
) -> None:
    sound = noise(1.0, 44100)
    sounddevice.InputStream.sounds = [sound]
    sounddevice.InputStream.at_end = staticmethod(end)
    before = signal.getsignal(signal.SIGINT)
    keep = ["--save", str(tmp_path / "new" / "a.json"), "--save-audio", str(tmp_path / "a.wav")]
    assert main(["listen", "--device", "1", "--model", str(tiny_directory), *keep]) == 0
    assert signal.getsignal(signal.SIGINT) is before
    expected = tiny.transcribe(as_int16(sound), sample_rate=44100)
    assert expected.text
    written = capsys.readouterr()
    assert written.out.split() == expected.text.split()
    assert "listening to Built-in microphone (44100 Hz)" in written.err
    assert "nothing" not in written.err and "a.json" in written.err
    assert json.loads((tmp_path / "new" / "a.json").read_text()) == expected.to_dict()
    assert tiny.transcribe(tmp_path / "a.wav") == expected


@posix
@pytest.mark.parametrize("suffix", ["txt", "srt", "vtt"])
def test_transcripts_are_those_of_transcribe(
    sounddevice: Any, tiny_directory: Any, tiny: streamasr.Recognizer, tmp_path: Path, suffix: str
) -> None:
    sound = noise(1.0, 16000)
    sounddevice.InputStream.sounds = [sound]
    sounddevice.InputStream.at_end = staticmethod(end)
    file = tmp_path / f"a.{suffix}"
    assert main(["listen", "--model", str(tiny_directory), "--save", str(file)]) == 0
    expected = tiny.transcribe(as_int16(sound), sample_rate=16000)
    assert file.read_text() == FORMATS[suffix](expected)


@posix
def test_a_device_that_is_unplugged_and_comes_back(
    sounddevice: Any,
    capsys: Captured,
    tiny_directory: Any,
    tiny: streamasr.Recognizer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nothing is lost, and times go on; the second time it has another rate."""
    monkeypatch.setattr(listen, "RETRY_SECONDS", 0.0)
    first, second = noise(1.0, 16000), noise(0.7, 44100, seed=2)
    sounddevice.InputStream.sounds, sounddevice.InputStream.unplugged = [first, second], True
    sounddevice.InputStream.at_end = staticmethod(end)
    found = iter([DEVICES[:1], DEVICES[:2]])  # at first there is no input at all

    def look() -> None:
        now = next(found)
        sounddevice.query_devices = lambda: now

    sounddevice._initialize = look
    keep = ["--save", str(tmp_path / "a.json"), "--save-audio", str(tmp_path / "a.wav")]
    assert main(["listen", "--model", str(tiny_directory), *keep]) == 0
    parts = [tiny.transcribe(tmp_path / "a.wav"), tiny.transcribe(tmp_path / "a-2.wav")]
    assert parts[0] == tiny.transcribe(as_int16(first), sample_rate=16000)
    assert parts[1] == tiny.transcribe(as_int16(second), sample_rate=44100)
    assert all(part.text for part in parts)
    written = capsys.readouterr()
    assert written.out.split() == " ".join(part.text for part in parts).split()
    assert "Built-in microphone is back after" in written.err
    saved = json.loads((tmp_path / "a.json").read_text())
    assert saved["text"] == " ".join(part.text for part in parts)
    assert saved["duration"] == 1.7
    assert [s["segment"] for s in saved["segments"]] == list(range(len(saved["segments"])))
    starts = [w.start for w in parts[0].words] + [w.start + 1.0 for w in parts[1].words]
    assert [w["start"] for w in saved["words"]] == starts


@posix
def test_ctrl_c_while_a_device_is_away(
    sounddevice: Any, capsys: Captured, tiny_directory: Any, tiny: streamasr.Recognizer
) -> None:
    sound = noise(1.0, 16000)
    sounddevice.InputStream.sounds, sounddevice.InputStream.unplugged = [sound], True
    timer = threading.Timer(1.0, end)
    sounddevice.InputStream.at_end = staticmethod(timer.start)
    sounddevice._initialize = lambda: None
    sounddevice._terminate = lambda: setattr(sounddevice, "query_devices", lambda: DEVICES[:1])
    assert main(["listen", "--model", str(tiny_directory)]) == 0
    written = capsys.readouterr()
    assert written.out.split() == tiny.transcribe(as_int16(sound), sample_rate=16000).text.split()
    assert "USB microphone was disconnected; waiting for it" in written.err


@posix
def test_hotwords_are_passed_on(
    sounddevice: Any, capsys: Captured, tiny_directory: Any, tiny: streamasr.Recognizer, tmp_path: Path
) -> None:
    sound = noise(1.0, 16000)
    sounddevice.InputStream.sounds = [sound]
    sounddevice.InputStream.at_end = staticmethod(end)
    (tmp_path / "words").write_text("abc\t5\n")
    options = ["listen", "--model", str(tiny_directory), "--hotwords", str(tmp_path / "words")]
    assert main(options) == 0
    expected = tiny.transcribe(as_int16(sound), sample_rate=16000, search="beam", hotwords=[("abc", 5.0)])
    assert capsys.readouterr().out.split() == expected.text.split()
    (tmp_path / "words").write_text("§\n")
    assert main(options) == 2
    assert "§" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--save", "notes.doc"], "notes.doc: the name must end in one of .txt .json .srt .vtt"),
        (["--save", "{tmp}"], "the name must end in"),
        (["--save", "{tmp}/folder.txt"], "folder.txt is a folder"),
        (["--save", "{tmp}/file/a.txt"], "cannot create the folder"),
        (["--save-audio", "talk.mp3"], "talk.mp3: the name must end in .wav"),
        (["--save-audio", "{tmp}/folder.wav"], "folder.wav is a folder; name a file"),
    ],
)
def test_files_that_cannot_be_kept_are_refused_at_once(
    options: list[str], message: str, tmp_path: Path, capsys: Captured
) -> None:
    (tmp_path / "folder.txt").mkdir()
    (tmp_path / "folder.wav").mkdir()
    (tmp_path / "file").touch()
    assert main(["listen", *(option.format(tmp=tmp_path) for option in options)]) == 2
    assert message in capsys.readouterr().err


def test_what_is_there_already_is_kept(tmp_path: Path) -> None:
    for name in ("talk.srt", "talk-2.srt", "talk.wav"):
        (tmp_path / name).write_text("of another day")
    assert TranscriptFile(tmp_path / "talk.srt").path.name == "talk-3.srt"
    sound = SoundFile(tmp_path / "talk.wav")
    for rate in (16_000, 8_000):
        sound.write(np.ones(100, np.int16), rate)
    sound.close()
    assert [path.name for path in sound.paths] == ["talk-2.wav", "talk-3.wav"]
    assert (tmp_path / "talk.wav").read_text() == "of another day"


class Tty(io.StringIO):
    """A terminal of 80 columns and 24 rows."""

    def isatty(self) -> bool:
        return True


@posix
@pytest.mark.parametrize("environment", [{}, {"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_on_a_terminal(
    sounddevice: Any,
    tiny_directory: Any,
    tiny: streamasr.Recognizer,
    monkeypatch: pytest.MonkeyPatch,
    environment: dict[str, str],
) -> None:
    for name in ("NO_COLOR", "TERM"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    sound = noise(1.0, 16000)
    sounddevice.InputStream.sounds = [sound]
    sounddevice.InputStream.at_end = staticmethod(end)
    monkeypatch.setattr(sys, "stdout", out := Tty())
    assert main(["listen", "--model", str(tiny_directory)]) == 0
    text, written = tiny.transcribe(as_int16(sound), sample_rate=16000).text, out.getvalue()
    assert ("\x1b" in written) == (environment.get("TERM") != "dumb")
    assert bool(re.search(r"\x1b\[\d*m", written)) == (not environment)
    if environment.get("TERM") != "dumb":
        assert written.endswith(f"\r\n{text}\n")  # the whole transcript, for copying
        screen = pyte.Screen(80, 24)
        pyte.Stream(screen).feed(written.replace("\n", "\r\n"))
        shown = " ".join(" ".join(screen.display).split())
        assert shown.count(" ".join(text.split())[:40]) == 2
        assert "Ctrl-C" not in shown


def device(**changed: Any) -> Any:
    """A microphone as a session sees it."""
    return types.SimpleNamespace(
        **{"name": "USB", "sample_rate": 16000, "waiting": 0, "lost": 0, "overflows": 0} | changed
    )


def test_what_is_wrong_is_told(
    tiny: streamasr.Recognizer, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    now = 100.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    session = Session(tiny.stream, Captions(io.StringIO(), in_place=False))
    source = device()
    session.connect(source)

    def told(sound: float, value: int, seconds: float, **changed: Any) -> str:
        """After `sound` seconds of sound of this value in `seconds` of the clock."""
        nonlocal now
        source.__dict__.update(changed)
        capsys.readouterr()
        now += seconds
        session.hear(np.full(round(sound * 16000), value, np.int16))
        return capsys.readouterr().err.removeprefix("streamasr: ").rstrip()

    assert told(1.9, 0, 1.9) == ""
    assert told(0.2, 0, 0.2) == "the microphone is muted or silent: nothing but zeros arrive"
    assert told(0.2, 0, 0.2) == ""  # once
    assert told(0.2, 1, 0.2) == ""
    assert told(2.1, 0, 2.1) == ""  # as in every pause of some microphones
    assert told(0.2, 1, 0.2) == ""
    assert told(0.0, 0, 1.9) == ""
    assert told(0.0, 0, 0.2) == "no audio arriving for 2 s from USB"
    assert told(0.1, 1, 0.1, waiting=15_000) == ""
    assert told(0.1, 1, 0.1, waiting=24_000) == "this machine is too slow: the captions are 1.5 s behind"
    assert told(0.1, 1, 0.1, waiting=0, lost=8_000) == ""
    assert told(0.1, 1, 0.1, lost=16_000) == ""  # the hole grows
    assert told(0.1, 1, 0.1) == "this machine is too slow: 1.0 s were not heard"
    assert told(0.1, 1, 0.1, overflows=2) == "the sound system lost sound (2 overflows)"
    assert told(0.1, 1, 0.1, overflows=3) == ""  # they come in crowds
    assert told(0.1, 1, 10.0, overflows=4) == "the sound system lost sound (2 overflows)"
    assert told(2.1, 0, 60.0) == "the microphone is muted or silent: nothing but zeros arrive"
    session.disconnect()
    now += 3.0
    session.redraw()
    assert "USB was disconnected; waiting for it (3 s)" in capsys.readouterr().err
    source.__dict__.update(lost=0, overflows=0)
    session.connect(source)
    assert told(0.1, 1, 1.0) == "USB is back after 4 s"


def test_the_unfinished_segment_is_on_disk_too(
    tiny: streamasr.Recognizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever dies loses a second at most, also of the sound."""
    monkeypatch.setattr("streamasr.cli.keep.EVERY_SECONDS", 0.0)
    transcript, sound = TranscriptFile(tmp_path / "a.json"), SoundFile(tmp_path / "a.wav")
    session = Session(
        lambda rate: tiny.stream(rate, endpointing=False), Captions(io.StringIO(), False), transcript, sound
    )
    session.connect(device())
    monkeypatch.setattr(TranscriptFile, "due", True)
    heard = as_int16(noise(1.0, 16000))
    session.hear(heard[:12000])
    stream = tiny.stream(16000, endpointing=False)
    partial = stream.accept(heard[:12000])[-1]
    assert partial.text
    saved = json.loads((tmp_path / "a.json").read_text())
    assert saved["text"] == partial.text
    assert [w["start"] for w in saved["words"]] == [w.start for w in partial.words]
    samples, rate = audio.read(tmp_path / "a.wav")
    np.testing.assert_array_equal(samples * 32768, heard[:12000])
    # A second Ctrl-C does not wait for the end: the guess is what remains.
    session.abandon()
    session.close()
    assert json.loads((tmp_path / "a.json").read_text())["text"] == partial.text


def test_a_full_disk_stops_neither_captions_nor_the_rest(
    tiny: streamasr.Recognizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    out = io.StringIO()
    transcript, sound = TranscriptFile(tmp_path / "a.txt"), SoundFile(tmp_path / "a.wav")
    session = Session(tiny.stream, Captions(out, False), transcript, sound)
    monkeypatch.setattr("streamasr.cli.keep.write", full)
    session.connect(device())
    session.hear(as_int16(noise(2.0, 16000)))
    session.disconnect()
    session.close()
    assert session.failed
    assert out.getvalue()
    assert "--save: cannot be written: No space left on device" in capsys.readouterr().err
    assert len(audio.read(tmp_path / "a.wav")[0]) == 32000


def test_hours_of_transcript_are_written_less_often(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("time.monotonic", lambda: now)

    def slow(*_: object) -> None:
        nonlocal now
        now += 0.5

    monkeypatch.setattr("streamasr.cli.keep.write", slow)
    file = TranscriptFile(tmp_path / "a.txt")
    assert file.due
    file.write(streamasr.events.Transcript.of([], 0.0))
    now = 0.5 + 0.5 * 20 - 0.01
    assert not file.due
    now += 0.02
    assert file.due


PORTAUDIO = '''
"""A microphone that gives the samples of a file, in real time, then silence."""
import threading, time, types, wave
import numpy as np

class PortAudioError(Exception):
    pass

default = types.SimpleNamespace(device=[0, 0])

def query_devices():
    return [{"name": "USB", "max_input_channels": 1, "default_samplerate": 16000.0}]

class InputStream:
    active, latency = True, 0.0

    def __init__(self, callback, blocksize, **options):
        self.callback, self.size = callback, blocksize

    def start(self):
        threading.Thread(target=self.play, daemon=True).start()

    def play(self):
        with wave.open("sound.wav") as reader:
            sound = np.frombuffer(reader.readframes(reader.getnframes()), np.int16) / np.float32(32768)
        for first in range(0, 60 * 16000, self.size):
            block = np.zeros((self.size, 1), np.float32)
            part = sound[first : first + self.size]
            block[: len(part), 0] = part
            self.callback(block, self.size, None, None)
            time.sleep(self.size / 16000)

    def close(self):
        pass
'''


@posix
def test_a_real_terminal(tiny_directory: Any, tiny: streamasr.Recognizer, tmp_path: Path) -> None:
    """Keys do not disturb, it may be resized, Ctrl-C ends, and it is left as it was."""
    import fcntl
    import pty
    import select
    import struct
    import subprocess
    import termios

    (tmp_path / "sounddevice.py").write_text(PORTAUDIO)
    sound = as_int16(noise(1.0, 16000))
    with wave.open(str(tmp_path / "sound.wav"), "wb") as writer:
        writer.setnchannels(1)
        writer.setsampwidth(2)
        writer.setframerate(16000)
        writer.writeframes(sound.tobytes())
    text = tiny.transcribe(sound, sample_rate=16000, endpointing=False).text
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    before = termios.tcgetattr(theirs)
    environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
    environment["PYTHONPATH"] = os.pathsep.join([str(tmp_path), str(Path(streamasr.__file__).parents[1])])
    process = subprocess.Popen(
        [sys.executable, "-m", "streamasr", "listen", "--model", str(tiny_directory)],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        cwd=tmp_path,
        env=environment | {"TERM": "xterm"},
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )
    screen = pyte.Screen(80, 24)
    terminal = pyte.ByteStream(screen)

    def wait(condition: Callable[[list[str]], bool]) -> list[str]:
        """Feeds the screen until it is so -> its lines."""
        until = time.monotonic() + 30
        while True:
            lines = [line.rstrip() for line in screen.display]
            if condition(lines):
                return lines
            assert time.monotonic() < until, lines
            if select.select([ours], [], [], 0.1)[0]:
                terminal.feed(os.read(ours, 65536))

    try:
        wait(lambda lines: any("Ctrl-C ends  USB" in line for line in lines))
        os.write(ours, b"\nxyz\n\n")  # impatience
        wait(lambda lines: any(" 0:01  lag" in line for line in lines))
        fcntl.ioctl(ours, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 40, 0, 0))
        screen.resize(24, 40)
        lines = wait(lambda lines: any(" 0:02  lag" in line for line in lines))
        assert sum("lag" in line for line in lines) == 1
        assert not any("xyz" in line for line in lines)
        assert lines[0].startswith("streamasr: listening to USB")
        os.write(ours, b"\x03")
        lines = wait(lambda lines: any(" words" in line for line in lines))
        assert process.wait(30) == 0
        words = " ".join(lines).split()
        assert words.count(text.split()[0]) >= 2, (text, lines)  # as a caption, and in the transcript
        assert "lag" not in words
        assert termios.tcgetattr(theirs) == before
    finally:
        process.kill()
        process.wait()
        os.close(ours)
        os.close(theirs)
