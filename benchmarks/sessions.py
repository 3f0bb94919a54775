"""Long sessions: utterances one after the other in one stream, beside each in a stream of its own.

    python benchmarks/sessions.py MODEL MANIFEST... [--minutes 20]
    python benchmarks/sessions.py MODEL MANIFEST... --hours 2 --picture docs/sessions.png

The first form compares what becomes of the acoustic memory at endpoints (carry, reset, overlap) in sessions
of one speaker and of many, with pauses of 0.3 to 2 seconds of digital silence and of the recordings' own
room (their quietest quarter second, to and fro). The second plays one session, carried, of many speakers in
their rooms: WER, memory and time of every ten minutes. Both print Markdown. A stream gets chunks of 100 ms;
a word counts for the utterance, with the pause after it, in which its middle lies. Time is that of the
processor on one thread. Utterances come in random order, all of them before any comes again.
"""

from __future__ import annotations

import os

# Read by the BLAS libraries when NumPy is imported.
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"):
    os.environ[_name] = "1"

import argparse  # noqa: E402
import math  # noqa: E402
import sys  # noqa: E402
import time  # noqa: E402
from collections.abc import Iterator, Sequence  # noqa: E402
from dataclasses import dataclass, field  # noqa: E402
from pathlib import Path  # noqa: E402

import numpy as np  # noqa: E402
from numpy.typing import NDArray  # noqa: E402

import streamasr  # noqa: E402
from streamasr import EndpointRule, Final, Recognizer, audio, segmenter  # noqa: E402
from streamasr.data import manifest  # noqa: E402
from streamasr.data.manifest import Utterance  # noqa: E402
from streamasr.errors import StreamASRError  # noqa: E402
from streamasr.evaluate import wer  # noqa: E402
from streamasr.resample import Resampler  # noqa: E402

RATE, CHUNK = 16_000, 1_600
SHORTEST_PAUSE, LONGEST_PAUSE = 0.3, 2.0
BLOCK_SECONDS = 600.0
POLICIES = ("carry", "reset", "overlap")
COLUMNS = (
    *("speakers", "pauses", "at endpoint", "WER %", "alone", "relative %"),
    *("first word after a long pause, % right / alone", "last word before it"),
    *("long pauses ended", "endpoints within utterances"),
)

Samples = NDArray[np.float32]


@dataclass(frozen=True)
class Piece:
    """An utterance and the pause after it, in seconds of its session."""

    utterance: Utterance
    begin: float
    end: float  # of the utterance
    until: float  # of the pause


@dataclass
class Heard:
    """What one stream made of a session."""

    pieces: list[Piece] = field(default_factory=list)
    words: list[tuple[float, str]] = field(default_factory=list)  # middle in seconds
    endpoints: list[float] = field(default_factory=list)  # by silence, to a chunk
    spent: list[float] = field(default_factory=list)  # seconds for each chunk
    memory: list[float] = field(default_factory=list)  # MB resident, after each block

    def texts(self) -> list[str]:
        """Of every piece."""
        begins = np.array([piece.begin for piece in self.pieces])
        told: list[list[str]] = [[] for _ in self.pieces]
        for middle, word in self.words:
            told[max(int(np.searchsorted(begins, middle, "right")) - 1, 0)].append(word)
        return [" ".join(words) for words in told]


def read(utterance: Utterance) -> Samples:
    """Samples [N] at 16 kHz."""
    samples, rate = audio.read(utterance.audio)
    resampler = Resampler(rate)
    state = resampler.start()
    return np.concatenate([resampler.advance(state, samples), resampler.finish(state)])


def room(samples: Samples, count: int) -> Samples:
    """The recording without its speaker [count]."""
    size = min(RATE // 4, len(samples))
    starts = range(0, len(samples) - size + 1, RATE // 16)
    quietest = min(starts, key=lambda first: float(np.square(samples[first : first + size]).sum()))
    there = samples[quietest : quietest + size]
    return np.resize(np.concatenate([there, there[::-1]]), count)


def session(
    utterances: Sequence[Utterance], seconds: float, pauses: str, seed: int = 0
) -> Iterator[tuple[Piece, Samples]]:
    """Utterances, again and again, each with its pause, until `seconds` are over."""
    rng = np.random.default_rng(seed)
    at = 0.0
    while True:
        for index in rng.permutation(len(utterances)):
            if at >= seconds:
                return
            samples = read(utterances[index])
            count = int(rng.uniform(SHORTEST_PAUSE, LONGEST_PAUSE) * RATE)
            pause = room(samples, count) if pauses == "room" else np.zeros(count, np.float32)
            end, until = at + len(samples) / RATE, at + (len(samples) + count) / RATE
            yield Piece(utterances[index], at, end, until), np.concatenate([samples, pause])
            at = until


def listen(stream: streamasr.Stream, pieces: Iterator[tuple[Piece, Samples]]) -> Heard:
    heard, waiting = Heard(), np.zeros(0, np.float32)
    for piece, samples in pieces:
        heard.pieces.append(piece)
        waiting = np.concatenate([waiting, samples])
        for first in range(0, len(waiting) - CHUNK + 1, CHUNK):
            begin = time.process_time()
            events = stream.accept(waiting[first : first + CHUNK])
            heard.spent.append(time.process_time() - begin)
            _note(heard, events, stream.time)
            if stream.time // BLOCK_SECONDS > len(heard.memory):
                heard.memory.append(memory())
        waiting = waiting[len(waiting) // CHUNK * CHUNK :]
    events = stream.accept(waiting) + stream.finish()
    _note(heard, events, stream.time)
    heard.memory.append(memory())
    return heard


def _note(heard: Heard, events: Sequence[streamasr.Event], now: float) -> None:
    for event in events:
        if isinstance(event, Final):
            heard.words += [((word.start + word.end) / 2, word.text) for word in event.words]
            if event.reason == "endpoint:silence":
                heard.endpoints.append(now)


def alone(recognizer: Recognizer, search: str | None, utterances: Sequence[Utterance]) -> dict[str, str]:
    """Every utterance in a stream of its own -> {id: text}."""
    return {each.id: recognizer.transcribe(read(each), RATE, search=search).text for each in utterances}


def scores(pieces: Sequence[Piece], texts: Sequence[str]) -> tuple[wer.UtteranceScore, ...]:
    names = [str(number) for number in range(len(pieces))]
    references = {name: piece.utterance.text for name, piece in zip(names, pieces, strict=True)}
    return wer.score(references, dict(zip(names, texts, strict=True))).utterances


def rate(scored: Sequence[wer.UtteranceScore]) -> float:
    """Word error rate in percent."""
    return 100 * sum((score.words for score in scored), start=wer.Counts()).rate


def recall(scored: Sequence[wer.UtteranceScore], which: Sequence[int], place: int) -> str:
    """Of the first (place 0) or last (-1) words of some utterances: heard right, of all."""
    pairs = [[pair for pair in scored[i].alignment if pair[0] is not None] for i in which]
    hits = sum(pair[place][0] == pair[place][1] for pair in pairs if pair)
    return f"{100 * hits / max(len(pairs), 1):.1f}"


def row(heard: Heard, single: dict[str, str], silence: float) -> list[str]:
    """Columns of the table of policies, from WER on."""
    pieces, texts = heard.pieces, heard.texts()
    together, apart = scores(pieces, texts), scores(pieces, [single[p.utterance.id] for p in pieces])
    # Long enough for an endpoint, whatever it is decided from.
    long = [i for i, p in enumerate(pieces[:-1]) if p.until - p.end > silence + 0.2]
    after = [i + 1 for i in long]
    ends = np.array(heard.endpoints)
    ended = sum(bool(((ends > pieces[i].end - 1) & (ends < pieces[i].until + 0.5)).any()) for i in long)
    middles = np.array([middle for middle, _ in heard.words])
    within = 0
    for end in heard.endpoints:  # somebody spoke on, in the same utterance
        piece = next(p for p in pieces if p.until > end or p is pieces[-1])
        within += piece.begin < end < piece.end and bool(((middles > end) & (middles < piece.end)).any())
    wers = rate(together), rate(apart)
    return [
        f"{wers[0]:.2f}",
        f"{wers[1]:.2f}",
        f"{100 * (wers[0] / wers[1] - 1):+.1f}" if wers[1] else "-",
        f"{recall(together, after, 0)} / {recall(apart, after, 0)}",
        f"{recall(together, long, -1)} / {recall(apart, long, -1)}",
        f"{ended} / {len(long)}",
        f"{within} / {len(pieces)}",
    ]


def memory() -> float:
    """Resident memory of this process in MB, NaN where the system does not say."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, IndexError, ValueError):
        return math.nan
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def blocks(heard: Heard, single: dict[str, str], step_seconds: float) -> list[list[float]]:
    """Of every ten minutes: end in minutes, WER, WER alone, MB, median and 99 % time of a step in ms."""
    together = scores(heard.pieces, heard.texts())
    apart = scores(heard.pieces, [single[p.utterance.id] for p in heard.pieces])
    size = round(BLOCK_SECONDS * RATE / CHUNK)
    found = []
    for number, resident in enumerate(heard.memory):
        inside = [i for i, p in enumerate(heard.pieces) if int(p.begin // BLOCK_SECONDS) == number]
        spent = np.array(heard.spent[number * size : (number + 1) * size])
        if not inside or not len(spent):
            continue
        times = 1000 * np.quantile(spent, (0.5, 0.99)) * step_seconds * RATE / CHUNK
        until = min((number + 1) * BLOCK_SECONDS, heard.pieces[-1].until) / 60
        errors = [rate([each[i] for i in inside]) for each in (together, apart)]
        found.append([until, *errors, resident, *map(float, times)])
    return found


def draw(found: list[list[float]], path: Path) -> None:
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    minutes, together, apart, resident, median, most = zip(*found, strict=True)
    figure, axes = pyplot.subplots(3, 1, figsize=(8, 7), sharex=True, layout="constrained")
    axes[0].plot(minutes, together, "o-", label="in the session")
    axes[0].plot(minutes, apart, "o--", label="the same utterances, each alone")
    axes[1].plot(minutes, resident, "o-", color="tab:green")
    axes[2].plot(minutes, median, "o-", color="tab:red", label="median")
    axes[2].plot(minutes, most, "o--", color="tab:red", label="99 %")
    for each, label in zip(axes, ("WER, %", "resident memory, MB", "time of a step, ms"), strict=True):
        each.set_ylabel(label)
        each.set_ylim(bottom=0)
        each.grid(alpha=0.3)
    axes[0].legend()
    axes[2].legend()
    axes[2].set_xlabel("minutes of the session")
    figure.savefig(path, dpi=100)


def show(columns: Sequence[str], head: bool = False) -> None:
    """A row of a Markdown table."""
    print("|", " | ".join(columns), "|", flush=True)
    if head:
        print("| --- " * len(columns) + "|")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("model", metavar="MODEL")
    parser.add_argument("manifests", nargs="+", type=Path, metavar="MANIFEST")
    parser.add_argument("--minutes", type=float, default=20.0, help="of every session; default: %(default)s")
    parser.add_argument("--hours", type=float, help="one long session")
    parser.add_argument("--search", choices=("greedy", "beam"), help="default: that of the model")
    parser.add_argument("--speakers", choices=("one", "many"), help="default: both, one after the other")
    parser.add_argument("--pauses", choices=("silence", "room"), help="default: both")
    parser.add_argument("--at-endpoint", choices=POLICIES, help="default: each")
    parser.add_argument(
        "--silence", type=float, default=1.0, help="seconds of the rule; default: %(default)s"
    )
    parser.add_argument("--tokens-alone", action="store_true", help="endpoints do not listen to the level")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="of the long session")
    options = parser.parse_args()
    if options.tokens_alone:
        segmenter._LOUD = math.inf
    recognizer = streamasr.load(options.model)
    utterances = [each for path in options.manifests for each in manifest.read(path) if each.text]
    rules = [EndpointRule(silence_seconds=options.silence), EndpointRule(length_seconds=20.0)]

    def play(chosen: Sequence[Utterance], seconds: float, pauses: str, policy: str) -> Heard:
        stream = recognizer.stream(RATE, search=options.search, endpointing=rules, at_endpoint=policy)
        return listen(stream, session(chosen, seconds, pauses))

    if options.hours:
        pauses, policy = options.pauses or "room", options.at_endpoint or "carry"
        heard = play(utterances, 3600 * options.hours, pauses, policy)
        said = list({piece.utterance.id: piece.utterance for piece in heard.pieces}.values())
        found = blocks(heard, alone(recognizer, options.search, said), recognizer.info["step_seconds"])
        show(("until minute", "WER %", "alone", "memory, MB", "step, ms: median", "99 %"), head=True)
        for until, *columns, resident, median, most in found:
            errors = [f"{each:.2f}" for each in columns]
            show([f"{until:.0f}", *errors, f"{resident:.1f}", f"{median:.2f}", f"{most:.2f}"])
        if options.picture:
            draw(found, options.picture)
        return 0
    show(COLUMNS, head=True)
    single: dict[str, str] = {}
    for speakers in (options.speakers,) if options.speakers else ("one", "many"):
        chosen = utterances
        if speakers == "one":
            names = [each.speaker for each in utterances]
            chosen = [each for each in utterances if each.speaker == max(set(names), key=names.count)]
        for pauses in (options.pauses,) if options.pauses else ("silence", "room"):
            for policy in (options.at_endpoint,) if options.at_endpoint else POLICIES:
                heard = play(chosen, 60 * options.minutes, pauses, policy)
                new = {p.utterance.id: p.utterance for p in heard.pieces if p.utterance.id not in single}
                single |= alone(recognizer, options.search, list(new.values()))
                show([speakers, pauses, policy, *row(heard, single, options.silence)])
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except StreamASRError as error:
        sys.exit(str(error))
