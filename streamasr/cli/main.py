"""streamasr COMMAND ... -> exit code.

0    all done
1    done, but some inputs failed: they are listed on stderr, the results of the others are written
2    wrong usage or configuration
3    the model or checkpoint cannot be used
130  interrupted; what was finished is written
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import importlib.metadata
import io
import os
import sys
import textwrap
from collections.abc import Sequence

from .. import engine
from ..errors import ConfigError, ManifestError, MissingDependency, ModelError, SnapshotError, StreamASRError

DONE, SOME_FAILED, USAGE, MODEL, INTERRUPTED = 0, 1, 2, 3, 130

# One module of this package each; only the one that is asked for is imported.
COMMANDS = {
    "transcribe": "recordings -> text, subtitles or JSON",
    "listen": "microphone -> live captions in the terminal",
    "serve": "server for live captions: web page and WebSocket",
    "evaluate": "manifests -> word error rate and speed",
    "train": "configuration -> trained model",
    "export": "checkpoint or model -> model of float16 or int8 numbers",
    "train-lm": "texts -> LSTM language model",
    "generate": "LSTM language model -> text, to see what it has learnt",
    "info": "what a model is: latency, size, licence",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line without the program's name (default: that of this process) -> exit code."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by whoever started this process
            setattr(sys, name, open(os.devnull, "w"))
    if isinstance(sys.stdout, io.TextIOWrapper):  # a file's name may hold what the terminal cannot show
        sys.stdout.reconfigure(errors="backslashreplace")
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        return _run(given)
    except KeyboardInterrupt:
        say("interrupted")
        return INTERRUPTED
    except BrokenPipeError:  # the reader of the output, such as `head`, has gone
        # Or Python complains once more when it flushes at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return SOME_FAILED
    except (ModelError, SnapshotError) as error:
        say(error)
        return MODEL
    except (ConfigError, ManifestError, MissingDependency) as error:
        say(error)
        return USAGE
    except StreamASRError as error:
        say(error)
        return SOME_FAILED
    except OSError as error:  # a full disk, for instance
        say(f"{error.filename or 'output'}: cannot be written or read: {error.strerror or error}")
        return SOME_FAILED


def say(message: object) -> None:
    """One message for people, on stderr."""
    print(f"streamasr: {message}", file=sys.stderr, flush=True)


def _run(given: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="streamasr", description="Streaming speech recognition.")
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = "exit codes:\n" + textwrap.indent((__doc__ or "").partition("\n\n")[2].rstrip(), "  ")
    version = importlib.metadata.version("streamasr")
    parser.add_argument("--version", action="version", version=f"streamasr {version}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    asked = next((argument for argument in given if not argument.startswith("-")), None)
    for name, summary in COMMANDS.items():
        command = commands.add_parser(name, help=summary, description=summary, allow_abbrev=False)
        if name == asked:
            module = importlib.import_module(f"{__package__}.{name.replace('-', '_')}")
            module.add_arguments(command)
            command.set_defaults(run=module.run)
    try:
        options = parser.parse_args(given)
    except SystemExit as error:  # argparse has printed the help, or what is wrong
        return int(error.code or 0)
    with contextlib.ExitStack() as around:
        if asked not in ("train", "train-lm"):
            around.enter_context(_one_blas_thread())
        if asked in ("transcribe", "listen", "serve") and sys.stderr.isatty():
            message = "compiling for this processor, some 20 seconds, once"
            around.enter_context(engine.compilation_told(lambda: say(message)))
        code: int = options.run(options)
    sys.stdout.flush()
    return code


def _one_blas_thread() -> contextlib.AbstractContextManager[object]:
    """Products of one stream are too small to share out: threads would only wait for each other."""
    try:
        from threadpoolctl import threadpool_limits
    except ImportError:
        return contextlib.nullcontext()
    return threadpool_limits(1, "blas")  # type: ignore[no-any-return]


if __name__ == "__main__":
    sys.exit(main())
