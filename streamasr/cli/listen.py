"""streamasr listen: microphone -> live captions, until Ctrl-C."""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from ..errors import AudioError, ConfigError
from . import phrases
from .main import DONE, SOME_FAILED, say

if TYPE_CHECKING:
    from ..live.microphone import Microphone
    from ..stream import Stream
    from .session import Session

REDRAW_SECONDS = 0.1
RETRY_SECONDS = 1.0  # how often a device that has gone is looked for; chosen


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", metavar="ID|NAME", help="microphone; default: the system's")
    parser.add_argument("--list-devices", action="store_true", help="list the microphones and end")
    parser.add_argument(
        "--save", type=Path, metavar="FILE", help="keep the transcript there: .txt, .srt, .vtt or .json"
    )
    parser.add_argument("--save-audio", type=Path, metavar="FILE.wav", help="keep the sound there")
    phrases.add_arguments(parser)
    parser.add_argument("--model", metavar="NAME|PATH", help="default: the English model that is installed")


def run(options: argparse.Namespace) -> int:
    """Ctrl-C is the ordinary end: the last words are still written."""
    from ..live.microphone import Microphone, devices

    if options.list_devices:
        for device in devices():
            mark = "*" if device.is_default else " "
            print(
                f"{mark} {device.id:3}  {device.name}  ({device.sample_rate} Hz, {device.channels} channels)"
            )
        return DONE

    from .captions import Captions
    from .keep import SoundFile, TranscriptFile
    from .session import Session

    saved = TranscriptFile(options.save) if options.save else None
    sound = SoundFile(options.save_audio) if options.save_audio else None
    for kept, asked in ((saved, options.save), (sound, options.save_audio)):
        if kept is not None and kept.path != asked:
            say(f"{asked} is there already: kept in {kept.path}")
    open_stream = _opener(options)
    wanted = options.device
    in_place = sys.stdout.isatty() and os.environ.get("TERM") != "dumb"
    captions = Captions(sys.stdout, in_place, coloured=not os.environ.get("NO_COLOR"))
    session = Session(open_stream, captions, saved, sound)
    with _libraries_silenced(), _keys_silenced(in_place), _end_by_signal() as ended:
        try:
            _listen(session, Microphone(int(wanted) if wanted and wanted.isdecimal() else wanted), ended)
        except BaseException:
            session.abandon()
            raise
        finally:
            session.close()
    return SOME_FAILED if session.failed else DONE


def _opener(options: argparse.Namespace) -> Callable[[int], Stream]:
    """Model and hotwords -> what opens a stream at a rate in Hz. Whatever is wrong with them is told now."""
    import streamasr

    told = phrases.arguments(options)
    recognizer = streamasr.load() if options.model is None else streamasr.load(options.model)

    def open_stream(sample_rate: int) -> Stream:
        return recognizer.stream(sample_rate, **told)

    # Whatever is compiled or read when it is first used must not keep the first words waiting.
    stream = open_stream(16_000)
    stream.accept([0.0] * 16_000)
    stream.finish()
    return open_stream


def _listen(session: Session, microphone: Microphone, ended: threading.Event) -> None:
    """Hears the microphone until `ended`; where it goes away, waits until it is back.

    Raises what opening it for the first time raises.
    """
    while not ended.is_set():
        try:
            with microphone:
                session.connect(microphone)
                for chunk in microphone:
                    session.hear(chunk)
                    if ended.is_set():
                        microphone.stop()
            session.disconnect()
        except (AudioError, ConfigError):
            if not session.connected:
                raise
            session.disconnect()
            again = time.monotonic() + RETRY_SECONDS
            while time.monotonic() < again and not ended.wait(REDRAW_SECONDS):
                session.redraw()
            if ended.is_set():
                return
            with contextlib.suppress(AudioError):
                microphone = microphone.again()


@contextlib.contextmanager
def _end_by_signal() -> Iterator[threading.Event]:
    """The event is set by Ctrl-C, a request to terminate or a terminal that is closed; a second one of them
    ends at once."""
    ended = threading.Event()
    numbers = [signal.SIGINT, signal.SIGTERM]
    hangup = getattr(signal, "SIGHUP", None)  # not on Windows
    if hangup is not None and signal.getsignal(hangup) != signal.SIG_IGN:  # as nohup leaves it
        numbers.append(hangup)
    before = {number: signal.getsignal(number) for number in numbers}

    def end(number: int, frame: FrameType | None) -> None:
        # Not in the middle of a chunk: the stream is still to be finished.
        ended.set()
        restore()

    def restore() -> None:
        for number in numbers:
            signal.signal(number, before[number])

    for number in numbers:
        signal.signal(number, end)
    try:
        yield ended
    finally:
        restore()


@contextlib.contextmanager
def _keys_silenced(in_place: bool) -> Iterator[None]:
    """What is typed does not appear among captions that are redrawn `in_place`; Ctrl-C still works."""
    try:
        import termios
    except ImportError:  # Windows
        in_place = False
    if not in_place or not os.isatty(0):
        yield
        return
    before = termios.tcgetattr(0)
    silent = [*before[:3], before[3] & ~termios.ECHO, *before[4:]]
    termios.tcsetattr(0, termios.TCSANOW, silent)
    try:
        yield
    finally:
        termios.tcsetattr(0, termios.TCSAFLUSH, before)  # nor is it typed into what comes after


@contextlib.contextmanager
def _libraries_silenced() -> Iterator[None]:
    """PortAudio and ALSA write to file descriptor 2 themselves, in the middle of the captions: while this
    lasts it leads nowhere, and what Python writes to stderr goes where it went before."""
    try:
        ours = os.dup(2)
    except OSError:  # closed
        yield
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    python = sys.stderr
    os.dup2(nowhere, 2)
    os.close(nowhere)
    try:
        with contextlib.ExitStack() as stack:
            if python is sys.__stderr__ and python is not None:
                python.flush()
                kind, errors = python.encoding, python.errors
                sys.stderr = stack.enter_context(
                    open(os.dup(ours), "w", buffering=1, encoding=kind, errors=errors)
                )
            yield
    finally:
        sys.stderr = python
        os.dup2(ours, 2)
        os.close(ours)
