"""The page with live captions, in a real browser without a window, with a real server behind it."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import re
import socket
import threading
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import soxr
from numpy.typing import NDArray

import streamasr
from streamasr import audio
from streamasr.cli import render
from streamasr.evaluate import wer

pytest.importorskip("uvicorn", reason="the extra [serve] is not installed")
pytest.importorskip("websockets", reason="the extra [serve] is not installed")

from chromium import PROGRAM, Page, chromium
from websockets.sync.client import connect

from streamasr.live.hub import Limits
from streamasr.live.server import Server
from streamasr.live.session import Session

pytestmark = [
    pytest.mark.skipif(not PROGRAM, reason="no Chromium (Debian, Ubuntu: apt-get install chromium)"),
    pytest.mark.timeout(900),
]

SAMPLES = Path(__file__).parent.parent / "demo" / "samples"
MICROPHONE = 44_100  # Hz of the one that Chromium plays: at this rate it leaves the samples as they are
PATIENCE = 120.0  # seconds for anything: a busy machine is no error

LINES = "[...document.querySelectorAll('#finals p > span')].map((span) => span.textContent)"
GO = "document.getElementById('go')"
IDLE = f"{GO}.dataset.kind === 'start' && {GO}.ariaDisabled !== 'true'"
NOTICE = "document.getElementById('notice').hidden ? '' : document.querySelector('#notice p').textContent"
STATE = "document.getElementById('state-text').textContent"


def press(page: Page, name: str) -> None:
    page.js(f"document.getElementById('{name}').click()")


def read(name: str) -> NDArray[np.float32]:
    samples, rate = audio.read(SAMPLES / f"{name}.flac")
    assert rate == 16_000
    return samples


def write(path: Path, samples: NDArray[np.float32], rate: int) -> Path:
    soundfile.write(path, samples, rate, subtype="PCM_16")
    return path


@pytest.fixture(scope="module")
def spoken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the microphone hears: a sentence, and silence around it."""
    silence = np.zeros(MICROPHONE, np.float32)
    sentence = soxr.resample(read("garden"), 16_000, MICROPHONE)
    path = tmp_path_factory.mktemp("microphone") / "spoken.wav"
    return write(path, np.concatenate([silence, sentence, silence]), MICROPHONE)


@pytest.fixture(scope="module")
def talk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recording of six sentences, with pauses that end segments."""
    gap = np.zeros(24_000, np.float32)
    parts = [part for name in ("garden", "door", "books") * 2 for part in (read(name), gap)]
    return write(tmp_path_factory.mktemp("talk") / "talk.wav", np.concatenate(parts), 16_000)


@pytest.fixture(scope="module")
def said(talk: Path, shipped: streamasr.Recognizer) -> streamasr.Transcript:
    return shipped.transcribe(talk)


@pytest.fixture(scope="module")
def browser(spoken: Path) -> Iterator[Page]:
    arguments = (
        "--use-fake-device-for-media-stream",
        "--use-fake-ui-for-media-stream",
        f"--use-file-for-fake-audio-capture={spoken}%noloop",
    )
    with chromium(*arguments, patience=PATIENCE) as page:
        yield page


@contextlib.contextmanager
def serving(recognizer: streamasr.Recognizer, **options: Any) -> Iterator[Server]:
    server = Server(recognizer, **{"port": 0, "limits": Limits(max_streams=4, lag_seconds=60.0), **options})
    ready = threading.Event()
    thread = threading.Thread(target=lambda: asyncio.run(server.run(ready.set)))
    thread.start()
    try:
        assert ready.wait(PATIENCE)
        yield server
    finally:
        server.stop()
        thread.join(PATIENCE)
        assert not thread.is_alive()


@pytest.fixture(scope="module")
def server(shipped: streamasr.Recognizer) -> Iterator[Server]:
    with serving(shipped) as running:
        yield running


class Cable:
    """A port that leads to another one. What is cut is cut; later connections go through again."""

    def __init__(self, port: int) -> None:
        self._to = port
        self._ends: set[socket.socket] = set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def cut(self) -> None:
        for end in list(self._ends):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._threads[0].join()
        self.cut()
        for thread in self._threads:
            thread.join()
        for end in (self._listener, *self._ends):
            end.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near = self._listener.accept()[0]
                self._ends.add(near)
                far = socket.create_connection(("127.0.0.1", self._to))
                self._ends.add(far)
                for pair in ((near, far), (far, near)):
                    self._threads.append(threading.Thread(target=self._carry, args=pair))
                    self._threads[-1].start()

    def _carry(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while content := source.recv(65536):
                target.sendall(content)
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def cable(server: Server) -> Iterator[Cable]:
    cable = Cable(server.port)
    yield cable
    cable.close()


@pytest.fixture
def opened(browser: Page) -> Callable[[Any], Page]:
    def opened(server: Any) -> Page:
        browser.complaints.clear()
        browser.screen(1280, 800)
        browser.open(server.url)
        browser.until(IDLE)
        return browser

    return opened


@pytest.fixture
def page(opened: Callable[[Any], Page], server: Server) -> Iterator[Page]:
    """The page, opened anew; what it complains about fails the test."""
    page = opened(server)
    yield page
    assert page.complaints == []


@pytest.fixture
def heard(monkeypatch: pytest.MonkeyPatch) -> list[NDArray[np.float32]]:
    """The sound that comes to the server."""
    pieces: list[NDArray[np.float32]] = []
    original = Session.audio

    def noted(session: Session, message: bytes) -> NDArray[np.float32]:
        pieces.append(original(session, message))
        return pieces[-1]

    monkeypatch.setattr(Session, "audio", noted)
    return pieces


def drop(page: Page, path: Path) -> None:
    content = base64.b64encode(path.read_bytes()).decode()
    page.js(
        f"{{const bytes = Uint8Array.from(atob('{content}'), (c) => c.charCodeAt(0)); "
        "const dataTransfer = new DataTransfer(); "
        f"dataTransfer.items.add(new File([bytes], '{path.name}')); "
        "dispatchEvent(new DragEvent('drop', {dataTransfer}));}"
    )


def cer(reference: str, hypothesis: str) -> float:
    return wer.score({"": reference}, {"": hypothesis}).characters.rate


def busy() -> bool:
    """Whether the machine has more to do than it can: then Chromium drops sound before the page gets it."""
    return os.getloadavg()[0] > (os.cpu_count() or 1)


def test_captions_of_the_microphone(
    opened: Callable[[Any], Page],
    cable: Cable,
    shipped: streamasr.Recognizer,
    spoken: Path,
    heard: list[NDArray[np.float32]],
) -> None:
    """Also over a line that breaks in the middle of the sentence."""
    page = opened(cable)
    played = audio.read(spoken)[0]
    sentence = played[MICROPHONE : len(played) - MICROPHONE]
    for _ in range(3):
        heard.clear()
        press(page, "go")
        page.until("document.getElementById('stable').textContent")
        cable.cut()
        page.until(f"({NOTICE}).startsWith('No sound for 2 seconds')")  # after the end
        assert page.js("document.getElementById('delay').textContent").endswith("s")
        press(page, "go")
        page.until(IDLE)
        got = np.concatenate(heard)
        start = int(np.argmax(np.abs(got) > 0)) - int(np.argmax(np.abs(sentence) > 0))
        exact = start >= 0 and np.array_equal(got[start : start + len(sentence)], sentence)
        if exact or busy():
            break
        page = opened(cable)
    assert page.complaints == []
    assert exact or busy(), "the microphone's samples did not arrive as they were played"
    assert np.count_nonzero(got) > 0.85 * np.count_nonzero(sentence)
    lines = page.js(LINES)
    stream = shipped.stream(sample_rate=MICROPHONE)
    finals = [e for e in [*stream.accept(got), *stream.finish()] if isinstance(e, streamasr.Final)]
    assert lines == [final.text for final in finals]
    want = shipped.transcribe(spoken).text
    assert cer(want, " ".join(lines)) < 0.4  # the microphone starts 10 ms late, and so do all frames


@pytest.mark.parametrize("kind", ["flac", "stereo", "talk"])
def test_a_recording_gives_what_transcribe_gives(
    page: Page,
    shipped: streamasr.Recognizer,
    talk: Path,
    said: streamasr.Transcript,
    tmp_path: Path,
    kind: str,
) -> None:
    path = {"flac": SAMPLES / "letter.flac", "stereo": tmp_path / "stereo.wav", "talk": talk}[kind]
    if kind == "stereo":
        left = soxr.resample(read("train"), 16_000, 22_050)
        write(path, np.stack([left, np.roll(0.3 * left, 7)], axis=1), 22_050)
    saved = tmp_path / "saved"
    page.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(saved))
    if kind == "stereo":
        drop(page, path)
    else:
        page.choose("#file", path)
    page.until(f"{STATE} === 'Done'")
    want = said if path == talk else shipped.transcribe(path)
    assert page.js(LINES) == [segment.text for segment in want.segments]
    for name, expected in (("txt", render.txt(want)), ("srt", render.srt(want))):
        press(page, name)
        file = saved / f"{path.stem}.{name}"
        page.until_here(lambda file=file: file.exists() and file.stat().st_size > 0)
        assert file.read_text() == expected


def test_nothing_is_lost_when_the_line_breaks(
    opened: Callable[[Any], Page], server: Server, cable: Cable, talk: Path, said: streamasr.Transcript
) -> None:
    page = opened(cable)
    page.choose("#file", talk)
    for count in (1, 3):
        page.until(f"document.querySelectorAll('#finals li').length >= {count}")
        cable.cut()
    page.until(f"{STATE} === 'Done'")
    assert page.js(LINES) == [segment.text for segment in said.segments]
    with urllib.request.urlopen(f"{server.url}/metrics") as answer:
        assert re.search(r"resumed_total [2-9]", answer.read().decode())


def test_goes_on_when_the_server_was_restarted(
    opened: Callable[[Any], Page], shipped: streamasr.Recognizer, talk: Path, said: streamasr.Transcript
) -> None:
    with serving(shipped) as first:
        page = opened(first)
        page.choose("#file", talk)
        page.until("document.querySelectorAll('#finals li').length >= 2")
        before = page.js(LINES)
    page.until(f"{STATE} === 'Connection lost, reconnecting'")
    with serving(shipped, port=first.port):
        page.until(f"{STATE} === 'Done'")
    lines = page.js(LINES)
    assert lines[: len(before)] == before
    assert cer(said.text, " ".join(lines)) < 0.1


def test_says_what_is_wrong(
    opened: Callable[[Any], Page], shipped: streamasr.Recognizer, tmp_path: Path
) -> None:
    with serving(shipped, token="sesame", limits=Limits(max_streams=1, lag_seconds=60.0)) as guarded:
        page = opened(guarded)
        page.choose("#file", SAMPLES / "door.flac")
        assert "#token=" in page.until(NOTICE)
        page.js("location.hash = '#token=sesame'")
        page.choose("#file", SAMPLES / "door.flac")
        page.until(f"{STATE} === 'Done'")

        (tmp_path / "notes.wav").write_text("no sound at all, and this is long enough for a header")
        page.choose("#file", tmp_path / "notes.wav")
        assert "cannot be played" in page.until(NOTICE)

        with connect(f"{guarded.url.replace('http', 'ws')}/v1/stream", proxy=None) as other:
            other.send('{"type": "hello", "sample_rate": 16000, "token": "sesame"}')
            assert "ready" in str(other.recv(PATIENCE))
            press(page, "go")
            assert "no more can be served" in page.until(NOTICE)
            assert "Try again in" in page.js(NOTICE)

        refusal = "async () => { throw new DOMException('', 'NotAllowedError'); }"
        page.js(f"navigator.mediaDevices.getUserMedia = {refusal}")
        press(page, "notice-button")
        press(page, "go")
        assert "not allowed" in page.until(NOTICE)
        assert page.complaints == []
    press(page, "notice-button")
    page.choose("#file", SAMPLES / "door.flac")
    assert "No connection" in page.until(NOTICE)


def test_words_to_listen_for_only_where_the_model_can(
    opened: Callable[[Any], Page], server: Server, plain: streamasr.Recognizer
) -> None:
    with serving(plain) as other:
        opened(other).until("document.querySelector('#hotwords').disabled")
    page = opened(server)
    page.until("performance.getEntriesByType('resource').some(({ name }) => name.endsWith('/healthz'))")
    assert not page.js("document.querySelector('#hotwords').disabled")
    assert page.complaints == []


def test_finished_text_stays_where_it_is(page: Page, talk: Path) -> None:
    """A final takes the place of the unfinished line, to the pixel; scrolled back, the view stays."""
    page.screen(390, 420)
    page.js(
        """{
        const at = (element) => Math.round(10 * (element.getBoundingClientRect().top + captions.scrollTop));
        globalThis.places = [];
        let last = null;
        new MutationObserver((records) => {
          for (const { addedNodes } of records) {
            for (const node of addedNodes) if (node.nodeName === 'LI') places.push([node, last, at(node)]);
          }
          if (stable.textContent) last = at(partial);
        }).observe(captions, { subtree: true, childList: true, characterData: true });
        globalThis.at = at;
        }"""
    )
    page.choose("#file", talk)
    page.until("document.querySelectorAll('#finals li').length >= 4")
    page.js("captions.scrollTop = 30")
    page.until(f"{STATE} === 'Done'")
    assert page.js("captions.scrollTop") == 30
    moved = page.js("places.filter(([node, before, then]) => before !== then || at(node) !== then).length")
    assert moved == 0
    assert page.js("places.length") >= 6
    assert "new" in page.js("jump.textContent")
    press(page, "jump")
    page.until("jump.hidden && captions.scrollHeight - captions.clientHeight - captions.scrollTop < 2")
    press(page, "clear")
    assert page.js(LINES) == []
    press(page, "notice-button")  # undo
    assert len(page.js(LINES)) >= 6


def test_works_without_a_mouse(page: Page) -> None:
    reached = []
    for _ in range(4):
        page.key("Tab", 9)
        reached.append(page.js("document.activeElement.id || document.activeElement.parentElement.id"))
    assert reached == ["captions", "go", "open", "settings"]
    page.key("Enter", 13)
    page.until("settings.open")
    page.key("Tab", 9)
    assert page.js("document.activeElement.id") == "device"
    page.key("Escape", 27)
    assert page.js("[settings.open, document.activeElement.nodeName]") == [False, "SUMMARY"]
    assert page.js("finals.ariaLive || finals.getAttribute('aria-live')") == "polite"
    assert page.js("partial.closest('[aria-live]')") is None  # guesses are not read aloud
    page.js(f"{GO}.focus()")
    page.key("Enter", 13)
    page.until(f"{GO}.dataset.kind === 'stop' || ({NOTICE})")
    assert page.js("document.activeElement.id") == "go"  # it was not disabled while the microphone opened


CONTRASTS = """
(() => {
  const rgb = (color) => color.match(/[\\d.]+/g).map(Number);
  const light = (color) => rgb(color).slice(0, 3).map((v) => v / 255)
    .map((v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const paper = (e) => (rgb(getComputedStyle(e).backgroundColor)[3] !== 0
    ? getComputedStyle(e).backgroundColor : paper(e.parentElement));
  document.querySelector('.fine').closest('section').hidden = false;
  stable.textContent = volatile.textContent = partial.firstChild.textContent = 'text';
  for (const element of document.querySelectorAll('button')) element.disabled = false;
  for (const element of document.querySelectorAll('[hidden]:not(#file, #meter)')) element.hidden = false;
  settings.open = true;
  const leaves = [...document.body.querySelectorAll('*')].filter((e) => e.checkVisibility()
    && [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim()));
  return leaves.map((e) => {
    const [a, b] = [light(getComputedStyle(e).color), light(paper(e))];
    return [e.id || e.className || e.nodeName, (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05)];
  });
})()
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_readable_at_every_width(page: Page, scheme: str) -> None:
    """WCAG AA: 4.5 to 1 for text; nothing wider than the window; every control has a name and a size."""
    features = [
        {"name": "prefers-color-scheme", "value": scheme},
        {"name": "prefers-reduced-motion", "value": "reduce"},  # no fading colours
    ]
    page.call("Emulation.setEmulatedMedia", features=features)
    measured = page.js(CONTRASTS)
    assert len(measured) > 15
    assert [pair for pair in measured if pair[1] < 4.5] == []
    assert page.js("document.getAnimations().length") == 0
    for width in (1280, 390, 360):
        page.screen(width, 740)
        assert page.js("innerWidth") == width
        assert page.js("document.documentElement.scrollWidth") == width
        small = page.js(
            "[...document.querySelectorAll('button, summary, select')].filter((e) => e.checkVisibility())"
            ".map((e) => [e.id || e.nodeName, e.getBoundingClientRect()])"
            ".filter(([, box]) => box.height < 44 || box.left < 0 || box.right > innerWidth)"
        )
        assert small == []
    page.call("Accessibility.enable")
    nodes = page.call("Accessibility.getFullAXTree")["nodes"]
    roles = ("button", "slider", "textbox", "combobox", "meter", "main", "DisclosureTriangle")
    named = {n["role"]["value"]: n["name"]["value"] for n in nodes if n.get("role", {}).get("value") in roles}
    assert set(named) >= {"button", "slider", "textbox", "combobox", "main"}
    assert all(named.values()), named
    page.call("Emulation.setEmulatedMedia", features=[])
