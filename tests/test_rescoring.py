from __future__ import annotations

import numpy as np
import pytest
from strategies import every, finals, random_lstm, run, sound

import streamasr
from streamasr.errors import ConfigError
from streamasr.events import Partial
from streamasr.search.lstm_lm import LstmModel
from streamasr.search.rescoring import MOST_CONTEXT_WORDS, MOST_SUBWORDS, MOST_TEXTS, Rescorer
from streamasr.search.subwords import LINE_END, Subwords

SUBWORDS = Subwords(["\n", "a", "b", "a ", "b ", "ab "])
MODEL = LstmModel(SUBWORDS, random_lstm(len(SUBWORDS), seed=3))
SOUND = sound(3, 6.0)


def test_what_is_added_is_the_weighted_log_probability() -> None:
    rescorer = Rescorer(MODEL, 0.25)
    found = rescorer.score(["b", "ab"], [["a", "b"], ["ba"]])
    context = [LINE_END, SUBWORDS.ids["b "], SUBWORDS.ids["ab "]]
    ids = SUBWORDS.ids
    texts = [[ids["a "], ids["b "], LINE_END], [ids["b"], ids["a "], LINE_END]]
    assert found == pytest.approx(0.25 * MODEL.score(context, texts))
    open_ended = rescorer.score(["b", "ab"], [["a", "b"], ["ba"]], sentence_ends=False)
    assert open_ended == pytest.approx(0.25 * MODEL.score(context, [text[:-1] for text in texts]))
    # Unknown letters are passed over; a word of nothing else is none.
    assert rescorer.score([], [["é", "aéb"]]) == rescorer.score([], [["ab"]])


def test_the_time_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = []
    monkeypatch.setattr(
        LstmModel, "step", lambda self, tokens, state: steps.append(len(tokens)) or np.zeros((len(tokens), 6))
    )
    texts = [["a"] * 1000 + ["b"] * i for i in range(MOST_TEXTS)]
    Rescorer(MODEL, 1.0).score(["b"] * 1000, texts)
    assert len(steps) == 1 + MOST_CONTEXT_WORDS + MOST_SUBWORDS - 1 and max(steps) <= MOST_TEXTS


def test_finals_are_rescored_and_only_if_asked(beam: streamasr.Recognizer) -> None:
    with_, without = (finals(run(beam.stream(rescore=choice), SOUND)) for choice in (True, False))
    assert [f.text for f in with_] != [f.text for f in without]
    assert with_ == finals(run(beam.stream(), SOUND))  # the model brings one
    assert finals(run(beam.stream(language_model=False), SOUND)) == finals(
        run(beam.stream(language_model=False, rescore=False), SOUND)
    )


def test_the_final_is_the_best_of_sum_and_weight(beam: streamasr.Recognizer) -> None:
    """By hand: the search's n best, scored word by word."""
    plain, rescored = (beam.stream(rescore=choice, endpointing=False) for choice in (False, True))
    plain.accept(SOUND), rescored.accept(SOUND)
    model, weight = beam._open_rescorer().model, beam.model.description.search.rescore_weight
    totals = {text: score + weight * sum(model.line(text)) for text, score in plain.nbest(100)}
    (final,) = finals(rescored.finish())
    assert final.text == max(totals, key=totals.__getitem__)
    assert final.text != plain.nbest(1)[0][0]


@pytest.mark.parametrize("seed", range(4))
def test_stable_words_stay(beam: streamasr.Recognizer, seed: int) -> None:
    samples = sound(seed, 6.0)
    stable: list[str] = []
    events = run(beam.stream(rescore=True), samples, every(len(samples), 800))
    assert any(isinstance(event, Partial) and event.stable for event in events)
    for event in events:
        words = (event.stable if isinstance(event, Partial) else event.text).split()
        assert words[: len(stable)] == stable
        stable = words if isinstance(event, Partial) else []


@pytest.mark.parametrize("size", [37, 1600, 9999])
def test_chunks_change_nothing(beam: streamasr.Recognizer, size: int) -> None:
    whole = finals(run(beam.stream(rescore=True), SOUND))
    assert finals(run(beam.stream(rescore=True), SOUND, every(len(SOUND), size))) == whole


def test_snapshots_remember(beam: streamasr.Recognizer) -> None:
    for choice in (True, False):
        stream = beam.stream(rescore=choice)
        stream.accept(SOUND[:40_000])
        resumed = beam.resume(stream.snapshot())
        assert finals(run(resumed, SOUND[40_000:])) == finals(run(stream, SOUND[40_000:]))
        assert (resumed._search.rescorer is not None) is choice  # type: ignore[attr-defined]
    stream = beam.stream(rescore=True)
    stream.set_hotwords([("qq", 5.0)])
    assert stream._search.rescorer is not None  # type: ignore[attr-defined]


def test_the_first_of_the_n_best_is_the_preview(beam: streamasr.Recognizer) -> None:
    stream = beam.stream(rescore=True, endpointing=False)
    stream.accept(SOUND)
    found = stream.nbest(5)
    assert found == sorted(found, key=lambda pair: -pair[1]) and len(found) == 5
    assert stream.nbest(1)[0] == found[0] and found[0][0] == stream.preview().text


def test_what_cannot_be_is_told(plain: streamasr.Recognizer, beam: streamasr.Recognizer) -> None:
    with pytest.raises(ConfigError, match=r"no LSTM language model.*train-lm"):
        plain.stream(search="beam", rescore=True)
    with pytest.raises(ConfigError, match='rescore needs "beam"'):
        beam.stream(search="greedy", rescore=True)
    with pytest.raises(ConfigError, match="letters that the LSTM language model lacks: 'c'"):
        Rescorer(MODEL, 1.0).check(["ab", "cab"])
    assert beam.info["rescoring"] and not plain.info["rescoring"]
