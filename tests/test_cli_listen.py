"""The microphone and its captions, with a stand-in for PortAudio (the package sounddevice)."""

from __future__ import annotations

import io
import os
import re
import shutil
import signal
import sys
import threading
import types
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import streamasr
from streamasr.cli.captions import BRIGHT, DIM, NORMAL, Captions, lines
from streamasr.cli.main import main
from streamasr.errors import AudioError, ConfigError, MissingDependency
from streamasr.events import Final, Partial
from streamasr.live import microphone
from streamasr.live.microphone import Microphone, devices

Captured = pytest.CaptureFixture[str]


class PortAudioError(Exception):
    pass


class FakeStream:
    """Plays `sound` [n, 2] into the callback, as fast as it is taken, then calls `at_end`."""

    sound: NDArray[np.float32] = np.zeros((0, 2), np.float32)
    at_end: Callable[[], None] = staticmethod(lambda: None)
    refuses = False

    def __init__(self, **options: Any) -> None:
        if self.refuses:
            raise PortAudioError("Device unavailable")
        self.options = options

    def start(self) -> None:
        threading.Thread(target=self._play).start()

    def _play(self) -> None:
        size = self.options["blocksize"]
        for first in range(0, len(self.sound), size):
            block = self.sound[first : first + size].copy()
            self.options["callback"](block, len(block), None, None)
            block[:] = np.nan  # PortAudio uses its memory again
        self.at_end()

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
    module.InputStream = type("Stream", (FakeStream,), {})
    module.PortAudioError = PortAudioError
    monkeypatch.setitem(sys.modules, "sounddevice", module)
    return module


@pytest.fixture
def no_portaudio(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    (tmp_path / "sounddevice.py").write_text('raise OSError("PortAudio library not found")')
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "sounddevice", raising=False)


def noise(seconds: float, rate: int) -> NDArray[np.float32]:
    one = 0.3 * np.random.default_rng(1).standard_normal(round(seconds * rate))
    return np.stack([one, one], axis=1).astype(np.float32)


def test_devices_are_the_inputs(sounddevice: Any) -> None:
    assert [(d.id, d.sample_rate, d.is_default) for d in devices()] == [(1, 44100, False), (2, 16000, True)]


def test_chunks_are_the_mean_of_the_channels_and_nothing_is_lost(sounddevice: Any) -> None:
    sound = noise(1.03, 44100)
    sound[:, 1] = 0
    sounddevice.InputStream.sound = sound
    opened = Microphone("built")
    sounddevice.InputStream.at_end = staticmethod(opened.stop)
    with opened:
        assert opened.sample_rate == 44100
        heard = np.concatenate(list(opened))
    np.testing.assert_array_equal(heard, sound[:, 0] / 2)
    assert heard.dtype == np.float32
    assert opened.lost_samples == 0


def test_a_full_queue_drops_and_counts(sounddevice: Any) -> None:
    sounddevice.InputStream.sound = noise(microphone.QUEUE_SECONDS + 1, 16000)
    finished = threading.Event()
    sounddevice.InputStream.at_end = staticmethod(finished.set)
    with Microphone() as opened:
        assert finished.wait(10)
        opened.stop()
        heard = sum(len(chunk) for chunk in opened)
    assert heard == microphone.QUEUE_SECONDS * 16000
    assert opened.lost_samples == 16000


def test_a_device_that_goes_away(sounddevice: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(microphone, "SILENT_SECONDS", 0.2)
    with Microphone() as opened, pytest.raises(AudioError, match="USB microphone: gives no sound any more"):
        list(opened)


@pytest.mark.parametrize(
    ("wanted", "message"),
    [(0, "device 0 is no input"), ("mic", "several inputs.*1 .*2 "), ("phone line", "is no input; choose")],
)
def test_devices_that_cannot_be_meant(sounddevice: Any, wanted: int | str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Microphone(wanted).__enter__()


def test_a_device_in_use(sounddevice: Any) -> None:
    sounddevice.InputStream.refuses = True
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


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_ctrl_c_is_the_ordinary_end(
    sounddevice: Any, capsys: Captured, tiny_directory: Any, tiny: streamasr.Recognizer
) -> None:
    sounddevice.InputStream.sound = noise(1.0, 44100)
    sounddevice.InputStream.at_end = staticmethod(lambda: os.kill(os.getpid(), signal.SIGINT))
    before = signal.getsignal(signal.SIGINT)
    assert main(["listen", "--device", "1", "--model", str(tiny_directory)]) == 0
    assert signal.getsignal(signal.SIGINT) is before
    expected = tiny.transcribe(noise(1.0, 44100)[:, 0], sample_rate=44100)
    assert expected.text
    written = capsys.readouterr()
    assert written.out.split() == expected.text.split()
    assert "listening to Built-in microphone" in written.err


def test_a_device_that_goes_away_still_gives_the_last_words(
    sounddevice: Any, capsys: Captured, tiny_directory: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(microphone, "SILENT_SECONDS", 0.3)
    sounddevice.InputStream.sound = noise(1.0, 16000)
    assert main(["listen", "--model", str(tiny_directory)]) == 1
    written = capsys.readouterr()
    assert written.out.strip()
    assert "still connected?" in written.err


class Screen:
    """Enough of a terminal to see what stands on it: carriage return, lines up, erase below, marks."""

    def __init__(self) -> None:
        self.rows = [""]
        self.row = self.column = 0

    def feed(self, text: str) -> None:
        for piece in re.findall(r"\x1b\[\d*[A-Za-z]|.|\n", text):
            if piece == "\n":
                self.row, self.column = self.row + 1, 0
                if self.row == len(self.rows):
                    self.rows.append("")
            elif piece == "\r":
                self.column = 0
            elif piece.endswith("A") and piece[0] == "\x1b":
                self.row -= int(piece[2:-1])
                assert self.row >= 0
            elif piece == "\x1b[J":
                self.rows = [*self.rows[: self.row], self.rows[self.row][: self.column]]
            elif piece[0] != "\x1b":
                assert self.column == len(self.rows[self.row])
                self.rows[self.row] += piece
                self.column += 1


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "get_terminal_size", lambda: os.terminal_size((21, 5)))


def final(text: str) -> Final:
    return Final(0, text, (), 0.0, 1.0, 1.0, "finish")


def test_captions_are_redrawn_in_place(terminal: None) -> None:
    out, screen = io.StringIO(), Screen()
    captions = Captions(out, in_place=True)
    captions.show(Partial(0, "", "one too", (), 0.5))
    captions.show(Partial(0, "one", "two three four five six seven", (), 1.0))
    captions.show(Partial(0, "one two", "three", (), 1.5))
    captions.show(final("one two three"))
    captions.show(Partial(1, "", "four", (), 2.0))
    captions.line("[a note]")
    captions.show(Partial(1, "", "four", (), 2.0))
    screen.feed(out.getvalue())
    assert screen.rows == ["one two three", "[a note]", "four"]


def test_more_lines_than_the_terminal_has(terminal: None) -> None:
    out = io.StringIO()
    captions = Captions(out, in_place=True)
    text = " ".join(f"word{i}" for i in range(100))
    captions.show(Partial(0, "", text, (), 0.5))
    assert out.getvalue().count("\n") == 3
    assert "word99" in out.getvalue()
    captions.show(final(text))
    assert "\x1b[3A" in out.getvalue()


def test_stable_is_bright_and_the_rest_dim() -> None:
    assert lines("one two", "one two three", 40) == [f"{BRIGHT}one two{NORMAL}{DIM} three{NORMAL}"]
    assert lines("one two", "one two three", 9) == [
        f"{BRIGHT}one two{NORMAL}{DIM}{NORMAL}",
        f"{BRIGHT}{NORMAL}{DIM}three{NORMAL}",
    ]


def test_plain_lines_where_the_output_is_no_terminal() -> None:
    out = io.StringIO()
    captions = Captions(out, in_place=False)
    captions.show(Partial(0, "one", "two", (), 1.0))
    captions.show(final("one two " * 50))
    assert out.getvalue() == "one two " * 50 + "\n"


def test_a_model_cannot_steer_the_terminal(terminal: None) -> None:
    out = io.StringIO()
    captions = Captions(out, in_place=True)
    captions.show(Partial(0, "", "a\x1b[2Jb", (), 0.5))
    captions.show(final("a\x1b]0;title\x07b"))
    assert "\x1b[2J" not in out.getvalue()
    assert "a?]0;title?b" in out.getvalue()
