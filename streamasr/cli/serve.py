"""streamasr serve: live captions for browsers and programs, until Ctrl-C."""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import signal
import sys
import time
from typing import TYPE_CHECKING

from ..errors import ConfigError, MissingDependency
from .main import DONE

if TYPE_CHECKING:
    from ..live.server import Server

OURS = "streamasr.live"  # logger
_PER_ADDRESS = 8  # chosen: a family or an office behind one address, not all of a server


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on; default: %(default)s")
    parser.add_argument("--port", type=int, default=8765, help="0: any free one; default: %(default)s")
    parser.add_argument(
        "--token", metavar="T", help="what clients must know; default: $STREAMASR_TOKEN, if that is set"
    )
    parser.add_argument("--insecure", action="store_true", help="no token, though others can reach --host")
    parser.add_argument(
        "--origin", action="append", default=[], metavar="URL", help="another page that may connect"
    )
    parser.add_argument(
        "--max-streams", type=int, metavar="N", help="default: what this machine's measured speed allows"
    )
    parser.add_argument(
        "--max-per-address",
        type=int,
        metavar="N",
        help="sessions of one client's address; default: 8 if others can reach --host, else no limit",
    )
    parser.add_argument("--model", metavar="NAME|PATH", help="default: the English model that is installed")
    parser.add_argument("--quiet", action="store_true", help="no log")


def run(options: argparse.Namespace) -> int:
    """Ctrl-C and SIGTERM are the ordinary end: sessions are finished, their last words told."""
    try:
        from ..live.hub import Limits
        from ..live.server import Server, is_local
    except ImportError as error:
        raise MissingDependency(
            f"the server needs the package {error.name}: pip install starlette uvicorn websockets"
        ) from error
    import streamasr

    for name in ("max_streams", "max_per_address"):
        value = getattr(options, name)
        if value is not None and value < 1:
            raise ConfigError(f"--{name.replace('_', '-')} must be 1 or more, not {value}")
    if not 0 <= options.port <= 65_535:
        raise ConfigError(f"--port must be 0 to 65535, not {options.port}")
    recognizer = streamasr.load() if options.model is None else streamasr.load(options.model)
    _log(options.quiet)
    most = options.max_per_address or (None if is_local(options.host) else _PER_ADDRESS)
    server = Server(
        recognizer,
        host=options.host,
        port=options.port,
        token=options.token if options.token is not None else os.environ.get("STREAMASR_TOKEN", ""),
        insecure=options.insecure,
        origins=options.origin,
        limits=Limits(max_streams=options.max_streams, per_address=most),
    )
    asyncio.run(_serve(server))
    return DONE


async def _serve(server: Server) -> None:
    loop = asyncio.get_running_loop()
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.getsignal(number) for number in numbers]

    def end(*_: object) -> None:
        server.stop()
        for number, handler in zip(numbers, before, strict=True):  # a second one ends at once
            signal.signal(number, handler)

    for number in numbers:
        signal.signal(number, lambda *_: loop.call_soon_threadsafe(end))

    def ready() -> None:
        print(
            f"streamasr: listening on {server.url} (at most {server.hub.max_streams} streams; Ctrl-C ends)",
            flush=True,
        )

    await server.run(ready)


def _log(quiet: bool) -> None:
    """The server's log, and what uvicorn complains of, on stderr; or nothing."""

    class Lines(logging.Formatter):
        def format(self, record: logging.LogRecord) -> str:
            when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(record.created))
            if record.name == OURS:
                return json.dumps({"time": when, **json.loads(record.getMessage())})
            # Not what its messages are about: a traceback may hold what a client has sent.
            kind = record.exc_info[0].__name__ if record.exc_info and record.exc_info[0] else None
            return json.dumps({"time": when, "event": "uvicorn", "level": record.levelname, "error": kind})

    for name, level in ((OURS, logging.INFO), ("uvicorn.error", logging.ERROR)):
        handler = logging.NullHandler() if quiet else logging.StreamHandler(sys.stderr)
        handler.setFormatter(Lines())
        logger = logging.getLogger(name)
        logger.addHandler(handler)
        logger.setLevel(level)
        logger.propagate = False
