"""Chromium without a window, steered over its DevTools protocol: what the tests of the page need."""

from __future__ import annotations

import base64
import contextlib
import json
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from websockets.sync.client import ClientConnection, connect

PROGRAM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


class Page:
    """The only tab. `complaints` are errors of scripts, console and Content-Security-Policy."""

    def __init__(self, line: ClientConnection, patience: float) -> None:
        self._line, self._patience = line, patience
        self._number = 0
        self._session = ""
        self._loaded = False
        self.complaints: list[str] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "DOM", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params: Any) -> Any:
        """A command -> its result."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        self._line.send(json.dumps(message))
        while True:
            answer = json.loads(self._line.recv(self._patience))
            if answer.get("id") == self._number:
                assert "error" not in answer, f"{method}: {answer}"
                return answer["result"]
            self._note(answer.get("method"), answer.get("params", {}))

    def _note(self, method: str | None, params: dict[str, Any]) -> None:
        if method == "Runtime.exceptionThrown":
            details = params["exceptionDetails"]
            self.complaints.append(details.get("exception", {}).get("description", details["text"]))
        elif method == "Log.entryAdded" and params["entry"]["level"] == "error":
            self.complaints.append(params["entry"]["text"])
        elif method == "Page.loadEventFired":
            self._loaded = True
        elif method == "Page.javascriptDialogOpening":
            self._number += 1  # "leave the page?"
            answer = {"id": self._number, "method": "Page.handleJavaScriptDialog", "params": {"accept": True}}
            self._line.send(json.dumps({**answer, "sessionId": self._session}))

    def open(self, url: str) -> None:
        for step in ("about:blank", url):  # else another #part would not load the page again
            self._loaded = False
            self.call("Page.navigate", url=step)
            self.until_here(lambda: self._loaded or not self.call("Page.getFrameTree"), step)

    def js(self, expression: str) -> Any:
        """Value of an expression in the page; a promise is awaited. As if a person had clicked."""
        result = self.call(
            "Runtime.evaluate",
            expression=expression,
            awaitPromise=True,
            returnByValue=True,
            userGesture=True,
        )
        assert "exceptionDetails" not in result, f"{expression}: {result}"
        return result["result"].get("value")

    def until(self, expression: str) -> Any:
        """The first value of an expression that is true."""
        return self.until_here(lambda: self.js(expression), expression)

    def until_here(self, condition: Callable[[], Any], name: str = "") -> Any:
        """The same for what is seen outside of the page."""
        end = time.monotonic() + self._patience
        while not (value := condition()):
            assert time.monotonic() < end, f"not within {self._patience:g} s: {name}; {self.complaints}"
            time.sleep(0.02)
        return value

    def choose(self, selector: str, path: Path) -> None:
        """A file in a file input, as a person does it."""
        root = self.call("DOM.getDocument")["root"]["nodeId"]
        node = self.call("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.call("DOM.setFileInputFiles", nodeId=node, files=[str(path.resolve())])

    def key(self, name: str, code: int) -> None:
        text = {"text": "\r"} if name == "Enter" else {}
        for kind in ("keyDown", "keyUp"):
            self.call(
                "Input.dispatchKeyEvent",
                type=kind,
                key=name,
                code=name,
                windowsVirtualKeyCode=code,
                **(text if kind == "keyDown" else {}),
            )

    def screen(self, width: int, height: int, scale: float = 1) -> None:
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=scale,
            mobile=width < 600,
        )

    def picture(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot")["data"]))


@contextlib.contextmanager
def chromium(*arguments: str, patience: float = 60) -> Iterator[Page]:
    """A browser with a profile of its own. `patience` seconds for anything to happen."""
    assert PROGRAM
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        command = [
            *(PROGRAM, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"),
            *("--no-first-run", "--disable-background-networking", "--disable-component-update"),
            *("--remote-debugging-port=0", f"--user-data-dir={profile}", "--lang=en", *arguments),
            "about:blank",
        ]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            with connect(
                _address(Path(profile), patience), max_size=None, compression=None, proxy=None
            ) as line:
                yield Page(line, patience)
                line.send('{"id": 0, "method": "Browser.close"}')
                process.wait(patience)
        finally:
            process.kill()
            process.wait()


def _address(profile: Path, patience: float) -> str:
    """Where the browser listens: it writes port and path into its profile."""
    end = time.monotonic() + patience
    while time.monotonic() < end:
        with contextlib.suppress(OSError, ValueError):
            port, path = (profile / "DevToolsActivePort").read_text().split()
            return f"ws://127.0.0.1:{port}{path}"
        time.sleep(0.02)
    raise AssertionError(f"Chromium does not start within {patience:g} s")
