from __future__ import annotations

import json
import multiprocessing
import os
import signal
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import jiwer
import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

import streamasr
from streamasr.data.manifest import Utterance
from streamasr.errors import ManifestError, ModelError
from streamasr.evaluate import calibration, diagram, report, runner, wer
from streamasr.evaluate.report import CorpusReport, Failure
from streamasr.evaluate.wer import Counts

sentences = st.lists(st.sampled_from(["a", "b", "ab", "it's"]), max_size=6).map(" ".join)


def counts_of(reference: str, hypothesis: str) -> Counts:
    return wer.score({"x": reference}, {"x": hypothesis}).words


@pytest.mark.parametrize(
    ("reference", "hypothesis", "counts", "rate"),
    [
        ("the cat sat", "the cat sat", Counts(3, 0, 0, 0), 0.0),
        ("the cat sat", "the bat", Counts(1, 1, 1, 0), 2 / 3),
        ("one", "one two three", Counts(1, 0, 0, 2), 2.0),
        ("two words", "", Counts(0, 0, 2, 0), 1.0),
        ("", "", Counts(0, 0, 0, 0), 0.0),
        ("", "three words heard", Counts(0, 0, 0, 3), 3.0),
        ("Don’t—STOP!", "don't stop", Counts(2, 0, 0, 0), 0.0),
    ],
)
def test_counts(reference: str, hypothesis: str, counts: Counts, rate: float) -> None:
    assert counts_of(reference, hypothesis) == counts
    assert counts.rate == pytest.approx(rate)


def test_scoring_goes_by_id_and_pools() -> None:
    references = {"long": "a b c d e f g h", "short": "x", "noise": ""}
    hypotheses = {"noise": "uh", "short": "y", "unused": "z", "long": "a b c d e f g h"}
    score = wer.score(references, hypotheses)
    assert [one.id for one in score.utterances] == ["long", "short", "noise"]
    assert score.words == Counts(8, 1, 0, 1)
    assert score.words.rate == pytest.approx(2 / 9)  # not the mean of 0, 1 and 1
    with pytest.raises(ManifestError, match='no hypothesis for "short"'):
        wer.score(references, {"long": "", "noise": ""})


def test_characters_include_spaces() -> None:
    assert wer.score({"x": "ab c"}, {"x": "abc"}).characters == Counts(3, 0, 1, 0)


@settings(deadline=None)  # a busy machine is no failure
@given(st.lists(st.tuples(sentences, sentences), min_size=1, max_size=5))
def test_pooled_rates_are_jiwers(pairs: list[tuple[str, str]]) -> None:
    score = wer.score(
        {str(i): pair[0] for i, pair in enumerate(pairs)}, {str(i): pair[1] for i, pair in enumerate(pairs)}
    )
    references, hypotheses = [list(side) for side in zip(*pairs, strict=True)]
    assert score.words.rate == pytest.approx(jiwer.wer(references, hypotheses))
    assert score.characters.rate == pytest.approx(jiwer.cer(references, hypotheses))


@settings(deadline=None)  # a busy machine is no failure
@given(sentences, sentences)
def test_alignment_spells_both_sides_and_agrees_with_the_counts(reference: str, hypothesis: str) -> None:
    one = wer.score({"x": reference}, {"x": hypothesis}).utterances[0]
    assert " ".join(said for said, _ in one.alignment if said is not None) == reference
    assert " ".join(heard for _, heard in one.alignment if heard is not None) == hypothesis
    assert sum(said is None for said, _ in one.alignment) == one.words.insertions
    assert sum(heard is None for _, heard in one.alignment) == one.words.deletions
    assert sum(said == heard for said, heard in one.alignment) == one.words.hits


def test_interval_holds_the_rate_and_narrows_with_more_speech() -> None:
    def interval(copies: int) -> tuple[float, float]:
        texts = {f"{i}": "a b c d" for i in range(4 * copies)}
        heard = {name: "a b c d" if int(name) % 4 else "a x c d" for name in texts}
        return wer.score(texts, heard).interval()

    low, high = interval(50)
    assert low < 1 / 16 < high
    assert high - low < interval(3)[1] - interval(3)[0]
    assert interval(3) == interval(3)  # the seed is fixed
    assert wer.score({}, {}).interval() == (0.0, 0.0)


def corpus_report() -> CorpusReport:
    score = wer.score(
        {"good": "one two", "bad": "it is late now"}, {"good": "one two", "bad": "it late not now"}
    )
    return CorpusReport(score, 20.0, 2.0, (Failure("gone", "no audio file"),))


def test_json_form() -> None:
    done = report.to_dict({"set": corpus_report()}, "en", "greedy")
    assert done["corpora"]["set"] == {
        "utterances": 2,
        "words": 6,
        "wer": pytest.approx(2 / 6),
        "cer": pytest.approx(corpus_report().score.characters.rate),
        "substitutions": done["corpora"]["set"]["substitutions"],
        "deletions": done["corpora"]["set"]["deletions"],
        "insertions": done["corpora"]["set"]["insertions"],
        "audio_seconds": 20.0,
        "rtf": 0.1,
        "failed": [{"id": "gone", "error": "no audio file"}],
    }
    assert (done["model"], done["search"], done["normaliser"]) == ("en", "greedy", "streamasr-en-1")


def test_nothing_scored_is_null_not_nan() -> None:
    empty = CorpusReport(wer.score({}, {}), 0.0, 0.0, ())
    done = json.loads(json.dumps(report.to_dict({"set": empty}, "en", "greedy"), allow_nan=False))
    assert [done["corpora"]["set"][key] for key in ("wer", "cer", "rtf")] == [None, None, None]
    assert "set" in report.render({"set": empty})


def test_text_report_shows_the_worst_with_alignment() -> None:
    text = report.render({"set": corpus_report()})
    assert "33.33" in text
    assert "set  bad: 2 of 4 words" in text
    assert "good:" not in text  # nothing is wrong with it


def test_alignment_of_a_long_utterance_is_cut_into_lines() -> None:
    words = " ".join(f"word{chr(97 + i % 26)}" for i in range(100))
    one = wer.score({"x": words}, {"x": words.replace("wordc", "")}).utterances[0]
    text = report.render_utterance(one, "set")
    assert max(len(line) for line in text.split("\n")) <= report.LINE
    assert text.count("\nsaid ") > 3
    assert "*****" in text


@pytest.fixture
def utterances(tmp_path: Path) -> list[Utterance]:
    generator = np.random.default_rng(0)
    listed = []
    for i, rate in enumerate([16000, 8000, 16000]):
        path = tmp_path / f"{i}.wav"
        soundfile.write(path, 0.1 * generator.standard_normal(rate // 2), rate)
        listed.append(Utterance(str(i), path, 0.5, "some words", None))
    return listed


def test_runner_streams_each_recording(utterances: list[Utterance], tiny_directory: Path) -> None:
    recognizer = streamasr.load(tiny_directory)
    results = list(runner.run(utterances, str(tiny_directory), jobs=2))
    assert sorted(result.id for result in results) == ["0", "1", "2"]
    for result in results:
        assert result.error is None
        assert result.audio_seconds == 0.5
        assert result.compute_seconds > 0
        assert result.text == recognizer.transcribe(utterances[int(result.id)].audio).text


def test_runner_collects_failures(utterances: list[Utterance], tiny_directory: Path, tmp_path: Path) -> None:
    (tmp_path / "text.wav").write_text("this is no recording")
    soundfile.write(tmp_path / "none.wav", np.zeros(0), 16000)
    bad = [Utterance(name, tmp_path / f"{name}.wav", None, "", None) for name in ("text", "none", "gone")]
    results = {r.id: r for r in runner.run([*bad, *utterances], str(tiny_directory))}
    assert list(results) == ["text", "none", "gone", "0", "1", "2"]  # one job keeps the order
    assert "text.wav" in (results["text"].error or "")
    assert "holds no samples" in (results["none"].error or "")
    assert "gone.wav" in (results["gone"].error or "")
    assert all(results[name].error is None for name in "012")
    done = report.summarise([*bad, *utterances], results)
    assert len(done.failed) == 3
    assert len(done.score.utterances) == 3


def test_a_worker_that_dies_costs_one_utterance(utterances: list[Utterance], tiny_directory: Path) -> None:
    many = [replace(utterances[0], id=str(i)) for i in range(6)]
    run = runner.run(many, str(tiny_directory))
    results = [next(run)]
    [worker] = multiprocessing.active_children()
    assert worker.pid is not None
    os.kill(worker.pid, signal.SIGKILL)
    results += list(run)
    assert sorted(result.id for result in results) == [str(i) for i in range(6)]
    failed = [result for result in results if result.error is not None]
    assert len(failed) <= 1  # none, if it had finished the one that it was given
    assert all("the process reading it ended (code -9)" in (result.error or "") for result in failed)
    assert not multiprocessing.active_children()


def test_closing_the_run_ends_the_workers(utterances: list[Utterance], tiny_directory: Path) -> None:
    run = runner.run(utterances, str(tiny_directory), jobs=2)
    next(run)
    run.close()
    assert not multiprocessing.active_children()


def test_a_model_that_cannot_be_loaded(utterances: list[Utterance], tmp_path: Path) -> None:
    with pytest.raises(ModelError):
        list(runner.run(utterances, str(tmp_path / "no model")))


def test_no_utterances_need_no_worker(tmp_path: Path) -> None:
    assert list(runner.run([], str(tmp_path / "no model"))) == []


def test_calibration() -> None:
    rng = np.random.default_rng(0)
    confidences = rng.random(5000)
    honest = [(float(c), bool(rng.random() < c)) for c in confidences]
    boastful = [(float(c**0.2), right) for c, right in honest]
    assert calibration.expected_error(honest) < 0.03  # type: ignore[operator]
    assert calibration.expected_error(boastful) > 0.2  # type: ignore[operator]
    assert calibration.expected_error([]) is None
    assert [count for *_, count in calibration.bins(honest)] == [500] * 10


def test_confidences_meet_their_words() -> None:
    result = runner.Result(
        "a", "the cat sad down", confidences=(0.9, 0.8, 0.3, 0.2), alternatives=("the cat sat",)
    )
    found = report.summarise([Utterance("a", Path("a"), None, "the cat sat", None)], {"a": result})
    judged = report.judged(found.score.utterances[0], result)
    assert judged == [(0.9, True), (0.8, True), (0.3, False), (0.2, False)]
    assert found.oracle_wer == 0.0
    corpus = report.corpus_dict(found, "beam")
    assert corpus["oracle_wer"] == 0.0 and 0.0 < corpus["ece"] < 0.5


def test_reliability_diagram_puts_bins_where_they_belong() -> None:
    """Read back from the picture: ten points at (mean confidence, share right) of the unit square."""
    rng = np.random.default_rng(2)
    words = [(float(p), bool(rng.random() < p)) for p in rng.random(500)]
    picture = ElementTree.fromstring(diagram.draw(words, "a <b>"))
    name = "{http://www.w3.org/2000/svg}"
    circles = [(float(c.get("cx", "")), float(c.get("cy", ""))) for c in picture.iter(f"{name}circle")]
    (left, top), size = (64, 56), 320
    found = [((x - left) / size, 1 - (y - top) / size) for x, y in circles]
    for (x, y), (mean, share, _) in zip(found, calibration.bins(words), strict=True):
        assert (x, y) == pytest.approx((mean, share), abs=1e-3)
    assert "a <b>" in [text.text for text in picture.iter(f"{name}text")]
    bars = [float(r.get("height", "")) for r in picture.iter(f"{name}rect") if r.get("fill-opacity")]
    assert len(bars) == 20 and max(bars) == pytest.approx(40, abs=0.1)
    assert ElementTree.fromstring(diagram.draw([], "none")) is not None


@pytest.mark.parametrize(("right", "count"), [(0, 5), (5, 5), (3, 10), (70, 100)])
def test_wilson_interval(right: int, count: int) -> None:
    """Its ends are the shares from which what was seen is 1.96 standard deviations away."""
    share = right / count
    for end in diagram.interval(share, count):
        if 0 < end < 1:
            assert abs(share - end) == pytest.approx(1.96 * np.sqrt(end * (1 - end) / count))
    low, high = diagram.interval(share, count)
    assert 0 <= low <= share <= high <= 1 and low < high


def test_character_interval_is_that_of_characters() -> None:
    scored = wer.score({"a": "abc def", "b": "xyz"}, {"a": "abd def", "b": "xyz"})
    low, high = scored.interval(characters=True)
    assert low == 0.0 and high == pytest.approx(1 / 7)
