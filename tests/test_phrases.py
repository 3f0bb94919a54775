"""Phrase mode: only the phrases, or none of them."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
import soundfile
from conftest import DATA
from hypothesis import given
from hypothesis import strategies as st
from strategies import cuts, finals, quick, run, sound
from test_beam import VOCABULARY, random_log_probs
from test_hotwords import CONFIG, phone_search, phones_said, spoken

import streamasr
from streamasr import snapshot, state
from streamasr.cli.main import main
from streamasr.errors import ConfigError
from streamasr.events import Partial
from streamasr.search import kernels
from streamasr.search.beam import BeamSearch
from streamasr.search.phrases import PhraseSearch

PLAIN = BeamSearch(VOCABULARY, CONFIG)
NAMES = [["a"], ["ab", "ba"], ["ab"], ["ba", "b", "a"], ["b", "ab"], ["ab", "ba", "a", "a"]]


def texts(search: BeamSearch, log_probs: Any) -> list[str]:
    s = search.start()
    search.advance(s, log_probs)
    return [word.text for word in search.commit(s).words]


def allowed(words: tuple[str, ...], phrases: list[list[str]]) -> bool:
    return not words or any(
        list(words[: len(p)]) == p and (len(words) == len(p) or allowed(words[len(p) :], phrases))
        for p in phrases
    )


@quick
@given(st.lists(st.lists(st.sampled_from(["a", "b", "ab"]), min_size=1, max_size=3), min_size=1, max_size=4))
def test_the_grammar_lets_through_rows_of_phrases_and_nothing_else(phrases: list[list[str]]) -> None:
    search = PhraseSearch(PLAIN, [" ".join(phrase) for phrase in phrases])
    assert search.lexicon is not None
    hot: Any = tuple(search.hotwords.arrays)
    for count in range(1, 6):
        for words in itertools.product(search.lexicon.words, repeat=count):
            node, total = 2, 0.0
            for word in words:
                for token in VOCABULARY.encode(word):
                    node, change = kernels.hot_next(hot, node, token, False)
                    total += change
                end = len(VOCABULARY) + search.lexicon.ids[word]
                node, change = kernels.hot_next(hot, node, end, True)
                total += change
            assert (total == 0.0 and search._accepts[node]) == allowed(words, phrases), words


def test_a_phrase_is_heard_and_what_is_none_is_not() -> None:
    search = PhraseSearch(PLAIN, ["ab ba", "AB", "ba b a"])
    assert texts(search, spoken("ab ba", {})) == ["ab", "ba"]
    assert texts(search, spoken("ab ", {})) == ["ab"]
    assert texts(search, spoken("ab ab ba ", {})) == ["ab", "ab", "ba"]
    assert texts(search, spoken("ab ba", {1: "a"})) == ["ab", "ba"]  # doubtful, but nothing else fits
    for other in ("ba", "ba b", "aaaa", "bbb bbb"):
        assert texts(search, spoken(other, {})) == [], other
    assert texts(search, spoken("ab ba", {})[:0]) == []


def test_none_of_them_is_in_the_list() -> None:
    search = PhraseSearch(PLAIN, ["ab", "ab ba"])
    s = search.start()
    search.advance(s, spoken("ab ba", {}))
    found = search.nbest(s, 9)
    assert [[w.text for w in told.words] for _, told in found][0] == ["ab", "ba"]
    assert () in [told.words for _, told in found] and all(told.stable == 0 for _, told in found)
    assert [score for score, _ in found] == sorted((score for score, _ in found), reverse=True)
    assert len(search.nbest(s, 1)) == 1


def test_partials_hold_whole_phrases_and_segments_are_judged_apart() -> None:
    search = PhraseSearch(PLAIN, ["ab ba"])
    s = search.start()
    search.advance(s, spoken("ab ", {}))
    assert search.best(s).words == ()
    search.advance(s, spoken("ba ", {}))
    assert [w.text for w in search.best(s).words] == ["ab", "ba"] and search.best(s).stable == 0
    assert len(search.commit(s).words) == 2
    search.advance(s, spoken("bbbb ", {}))
    assert search.commit(s).words == ()
    search.advance(s, spoken("ab ba ", {}))
    assert len(search.commit(s).words) == 2


@quick
@given(cuts(90), st.integers(0, 5))
def test_chunks_and_snapshots_change_nothing(chunks: list[slice], seed: int) -> None:
    search = PhraseSearch(PLAIN, ["ab", "ba b", "a"], penalty=9.0)
    log_probs = random_log_probs(90, 4, seed)
    whole, pieces = search.start(), search.start()
    search.advance(whole, log_probs)
    for chunk in chunks:
        search.advance(pieces, log_probs[chunk])
        data = snapshot.write("m", {}, state.pack(pieces))
        pieces = state.unpack(search.start(), snapshot.read(data, "m")[1])
        search.check(pieces)
    assert search.nbest(whole, 9) == search.nbest(pieces, 9)
    assert search.commit(whole) == search.commit(pieces)


def test_phones_sound_alike_but_only_the_phrase_is_told() -> None:
    for word in ("toe", "tow"):
        assert texts(PhraseSearch(phone_search(), [f"{word} bow"]), phones_said("TO BO")) == [word, "bow"]
    assert texts(PhraseSearch(phone_search(), ["boat"]), phones_said("BOT")) == ["boat"]
    assert texts(PhraseSearch(phone_search(), ["boat"]), phones_said("TOB")) == []


def test_many_phrases_that_begin_one_in_another() -> None:
    words = ["".join(each) for each in itertools.product("ab", repeat=6)]
    phrases = [" ".join(words[i : i + n]) for i in range(0, 60, 2) for n in (1, 2, 3)] + words
    search = PhraseSearch(PLAIN, phrases)
    assert len(search.hotwords.arrays.fail) < 4000
    assert texts(search, spoken(" ".join(words[4:7]), {})) == words[4:7]


@pytest.mark.parametrize(
    ("phrases", "message"),
    [
        ([], "phrases: the list is empty"),
        (["ab", "  "], "phrases: '  ' holds no word"),
        (["ab", "route 66"], "phrases: 'route' holds .* cannot write"),
        ([("ab", 2.0)], "phrases: a phrase is a text.*boosts are for hotwords"),
        ("ab", "phrases: a list of phrases"),
    ],
)
def test_what_cannot_be_a_phrase(phrases: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        PhraseSearch(PLAIN, phrases)


def test_no_hotwords_beside_phrases() -> None:
    with pytest.raises(ConfigError, match="hotwords: this stream hears its phrases only"):
        PhraseSearch(PLAIN, ["ab"]).with_phrases(["ba"])


SOUND = sound(3, 2.5)


@pytest.fixture(params=["tiny", "beam"])
def model(request: pytest.FixtureRequest) -> streamasr.Recognizer:
    recognizer: streamasr.Recognizer = request.getfixturevalue(request.param)
    return recognizer


def test_what_greedy_search_hears_fits_as_a_phrase(model: streamasr.Recognizer) -> None:
    text = model.transcribe(SOUND, 16_000, search="greedy", endpointing=False).text
    assert len(text.split()) > 2
    found = model.transcribe(SOUND, 16_000, endpointing=False, phrases=["so it is", text, "no"])
    assert found.text == text


def test_what_nobody_said_does_not(tiny: streamasr.Recognizer) -> None:
    assert tiny.transcribe(SOUND, 16_000, endpointing=False, phrases=["so it is", "no"]).segments == ()


def test_a_stream_of_phrases_in_any_chunks_and_resumed(model: streamasr.Recognizer) -> None:
    text = model.transcribe(SOUND, 16_000, search="greedy", endpointing=False).text
    whole = model.stream(phrases=[text, "so"], endpointing=False)
    expected = finals(run(whole, SOUND))
    assert [final.text for final in expected] == [text]
    stream = model.stream(phrases=[text, "so"], endpointing=False)
    for at in range(0, len(SOUND), 1777):
        stream = model.resume(stream.snapshot())
        partials = [event for event in stream.accept(SOUND[at : at + 1777]) if isinstance(event, Partial)]
        assert not any(partial.stable for partial in partials)
    assert stream.preview().text == text
    assert finals(stream.finish()) == expected
    stream.reset()
    assert finals(run(stream, SOUND)) == expected


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"phrases": []}, "phrases: the list is empty"),
        ({"phrases": ["so"], "search": "greedy"}, 'search "greedy" cannot keep to phrases'),
        ({"phrases": ["so"], "hotwords": ["so"]}, "hotwords: a stream that keeps to phrases has none"),
        ({"phrases": ["café"]}, "phrases: 'café' holds 'é'"),
    ],
)
def test_streams_that_cannot_be(tiny: streamasr.Recognizer, options: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        tiny.stream(**options)


def test_hotwords_cannot_be_set_on_a_stream_of_phrases(tiny: streamasr.Recognizer) -> None:
    stream = tiny.stream(phrases=["so"])
    with pytest.raises(ConfigError, match="hears its phrases only"):
        stream.set_hotwords(["so"])


@pytest.fixture
def files(tmp_path: Path) -> Path:
    soundfile.write(tmp_path / "a.wav", SOUND, 16_000, subtype="FLOAT")
    (tmp_path / "a.jsonl").write_text('{"id": "a", "audio": "a.wav", "duration": 2.5, "text": "so"}\n')
    return tmp_path


def test_command_line(files: Path, tiny_directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recognizer = streamasr.load(tiny_directory)
    text = recognizer.transcribe(SOUND, 16_000, search="greedy").text
    (files / "list").write_text(f"so it is\n\n{text}\n")
    options = ["--model", str(tiny_directory), "--phrases", str(files / "list")]
    assert main(["transcribe", str(files / "a.wav"), *options]) == 0
    assert " ".join(capsys.readouterr().out.split()) == text
    assert main(["evaluate", str(files / "a.jsonl"), *options, "--json", str(files / "out")]) == 0
    assert json.loads((files / "out").read_text())["search"] == "beam"


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        ("so\t3\n", [], "line 1: 'so\\t3' holds a tab; phrases have no boost"),
        ("\n", [], "list: holds no phrase"),
        (None, [], "list: cannot be read"),
        ("so\n", ["--hotwords", "list"], "not allowed with"),
        ("so\n", ["--search", "greedy"], "--phrases needs --search beam"),
        ("so\n", ["--no-lm"], "--no-lm: --phrases listens without"),
        ("50%\n", [], "phrases: '50%' holds '%', '0', '5'"),
    ],
)
def test_wrong_use(
    files: Path,
    tiny_directory: Path,
    capsys: pytest.CaptureFixture[str],
    content: str | None,
    options: list[str],
    message: str,
) -> None:
    if content is not None:
        (files / "list").write_text(content)
    arguments = ["--model", str(tiny_directory), "--phrases", str(files / "list"), *options]
    assert main(["evaluate", str(files / "a.jsonl"), *arguments]) == 2
    assert message in capsys.readouterr().err


def test_spoken_digits(shipped: streamasr.Recognizer) -> None:
    digits = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
    listing = DATA / "commands-dev.jsonl"
    if not listing.exists():
        pytest.skip("no recordings beside the repository")
    said = [json.loads(line) for line in listing.read_text().splitlines()]
    said = [each for each in said if each["text"] in ("zero", "five", "seven") and each["duration"] < 1][:6]
    right, false = 0, 0
    for each in said:
        others = [digit for digit in digits if digit != each["text"]]
        right += shipped.transcribe(DATA / each["audio"], phrases=digits).text == each["text"]
        false += shipped.transcribe(DATA / each["audio"], phrases=others).text != ""
    assert right >= 5 and false <= 1, (right, false, len(said))
