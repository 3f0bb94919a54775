"""Draws demo/terminal.svg: what a terminal shows while sample recordings are transcribed live.

    python demo/picture.py

Every frame of the animation is an event of the shipped model, at the time it came.
"""

from __future__ import annotations

from html import escape
from pathlib import Path

import streamasr
from streamasr import audio

HERE = Path(__file__).parent
SAMPLES = ("river", "letter")
CHUNK_SECONDS = 0.1
PAUSE_SECONDS = 1.5  # after each recording, to read it
WIDTH, LINE, LEFT = 760, 26, 18


def captions(asr: streamasr.Recognizer, path: Path) -> list[tuple[float, str, str]]:
    """(time, stable text, volatile text) whenever the caption changes."""
    samples, rate = audio.read(path)
    stream, size = asr.stream(rate), round(CHUNK_SECONDS * rate)
    events = []
    for first in range(0, len(samples), size):
        events += stream.accept(samples[first : first + size])
    events += stream.finish()
    shown, finals = [], []
    for event in events:
        if isinstance(event, streamasr.Final):
            finals.append(event.text)
            shown.append((stream.time, " ".join(finals), ""))
        else:
            shown.append((event.time, " ".join([*finals, event.stable]).strip(), event.volatile))
    return shown


def main() -> None:
    asr = streamasr.load()
    frames: list[tuple[float, int, str, str]] = []  # start, row, stable, volatile
    clock = 0.5
    for row, name in enumerate(SAMPLES):
        changes = captions(asr, HERE / "samples" / f"{name}.flac")
        frames += [(clock + at, row, stable, volatile) for at, stable, volatile in changes]
        clock += changes[-1][0] + PAUSE_SECONDS
    clock += 2.0
    height = (len(SAMPLES) + 3) * LINE
    styles, texts = [], []
    for i, (start, row, stable, volatile) in enumerate(frames):
        later = [s for s, r, _, _ in frames[i + 1 :] if r == row]
        on, off = 100 * start / clock, 100 * (later[0] if later else clock) / clock
        end = 0 if later else 1
        last = "" if later else "opacity:1;"  # what a viewer without animation shows
        styles.append(
            f"@keyframes k{i}{{0%{{opacity:0}}{on:.2f}%{{opacity:1}}{off:.2f}%{{opacity:{end}}}}}"
            f"#t{i}{{opacity:0;{last}animation:k{i} {clock:.1f}s step-end infinite}}"
        )
        gap = " " if stable and volatile else ""
        texts.append(
            f'<text id="t{i}" x="{LEFT}" y="{(row + 2.6) * LINE:.0f}">{escape(stable)}{gap}'
            f'<tspan fill="#8b949e">{escape(volatile)}</tspan></text>'
        )
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" role="img" '
        f'aria-label="Two recordings transcribed while they play">'
        f"<style>text{{font:15px ui-monospace,Consolas,monospace;fill:#f0f6fc;white-space:pre}}"
        f"{''.join(styles)}</style>"
        f'<rect width="{WIDTH}" height="{height}" rx="8" fill="#0d1117"/>'
        f'<text x="{LEFT}" y="{1.3 * LINE:.0f}" style="fill:#3fb950">$ make demo</text>'
        f"{''.join(texts)}</svg>\n"
    )
    (HERE / "terminal.svg").write_text(svg)


if __name__ == "__main__":
    main()
