"""scores and speed of corpora -> text for people, JSON for programs, a page with pictures."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from ..data.manifest import Utterance
from ..data.text import NORMALISER
from . import calibration, diagram
from .runner import Result
from .wer import CorpusScore, UtteranceScore, score

LINE = 100  # characters, of alignments; chosen


@dataclass(frozen=True, slots=True)
class Failure:
    """An utterance without a result: its id, or "line N" of the manifest, and why."""

    id: str
    error: str


@dataclass(frozen=True, slots=True)
class CorpusReport:
    """One corpus after a run; what failed is not in the score."""

    score: CorpusScore
    audio_seconds: float
    compute_seconds: float
    failed: tuple[Failure, ...]
    ece: float | None = None  # expected calibration error of the words' confidence
    oracle_wer: float | None = None  # of the best of the alternatives, where there are any
    words: tuple[tuple[float, bool], ...] = ()  # that were heard: confidence, and whether they were said

    @property
    def rtf(self) -> float | None:
        """Compute seconds per second of sound, None if nothing was heard."""
        return self.compute_seconds / self.audio_seconds if self.audio_seconds else None


def summarise(
    utterances: Iterable[Utterance], results: Mapping[str, Result], unusable: Iterable[Failure] = ()
) -> CorpusReport:
    """Utterances and their results by id, as far as there are any -> report.

    `unusable` are the lines of the manifest that were no utterances; results with an error join them.
    """
    ready = [(utterance, results[utterance.id]) for utterance in utterances if utterance.id in results]
    heard = {utterance.id: utterance.text for utterance, result in ready if result.error is None}
    done = [results[name] for name in heard]
    failed = [Failure(result.id, result.error) for _, result in ready if result.error is not None]
    scored = score(heard, {result.id: result.text for result in done})
    words = [pair for utterance in scored.utterances for pair in judged(utterance, results[utterance.id])]
    return CorpusReport(
        scored,
        sum(result.audio_seconds for result in done),
        sum(result.compute_seconds for result in done),
        (*unusable, *failed),
        calibration.expected_error(words),
        _oracle(heard, results) if any(result.alternatives for result in done) else None,
        tuple(words),
    )


def judged(utterance: UtteranceScore, result: Result) -> list[tuple[float, bool]]:
    """Each word that was heard: its confidence, and whether it was said.

    None where normalising has joined or parted words, so that confidences have no word.
    """
    heard = [(said == word) for said, word in utterance.alignment if word is not None]
    if len(heard) != len(result.confidences):
        return []
    return list(zip(result.confidences, heard, strict=True))


def _oracle(references: Mapping[str, str], results: Mapping[str, Result]) -> float:
    """Pooled word error rate when the best of the alternatives of every utterance is taken."""
    errors = words = 0
    for name, text in references.items():
        choices = results[name].alternatives or (results[name].text,)
        counts = [score({name: text}, {name: choice}).words for choice in choices]
        errors += min(each.errors for each in counts)
        words += counts[0].reference
    return errors / max(words, 1)


def to_dict(corpora: Mapping[str, CorpusReport], model: str, search: str) -> dict[str, Any]:
    """{corpus name: report} -> JSON-able; rates are fractions, None where nothing could be scored."""
    return {
        "corpora": {name: corpus_dict(report, search) for name, report in corpora.items()},
        "model": model,
        "search": search,
        "normaliser": NORMALISER,
    }


def corpus_dict(report: CorpusReport, search: str) -> dict[str, Any]:
    """One corpus -> JSON-able, as in `to_dict`. How good confidences are is told of the beam search."""
    words, characters = report.score.words, report.score.characters
    scored = bool(report.score.utterances)
    return {
        "utterances": len(report.score.utterances),
        "words": words.reference,
        "wer": words.rate if scored else None,
        "cer": characters.rate if scored else None,
        "substitutions": words.substitutions,
        "deletions": words.deletions,
        "insertions": words.insertions,
        "audio_seconds": report.audio_seconds,
        "rtf": report.rtf,
        "failed": [{"id": failure.id, "error": failure.error} for failure in report.failed],
        **({"ece": report.ece, "auc": calibration.area(report.words)} if search == "beam" else {}),
        **({} if report.oracle_wer is None else {"oracle_wer": report.oracle_wer}),
    }


def render(corpora: Mapping[str, CorpusReport], worst: int = 3) -> str:
    """{corpus name: report} -> a table, and the `worst` utterances of each corpus with alignments."""
    parts = [_table(corpora)]
    for name, report in corpora.items():
        parts += _worst(name, report, worst)
    return "\n\n".join(parts) + "\n"


def page(corpora: Mapping[str, CorpusReport], model: str, search: str, worst: int = 5) -> dict[str, str]:
    """{corpus name: report} -> {file name: content}: report.md, and the pictures that it shows."""
    head = ["corpus", "utterances", "words", "WER % (95 %)", "CER % (95 %)", "ECE", "AUC", "RTF", "failed"]
    rows = [head, ["---", *["---:"] * (len(head) - 1)]]
    pictures, listed = [], []
    files = {}
    for name, report in corpora.items():
        score, area = report.score, calibration.area(report.words)
        rates = []
        for counts, characters in ((score.words, False), (score.characters, True)):
            low, high = score.interval(characters=characters)
            rates.append(f"{100 * counts.rate:.1f} ({100 * low:.1f}-{100 * high:.1f})")
        rows.append(
            [name, f"{len(score.utterances):,}", f"{score.words.reference:,}"]
            + (rates if score.utterances else ["-", "-"])
            + [_number(report.ece), _number(area), _number(report.rtf), str(len(report.failed))]
        )
        if report.words:
            file = f"reliability-{name}.svg"
            files[file] = diagram.draw(report.words, name)
            pictures.append(f"![Reliability of {name}]({quote(file)})")
        listed += _worst(name, report, worst)
    text = f"""# {model}, {search} search

{_markdown(rows)}

Errors are pooled over each corpus; 95 %: bootstrap over utterances; texts normalised by {NORMALISER}.
ECE: expected calibration error of word confidence, ten bins of equally many words. AUC: how often a right
word is surer than a wrong one. RTF: processor seconds a second of sound, one thread.

## Does confidence mean what it says?

A point is a tenth of the words: on the dashed line, as many of them are right as their confidence says.
Lines are 95 % intervals, bars count words.

{" ".join(pictures) or "No words were heard."}

## Worst utterances

"""
    text += "\n\n".join(f"```text\n{one}\n```" for one in listed) or "None: all was right."
    return {"report.md": text + "\n", **files}


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _markdown(rows: Sequence[Sequence[str]]) -> str:
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows)


def _worst(name: str, report: CorpusReport, most: int) -> list[str]:
    scores = sorted(report.score.utterances, key=lambda s: (-s.words.errors, -s.words.rate, s.id))
    return [render_utterance(one, name) for one in scores[:most] if one.words.errors]


def _table(corpora: Mapping[str, CorpusReport]) -> str:
    head = ["corpus", "utterances", "words", "WER %", "95 %", "sub", "del", "ins", "CER %", "RTF", "failed"]
    rows = [head]
    for name, report in corpora.items():
        words = report.score.words
        low, high = report.score.interval()
        scored = bool(report.score.utterances)
        rows.append(
            [
                name,
                str(len(report.score.utterances)),
                str(words.reference),
                f"{100 * words.rate:.2f}" if scored else "-",
                f"{100 * low:.1f}-{100 * high:.1f}" if scored else "-",
                str(words.substitutions),
                str(words.deletions),
                str(words.insertions),
                f"{100 * report.score.characters.rate:.2f}" if scored else "-",
                "-" if report.rtf is None else f"{report.rtf:.3f}",
                str(len(report.failed)),
            ]
        )
    seconds = sum(report.audio_seconds for report in corpora.values())
    spent = sum(report.compute_seconds for report in corpora.values())
    speed = f", recognised {seconds / spent:.0f} times faster than spoken" if spent else ""
    note = (
        f"{seconds / 60:.1f} minutes of sound{speed} (one thread of one processor; RTF is processor seconds "
        f"per second). Errors are pooled over each corpus; 95 %: bootstrap over utterances; texts normalised "
        f"by {NORMALISER}."
    )
    return columns(rows) + "\n\n" + textwrap.fill(note, LINE)


def columns(rows: Sequence[Sequence[str]]) -> str:
    """Rows of cells -> lines; the first column to the left, numbers to the right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join(
        "  ".join(
            [row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))]
        ).rstrip()
        for row in rows
    )


def render_utterance(score: UtteranceScore, corpus: str) -> str:
    """One utterance -> its errors, and reference over hypothesis: stars where a word is missing, capitals
    where two differ."""
    words = score.words
    lines = [
        f"{corpus}  {score.id}: {words.errors} of {words.reference} words "
        f"({words.substitutions} sub, {words.deletions} del, {words.insertions} ins)"
    ]
    said, heard = "said ", "heard"
    for reference, hypothesis in score.alignment:
        width = max(len(reference or ""), len(hypothesis or ""))
        if len(said) + 1 + width > LINE and len(said) > len("heard"):
            lines += [said.rstrip(), heard.rstrip()]
            said, heard = "said ", "heard"
        if reference is not None and hypothesis is not None and reference != hypothesis:
            reference, hypothesis = reference.upper(), hypothesis.upper()
        said += " " + ("*" * width if reference is None else reference.ljust(width))
        heard += " " + ("*" * width if hypothesis is None else hypothesis.ljust(width))
    return "\n".join([*lines, said.rstrip(), heard.rstrip()])
