"""streamasr transcribe: recordings -> text, JSON or subtitles."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import AudioError, ConfigError, MissingDependency, StreamASRError
from . import phrases
from .main import DONE, INTERRUPTED, SOME_FAILED, say
from .output import make_folder, write

if TYPE_CHECKING:
    from ..audio import Samples
    from ..events import Transcript

    Recognize = Callable[[str], Transcript]  # name of a recording, or "-" -> what is said

STDIN = "-"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("files", nargs="+", metavar="FILE", help="recording; - for standard input")
    parser.add_argument("--format", choices=("txt", "json", "srt", "vtt"), default="txt", help="default: txt")
    parser.add_argument("--output", type=Path, metavar="DIR", help="one file per recording there, not stdout")
    parser.add_argument(
        "--at-endpoint",
        choices=("carry", "reset", "overlap"),
        default="carry",
        help="what becomes of the acoustic memory at the end of a segment; default: carry",
    )
    phrases.add_arguments(parser)
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--model", metavar="NAME|PATH", help="default: the English model that is installed")
    where.add_argument("--server", metavar="URL", help="let a server do it, such as ws://127.0.0.1:8765")
    parser.add_argument("--token", metavar="T", help="the server's; default: $STREAMASR_TOKEN, if it is set")


def run(options: argparse.Namespace) -> int:
    """Every recording that can be read is transcribed; the others are named at the end."""
    from .render import FORMATS

    files: list[str] = options.files
    if files.count(STDIN) > 1:
        raise ConfigError("- is given more than once; standard input can be read only once")
    targets: list[Path] = []
    if options.output is not None:
        make_folder(options.output, "--output")
        targets = target_paths(files, options.output, options.format)
    recognize = _local(options) if options.server is None else _remote(options)
    failed: list[str] = []
    gathered: list[dict[str, object]] = []  # JSON of several recordings on stdout is one list
    as_list = options.format == "json" and len(files) > 1 and not targets
    code = DONE
    try:
        for i, file in enumerate(files):
            transcript = _transcribe(recognize, file, failed)
            if transcript is None:
                continue
            text = FORMATS[options.format](transcript)
            if targets:
                write(targets[i], text)
            elif as_list:
                gathered.append({"file": file, **transcript.to_dict()})
            else:
                if len(files) > 1:
                    print(f"==> {file} <==")
                    text += "\n"
                print(text, end="", flush=True)
    except KeyboardInterrupt:
        say("interrupted; what was finished is written")
        code = INTERRUPTED
    if as_list:
        print(json.dumps(gathered, ensure_ascii=False, indent=2))
    if failed and len(files) > 1:
        say(f"{len(failed)} of {len(files)} recordings failed: {', '.join(failed)}")
    return code or (SOME_FAILED if failed else DONE)


def target_paths(files: Sequence[str], folder: Path, suffix: str) -> list[Path]:
    """Recordings -> file for each in `folder`, all different, and none of them a recording itself.

    talk.wav -> talk.txt; where that is taken talk-2.txt, and so on, which is said on stderr.
    """
    # Compared without case: some file systems do not know it.
    taken = {str(Path(file).resolve()).casefold() for file in files}
    targets = []
    for file in files:
        stem = "stdin" if file == STDIN else Path(file).stem
        target, number = folder / f"{stem}.{suffix}", 1
        while str(target.resolve()).casefold() in taken:
            number += 1
            target = folder / f"{stem}-{number}.{suffix}"
        taken.add(str(target.resolve()).casefold())
        targets.append(target)
        if number > 1:
            say(f"{file}: result goes to {target}, as {stem}.{suffix} is taken")
    return targets


def _local(options: argparse.Namespace) -> Recognize:
    """This process transcribes."""
    import streamasr

    told = {"at_endpoint": options.at_endpoint, **phrases.arguments(options)}
    recognizer = streamasr.load() if options.model is None else streamasr.load(options.model)
    recognizer.stream(**told)  # whatever is wrong with it or with these is told now, not once a recording

    def recognize(file: str) -> Transcript:
        if file == STDIN:
            return recognizer.transcribe(*_stdin(), **told)
        return recognizer.transcribe(file, **told)

    return recognize


def _remote(options: argparse.Namespace) -> Recognize:
    """A server transcribes."""
    try:
        from ..live.client import check_address, transcribe
    except ImportError as error:
        raise MissingDependency(
            f"--server needs the package {error.name}: pip install starlette uvicorn websockets"
        ) from error
    from ..audio import BLOCK_SECONDS, blocks

    check_address(options.server)
    told = {"at_endpoint": options.at_endpoint, **phrases.arguments(options)}
    told.pop("search", None)  # the server's model decides
    told["token"] = options.token if options.token is not None else os.environ.get("STREAMASR_TOKEN", "")

    def recognize(file: str) -> Transcript:
        pieces: Iterable[tuple[Samples, int]]
        name, pieces = ("samples", [_stdin()]) if file == STDIN else (file, blocks(file, BLOCK_SECONDS))
        return transcribe(options.server, pieces, name=name, **told)

    return recognize


def _stdin() -> tuple[Samples, int]:
    from ..audio import read_stream

    if sys.stdin is None:  # closed by whoever started this process
        raise AudioError("standard input: is closed; send a recording")
    return read_stream(sys.stdin.buffer)


def _transcribe(recognize: Recognize, file: str, failed: list[str]) -> Transcript | None:
    """The transcript, or None with the reason on stderr and the file's name added to `failed`."""
    try:
        return recognize(file)
    except StreamASRError as error:
        say(error)
    except Exception as error:  # a fault of ours in one recording must not cost the others
        say(f"{file}: internal error: {error!r}")
    failed.append(file)
    return None
