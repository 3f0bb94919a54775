"""streamasr listen: microphone -> live captions, until Ctrl-C."""

from __future__ import annotations

import argparse
import signal
import sys
from types import FrameType
from typing import TYPE_CHECKING

from ..errors import AudioError
from .main import DONE, say

if TYPE_CHECKING:
    from ..live.microphone import Microphone
    from ..stream import Stream
    from .captions import Captions


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", metavar="ID|NAME", help="microphone; default: the system's")
    parser.add_argument("--list-devices", action="store_true", help="list the microphones and end")
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

    import streamasr

    from .captions import Captions

    recognizer = streamasr.load(options.model) if options.model else streamasr.load()
    wanted = options.device
    microphone = Microphone(int(wanted) if wanted is not None and wanted.isdecimal() else wanted)
    captions = Captions(sys.stdout, sys.stdout.isatty())
    before = signal.getsignal(signal.SIGINT)

    def end(number: int, frame: FrameType | None) -> None:
        # Not in the middle of a chunk: the stream is still to be finished. A second one ends at once.
        microphone.stop()
        signal.signal(signal.SIGINT, before)

    signal.signal(signal.SIGINT, end)
    try:
        with microphone:
            say(f"listening to {microphone.name}; end with Ctrl-C")
            stream = recognizer.stream(sample_rate=microphone.sample_rate)
            problem = _listen(microphone, stream, captions)
    finally:
        signal.signal(signal.SIGINT, before)
    for event in stream.finish():
        captions.show(event)
    if problem is not None:
        raise problem
    return DONE


def _listen(microphone: Microphone, stream: Stream, captions: Captions) -> AudioError | None:
    """Shows what is said until the microphone is stopped (None) or gone (what it said)."""
    lost = 0
    try:
        for chunk in microphone:
            for event in stream.accept(chunk):
                captions.show(event)
            if microphone.lost_samples > lost:
                seconds = (microphone.lost_samples - lost) / microphone.sample_rate
                captions.line(f"[this machine is too slow: {seconds:.1f} seconds were not heard]")
                lost = microphone.lost_samples
    except AudioError as error:
        return error
    return None
