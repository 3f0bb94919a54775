"""`streamasr listen` on a real microphone that is not there: PulseAudio's null sink, whose monitor PortAudio
opens through ALSA. It needs no sound card."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import wave
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import jiwer
import numpy as np
import pytest
from numpy.typing import NDArray

import streamasr
from streamasr import audio

RATE = 44_100  # what ALSA's plugin offers, and so the only one that nobody resamples
SAMPLE = Path(__file__).parent.parent / "demo" / "samples" / "train.flac"
PLUGINS = [*Path("/usr/lib").glob("**/alsa-lib/libasound_module_pcm_pulse.so")]
PATIENCE = 30.0  # seconds that a busy machine may take for anything

pytestmark = [
    pytest.mark.skipif(
        not all(map(shutil.which, ("pulseaudio", "pactl", "paplay"))),
        reason="PulseAudio is missing (Debian: pulseaudio, pulseaudio-utils)",
    ),
    pytest.mark.skipif(not PLUGINS, reason="ALSA's pulse plugin is missing (Debian: libasound2-plugins)"),
]

ALSA = """
pcm_type.pulse {{ lib "{plugin}" }}
pcm.!default {{ type pulse hint {{ show on description "Virtual" }} }}
"""
PULSE = f"""
load-module module-native-protocol-unix
load-module module-null-sink sink_name=virtual format=s16le rate={RATE} channels=2
set-default-source virtual.monitor
"""


def wait(condition: Callable[[], object], what: str) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, f"waited in vain for: {what}"
        time.sleep(0.02)


class Machine:
    """A sound server of its own, in a folder of its own, with a virtual microphone."""

    def __init__(self, folder: Path) -> None:
        (folder / "alsa.conf").write_text(ALSA.format(plugin=PLUGINS[0]))
        (folder / "default.pa").write_text(PULSE)
        (folder / "client.conf").write_text("autospawn = no\n")
        self.folder = folder
        self.environment = os.environ | {
            "HOME": str(folder),
            "XDG_RUNTIME_DIR": str(folder),
            "ALSA_CONFIG_PATH": str(folder / "alsa.conf"),
            "PULSE_SERVER": f"unix:{folder}/pulse/native",
            "PULSE_CLIENTCONFIG": str(folder / "client.conf"),
        }
        options = ("-n", "-F", str(folder / "default.pa"), "--exit-idle-time=-1", "--use-pid-file=no")
        self.server = subprocess.Popen(
            ["pulseaudio", *options], env=self.environment, stderr=subprocess.DEVNULL
        )
        wait(lambda: "virtual.monitor" in self.control("list", "short", "sources"), "PulseAudio")

    def control(self, *command: str) -> str:
        return subprocess.run(
            ["pactl", *command], env=self.environment, capture_output=True, text=True
        ).stdout

    def play(self, path: Path) -> subprocess.Popen[bytes]:
        return subprocess.Popen(["paplay", str(path)], env=self.environment, stderr=subprocess.DEVNULL)


class Listener:
    """`streamasr listen` on that machine, whose output goes to files."""

    def __init__(self, machine: Machine, folder: Path) -> None:
        self.out, self.err = folder / "out", folder / "err"
        self.json, self.wav = folder / "a.json", folder / "a.wav"
        keep = ("--save", str(self.json), "--save-audio", str(self.wav))
        with self.out.open("w") as out, self.err.open("w") as err:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "streamasr", "listen", *keep],
                env=machine.environment,
                stdout=out,
                stderr=err,
            )
        self.wait_told("listening to default")

    def wait_told(self, text: str) -> None:
        wait(lambda: text in self.err.read_text() or self.process.poll() is not None, text)
        assert self.process.poll() is None, self.err.read_text()

    def heard(self) -> NDArray[np.int16]:
        """The sound it has kept until now."""
        if not self.wav.exists() or self.wav.stat().st_size < 44:
            return np.zeros(0, np.int16)
        with wave.open(str(self.wav)) as reader:
            return np.frombuffer(reader.readframes(reader.getnframes()), np.int16)

    def end(self) -> None:
        self.process.send_signal(signal.SIGINT)
        assert self.process.wait(PATIENCE) == 0, self.err.read_text()


@contextmanager
def listening(machine: Machine, folder: Path) -> Iterator[Listener]:
    listener = Listener(machine, folder)
    try:
        yield listener
    finally:
        listener.process.kill()
        listener.process.wait()


@pytest.fixture(scope="module")
def machine() -> Iterator[Machine]:
    try:
        import sounddevice  # noqa: F401
    except (ImportError, OSError):
        pytest.skip("PortAudio is missing (Debian: libportaudio2; pip: sounddevice)")
    with tempfile.TemporaryDirectory() as folder:  # a socket's path must be short, pytest's are not
        machine = Machine(Path(folder))
        try:
            yield machine
        finally:
            machine.server.terminate()
            machine.server.wait()


@pytest.fixture(scope="module")
def speech(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recording at the microphone's rate, which begins and ends with a word, after a moment of silence:
    the start of a player is not in what PulseAudio's monitor gives."""
    resample_poly = pytest.importorskip("scipy.signal").resample_poly
    samples, rate = audio.read(SAMPLE)
    samples = np.clip(np.rint(32768 * resample_poly(samples, RATE // 100, rate // 100)), -32768, 32767)
    samples = np.concatenate([np.zeros(RATE // 5), samples])
    path = tmp_path_factory.mktemp("speech") / "speech.wav"
    with wave.open(str(path), "wb") as writer:
        writer.setnchannels(1)
        writer.setsampwidth(2)
        writer.setframerate(RATE)
        writer.writeframes(samples.astype("<i2").tobytes())
    return path


def test_what_is_played_is_what_is_written(
    machine: Machine, speech: Path, shipped: streamasr.Recognizer, tmp_path: Path
) -> None:
    with listening(machine, tmp_path) as listener:
        wait(lambda: len(listener.heard()), "silence")  # a sink that was idle takes a second to wake up
        assert machine.play(speech).wait(PATIENCE) == 0
        listener.end()  # at once: the last word is still on its way
    with wave.open(str(speech)) as reader:
        played = np.frombuffer(reader.readframes(reader.getnframes()), np.int16)
    heard = listener.heard()
    # Every sample has arrived, the first and the last too.
    np.testing.assert_array_equal(np.trim_zeros(heard), np.trim_zeros(played))

    exactly = shipped.transcribe(listener.wav)
    assert json.loads(listener.json.read_text()) == exactly.to_dict()
    told = listener.out.read_text().split()
    assert told == exactly.text.split()
    whole = shipped.transcribe(speech).text.split()
    assert (told[0], told[-1]) == (whole[0], whole[-1])
    # The same sound, but frames begin elsewhere in it: not quite the same letters.
    assert jiwer.cer(" ".join(whole), " ".join(told)) < 0.3
    assert "Expression" not in listener.err.read_text()  # PortAudio's own words


def test_muted_then_unplugged_then_back(machine: Machine, speech: Path, tmp_path: Path) -> None:
    with listening(machine, tmp_path) as listener:
        machine.control("set-source-mute", "virtual.monitor", "1")
        player = machine.play(speech)
        listener.wait_told("the microphone is muted or silent: nothing but zeros arrive")
        machine.control("set-source-mute", "virtual.monitor", "0")
        wait(lambda: listener.heard().any(), "sound")
        assert not listener.out.read_text()
        machine.control("unload-module", "module-null-sink")
        listener.wait_told("default was disconnected; waiting for it")
        player.kill()
        player.wait()
        before = listener.out.read_text()
        assert before.strip()  # what was said before is told while the device is away

        for line in PULSE.splitlines()[2:]:
            machine.control(*line.split())
        listener.wait_told("default is back after")
        assert machine.play(speech).wait(PATIENCE) == 0
        listener.end()
    after = listener.out.read_text().removeprefix(before).split()
    assert (after[0], after[-1]) == ("we", "morning")
    assert "Expression" not in listener.err.read_text()
    saved = json.loads(listener.json.read_text())
    assert saved["text"].split() == listener.out.read_text().split()
    starts = [word["start"] for word in saved["words"]]
    assert starts == sorted(starts)
    assert saved["duration"] == pytest.approx(len(listener.heard()) / RATE)
