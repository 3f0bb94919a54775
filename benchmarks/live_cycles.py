"""Part of live.py: a server in a process of its own, and clients that come and go."""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from websockets.sync.client import connect


@contextlib.contextmanager
def serving(options: argparse.Namespace, streams: int) -> Iterator[tuple[str, int]]:
    """A server in a process of its own -> (address without scheme, process id)."""
    command = [sys.executable, "-m", "streamasr", "serve", "--port", "0", "--quiet"]
    command += ["--max-streams", str(streams), "--model", options.model]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        found = re.search(r"http:(//[^ ]+)", process.stdout.readline())
        if found is None:
            sys.exit("the server does not start")
        try:
            yield found[1], process.pid
        finally:
            process.send_signal(signal.SIGTERM)


def numbers(where: str) -> dict[str, float]:
    """The server's metrics that have no labels, without their prefix."""
    with urllib.request.urlopen(f"http:{where}/metrics") as answer:
        rows = [row.rsplit(" ", 1) for row in answer.read().decode().splitlines() if row[0] != "#"]
    return {name.removeprefix("streamasr_"): float(value) for name, value in rows if "{" not in name}


def processor_seconds(process: int) -> float:
    """What a process has used, system calls included."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def cycles(options: argparse.Namespace) -> int:
    logging.getLogger("websockets").setLevel(logging.CRITICAL)  # it says so when we cut its lines
    """`options.count` clients of all kinds, after a third as many that warm the server up -> code."""
    kinds = itertools.cycle(("whole", "drop", "garbage", "huge", "mute", "abandon", "raw", "resume", "flood"))
    sound = np.zeros(1600, "<i2").tobytes()

    def one(where: str, kind: str) -> None:
        host, port = where.strip("/").split(":")
        if kind == "raw":
            with socket.create_connection((host, int(port))) as raw:
                raw.sendall(os.urandom(300))
            return
        with contextlib.suppress(OSError), connect(f"ws:{where}/v1/stream", proxy=None) as line:
            if kind == "mute":
                return
            line.send(json.dumps({"type": "hello", "sample_rate": 16000}))
            ready = json.loads(line.recv(30))
            line.send(sound)
            if kind == "garbage":
                line.send("garbage")
            elif kind == "huge":
                line.send(bytes(70_000))
            elif kind == "whole":
                line.send('{"type": "end"}')
                while json.loads(line.recv(30))["type"] != "done":
                    pass
            elif kind == "flood":
                for _ in range(300):
                    line.send('{"type": "ping"}')
                line.socket.shutdown(socket.SHUT_RDWR)
            elif kind in ("drop", "resume"):
                line.socket.shutdown(socket.SHUT_RDWR)
            if kind == "resume":
                with connect(f"ws:{where}/v1/stream", proxy=None) as again:
                    session = {"session": ready["session"], "event": 0}
                    again.send(json.dumps({"type": "resume", **session}))
                    again.recv(30)

    def state(where: str, process: int) -> dict[str, float]:
        told, proc = numbers(where), Path(f"/proc/{process}")
        status = dict(line.split(":", 1) for line in (proc / "status").read_text().splitlines())
        return {
            "memory, MB": int(status["VmRSS"].split()[0]) / 1000,
            "threads": int(status["Threads"]),
            "descriptors": len(list((proc / "fd").iterdir())),
            "sessions": told["sessions"],
            "tasks": told["tasks"],
        }

    states, third = [], -(-options.count // 3)
    with serving(options, options.count) as (where, process):
        for _ in range(4):
            for _ in range(third):  # the first round only warms up: so many at once take their memory
                one(where, next(kinds))
            time.sleep(36)  # dropped sessions wait 30 seconds for their clients, half-open ones 5 more
            states.append(state(where, process))
    print(f"| | at first | {' | '.join(f'after {(i + 1) * third:,} more' for i in range(3))} |")
    print("| --- |" + " --- |" * 4)
    for name in states[0]:
        print(f"| {name} | {' | '.join(f'{s[name]:.1f}' for s in states)} |")
    same = all(
        states[-1][name] <= states[0][name] for name in ("threads", "descriptors", "sessions", "tasks")
    )
    return 0 if same else 1
