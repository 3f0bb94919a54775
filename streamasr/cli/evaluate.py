"""streamasr evaluate: manifests -> word error rate and speed."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import ConfigError
from . import phrases
from .main import DONE, INTERRUPTED, SOME_FAILED, say
from .output import make_folder, write

if TYPE_CHECKING:
    from ..data.manifest import Utterance
    from ..evaluate.report import Failure
    from ..evaluate.runner import Result


_NBEST = 10


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "manifests", nargs="+", type=Path, metavar="MANIFEST", help="JSON lines: id, audio, text"
    )
    parser.add_argument(
        "--search", choices=("greedy", "beam"), help="default: beam if the model has a lexicon"
    )
    parser.add_argument("--no-lm", action="store_true", help="beam search without the language model")
    parser.add_argument(
        "--rescore",
        action=argparse.BooleanOptionalAction,
        help="finals chosen with the LSTM language model; default: if the model has one",
    )
    phrases.add_arguments(parser)
    parser.add_argument(
        "--nbest",
        type=_positive,
        metavar="N",
        help=f"of how many texts the best is judged too (oracle_wer); default: {_NBEST}",
    )
    parser.add_argument("--model", metavar="NAME|PATH", help="default: the English model that is installed")
    parser.add_argument("--limit", type=_positive, metavar="N", help="a random sample of N of each manifest")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="of the sample; default: 0")
    parser.add_argument("--jobs", type=_positive, default=1, metavar="N", help="processes; default: 1")
    parser.add_argument("--json", type=Path, metavar="OUT", help="write the results there as JSON too")
    parser.add_argument(
        "--report", type=Path, metavar="DIR", help="write a page there: table, reliability diagrams, worst"
    )


def run(options: argparse.Namespace) -> int:
    """All manifests are read and the model is loaded before the first recording is heard."""
    names = [path.stem for path in options.manifests]
    if len(set(names)) < len(names):
        raise ConfigError("two manifests have the same name, which names their results; rename one")
    if options.json is not None:
        if options.json.is_dir():
            raise ConfigError(f"--json: {options.json} is a folder; name a file")
        make_folder(options.json.absolute().parent, "--json")
    if options.report is not None:
        make_folder(options.report, "--report")
    told = phrases.arguments(options)
    if options.phrases and options.no_lm:
        raise ConfigError("--no-lm: --phrases listens without the language model anyway; leave it out")
    if options.search == "greedy":
        _no_beam_options(options)
    corpora = [_read(path, options.limit, options.seed) for path in options.manifests]

    import streamasr

    from ..evaluate import report, runner

    recognizer = streamasr.load() if options.model is None else streamasr.load(options.model)
    search = options.search or told.get("search") or recognizer.default_search
    if search == "greedy":
        _no_beam_options(options)
    listening = runner.Listening(
        search,
        not options.no_lm,
        told.get("hotwords", ()),
        options.nbest or (_NBEST if search == "beam" and not options.phrases else 0),
        told.get("phrases", ()),
        options.rescore,
    )
    # Whatever is wrong with these is told now, not once a recording.
    recognizer.stream(**listening.arguments())
    interrupted = False
    try:
        for corpus in corpora:
            for result in runner.run(corpus.utterances, options.model, options.jobs, listening):
                corpus.results[result.id] = result
                _progress(corpus)
    except KeyboardInterrupt:
        interrupted = True
    finally:  # also when the run cannot go on: what is finished has cost time
        corpora = [corpus for corpus in corpora if corpus.results or not interrupted]
        reports = {c.name: report.summarise(c.utterances, c.results, c.unusable) for c in corpora}
        if options.json is not None:
            results = report.to_dict(reports, str(recognizer.info["name"]), search)
            write(options.json, json.dumps(results, ensure_ascii=False, indent=2) + "\n")
        if options.report is not None:
            for name, content in report.page(reports, str(recognizer.info["name"]), search).items():
                write(options.report / name, content)
    print(report.render(reports), end="", flush=True)
    for name, each in reports.items():
        for failure in each.failed:
            say(f"{name}: {failure.id}: {failure.error}")
        if not each.failed and not each.score.utterances:
            say(f"{name}: the manifest lists no utterances")
    if interrupted:
        say("interrupted; what was finished is reported")
        return INTERRUPTED
    complete = all(each.score.utterances and not each.failed for each in reports.values())
    return DONE if complete else SOME_FAILED


def _no_beam_options(options: argparse.Namespace) -> None:
    for option in ("no_lm", "hotwords", "phrases", "nbest", "rescore"):
        if getattr(options, option):
            raise ConfigError(f"--{option.replace('_', '-')} needs --search beam")


@dataclass(slots=True)
class _Corpus:
    """A manifest during the run: what is to be done, and what has become of it."""

    name: str
    utterances: list[Utterance]
    unusable: list[Failure]
    results: dict[str, Result] = field(default_factory=dict)


def _read(path: Path, limit: int | None, seed: int) -> _Corpus:
    from ..data.manifest import sample, scan
    from ..evaluate.report import Failure

    utterances, problems = scan(path)
    messages: dict[str, list[str]] = {}
    for problem in problems:  # of one utterance there may be several
        messages.setdefault(problem.id, []).append(problem.message)
    return _Corpus(
        path.stem,
        sample(utterances, limit, seed),
        [Failure(name, "; ".join(each)) for name, each in messages.items()],
    )


def _progress(corpus: _Corpus) -> None:
    """One line on stderr that counts, where somebody watches."""
    if sys.stderr.isatty():
        done, all_ = len(corpus.results), len(corpus.utterances)
        end = "\r\x1b[K" if done == all_ else ""
        print(f"\r{corpus.name}: {done} of {all_}{end}", end="", file=sys.stderr, flush=True)


def _positive(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"must be a whole number, 1 or more, not {text!r}")
    return int(text)
