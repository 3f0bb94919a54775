"""The prefix tree against a dictionary."""

from __future__ import annotations

import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import CHARACTERS, PLAIN, quick, random_model, thorough

from streamasr import modelfile
from streamasr.data import lexicon as data
from streamasr.errors import ConfigError, ModelError
from streamasr.search import lexicon, lm
from streamasr.vocabulary import Vocabulary

spellings = st.lists(
    st.tuples(st.sampled_from(["a", "be", "see", "e"]), st.lists(st.integers(1, 4), min_size=1, max_size=5)),
    max_size=12,
)  # fmt: skip


def words_at(found: lexicon.Lexicon, spelling: list[int]) -> list[str]:
    a, node = found.arrays, 0
    for token in spelling:
        children = range(a.first_child[node], a.first_child[node + 1])
        labels = [int(a.token[child]) for child in children]
        assert labels == sorted(set(labels))
        if token not in labels:
            return []
        node = children[labels.index(token)]
    return [found.words[i] for i in a.word[a.first_word[node] : a.first_word[node + 1]]]


@thorough
@given(spellings)
def test_every_spelling_leads_to_its_words(pairs: list[tuple[str, list[int]]]) -> None:
    found = lexicon.build(pairs, 5)
    for _, spelling in pairs:
        assert sorted(words_at(found, spelling)) == sorted({w for w, s in pairs if s == spelling})
    assert len(found) == len({tuple(s[:n]) for _, s in pairs for n in range(1, len(s) + 1)}) + 1
    assert words_at(found, [1, 1, 1, 1, 1, 1]) == []


@thorough
@given(spellings)
def test_the_first_spelling_is_known_also_from_the_file(pairs: list[tuple[str, list[int]]]) -> None:
    first: dict[str, list[int]] = {}
    for word, spelling in pairs:
        first.setdefault(word, spelling)
    found = lexicon.build(pairs, 5)
    with tempfile.TemporaryDirectory() as folder:
        found.write(Path(folder) / "lexicon.safetensors")
        again = lexicon.read(Path(folder) / "lexicon.safetensors")
        for word, spelling in first.items():
            for each in (found, again):
                every = each.spellings(word)
                assert every[0] == spelling
                assert sorted(every) == sorted([list(s) for s in {tuple(s) for w, s in pairs if w == word}])


@thorough
@given(spellings)
def test_look_ahead_is_the_best_that_can_be_reached(pairs: list[tuple[str, list[int]]]) -> None:
    found = lexicon.build(pairs, 5)
    scores = -np.arange(1.0, len(found.words) + 1)
    best = found.look_ahead(scores)
    a = found.arrays
    for node in range(len(found) - 1, -1, -1):
        reach = [scores[w] for w in a.word[a.first_word[node] : a.first_word[node + 1]]]
        reach += [best[child] for child in range(a.first_child[node], a.first_child[node + 1])]
        assert best[node] == max(reach, default=-np.inf)


@quick
@given(spellings)
def test_file(tmp_path_factory: pytest.TempPathFactory, pairs: list[tuple[str, list[int]]]) -> None:
    found, path = lexicon.build(pairs, 5), tmp_path_factory.mktemp("lexicon") / "lexicon.safetensors"
    found.write(path)
    again = lexicon.read(path)
    assert again.words == found.words and again.tokens == 5
    for name, array in again.arrays._asdict().items():
        np.testing.assert_array_equal(array, getattr(found.arrays, name))


def test_file_of_many_tokens(tmp_path: Path) -> None:
    """More children and higher tokens than a byte holds."""
    found = lexicon.build([(f"w{i}", [i]) for i in range(1, 400)], 400)
    found.write(tmp_path / "lexicon.safetensors")
    assert words_at(lexicon.read(tmp_path / "lexicon.safetensors"), [399]) == ["w399"]
    for most, dtype in ((255, np.uint8), (256, np.uint16), (65_535, np.uint16), (65_536, np.int32)):
        assert lexicon._narrowed(np.array([0, most], np.int32)).dtype == dtype


def test_no_damaged_file_is_followed(tmp_path: Path) -> None:
    """A byte changed anywhere: refused, or a tree whose every index is within bounds."""
    path = tmp_path / "lexicon.safetensors"
    words = ["art", "artist", "a", "it's"]
    lexicon.build(lexicon.spell(words, CHARACTERS), len(CHARACTERS)).write(path)
    content, rng = path.read_bytes(), np.random.default_rng(0)
    for _ in range(80):
        damaged = bytearray(content)
        damaged[rng.integers(len(content))] ^= 1 << rng.integers(8)
        path.write_bytes(damaged)
        try:
            found = lexicon.read(path)
        except ModelError:
            continue
        assert np.isfinite(found.look_ahead(np.zeros(len(found.words)))).sum() <= len(found)
        for word in words:
            words_at(found, CHARACTERS.encode(word))
    with pytest.raises(ModelError, match="cannot be read"):
        lexicon.read(tmp_path / "none")


PHONES = ("<blank>", " ", "AH", "D", "EH", "EY", "IY", "R", "T", "UW")
SPOKEN = "a\tAH0\na\tEY1\nread\tR EH1 D\nread\tR IY1 D\nred\tR EH1 D\nto\tT AH0\nto\tT AH1\nto\tT UW1\n"


def test_pronunciations(tmp_path: Path) -> None:
    path, more = tmp_path / "dictionary.txt", tmp_path / "more.txt"
    path.write_text(SPOKEN)
    more.write_text("reed\tR IY1 D\tg2p\nred\tR EH2 D\tg2p\n")
    spoken = data.pronunciations([path, more], PHONES)
    assert spoken["to"] == [[8, 2], [8, 9]]  # alike but for stress: once
    found, left_out = data.from_pronunciations(["<s>", "to", "read", "red", "xylem", "reed"], spoken, 10)
    assert (found.words, left_out) == (("to", "read", "red", "reed"), 2)
    assert words_at(found, [7, 4, 3]) == ["read", "red"] and words_at(found, [7, 6, 3]) == ["read", "reed"]
    assert words_at(found, [2]) == []  # "a" is no word of the list
    with pytest.raises(ConfigError, match="no word of 1 is among the 5 with a pronunciation"):
        data.from_pronunciations(["xylem"], spoken, 10)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("to", "line 9: expected word TAB phones, not 'to'"),
        ("to\t \tg2p", "line 9: expected word TAB phones"),
        ("shoe\tSH UW1", "line 9: phone 'SH' is no token of the model"),
    ],
)
def test_what_is_wrong_is_told_with_its_line(tmp_path: Path, line: str, message: str) -> None:
    (tmp_path / "dictionary.txt").write_text(SPOKEN + line)
    with pytest.raises(ConfigError, match=message):
        data.pronunciations([tmp_path / "dictionary.txt"], PHONES)


def test_a_lexicon_of_other_tokens_is_told_by_its_names(tmp_path: Path) -> None:
    found = lexicon.build(lexicon.spell(["art"], CHARACTERS), len(CHARACTERS))
    path = tmp_path / "lexicon.safetensors"
    found.write(path)
    lexicon.read(path).check(CHARACTERS)
    with pytest.raises(
        ConfigError, match=r"lexicon.safetensors: is spelt in 29 tokens, the model has 3; make"
    ):
        lexicon.read(path).check(Vocabulary(CHARACTERS.tokens[:3]))
    other = Vocabulary((*CHARACTERS.tokens[:-1], "-"))
    lexicon.read(path).check(other)  # nobody knows
    found.write(path, CHARACTERS)
    lexicon.read(path).check(CHARACTERS)
    with pytest.raises(
        ConfigError, match=r"lexicon.safetensors: is spelt in other tokens: \"'\" where .* '-'"
    ):
        lexicon.read(path).check(other)


def test_what_cannot_be_spelt_is_named() -> None:
    with pytest.raises(ConfigError, match="'naïve' holds 'ï'"):
        lexicon.spell(["so", "naïve"], CHARACTERS)
    with pytest.raises(ConfigError, match="'new york' holds ' '"):
        lexicon.spell(["new york"], CHARACTERS)
    with pytest.raises(ConfigError, match=r"'x' is spelt \[9\]"):
        lexicon.build([("x", [9])], 5)


def test_arrays_are_checked() -> None:
    found = lexicon.build([("a", [1, 2]), ("b", [1]), ("c", [3])], 5)
    for name, place, value in [
        ("first_child", 1, 9), ("first_child", 0, 0), ("token", 1, 0), ("token", 1, 5), ("first_word", 1, 1),
        ("first_word", -1, 9), ("word", 0, 3),
    ]:  # fmt: skip
        broken = getattr(found.arrays, name).copy()
        broken[place] = value
        with pytest.raises(ModelError, match="here: "):
            lexicon.Lexicon(found.words, 5, found.arrays._replace(**{name: broken}), "here")


def test_command_for_a_model_of_phones(
    tmp_path: Path,
    tiny_directory: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The words of a list; what the model's kind needs is asked for."""

    def command(*arguments: object) -> int:
        monkeypatch.setattr(sys, "argv", ["", *map(str, arguments)])
        return data.main()

    description, tensors = random_model(PLAIN)
    description = replace(description, phones=Vocabulary(PHONES, kind="phones"))
    missing = description.shapes().items() - {(name, tensor.shape) for name, tensor in tensors.items()}
    tensors |= {name: np.zeros(shape, np.float32) for name, shape in missing}
    modelfile.write(tmp_path / "phones", description, tensors)
    spoken, words, out = (tmp_path / name for name in ("spoken.txt", "words.txt", "lexicon.safetensors"))
    spoken.write_text(SPOKEN)
    words.write_text("to\nread\nxylem\n")
    assert command(words, tmp_path / "phones", out, "--pronunciations", spoken) == 0
    told = capsys.readouterr().out
    assert "2 words, 4 spellings" in told and "1 words left out" in told
    assert words_at(lexicon.read(out), [7, 6, 3]) == ["read"]
    with pytest.raises(ConfigError, match="a model of phones needs --pronunciations"):
        command(words, tmp_path / "phones", out)
    with pytest.raises(ConfigError, match="a model of characters spells words by itself"):
        command(words, tiny_directory, out, "--pronunciations", spoken)


def test_language_model_ids() -> None:
    known = ["<s>", "a", "b", "c", "<unk>"]
    one = np.arange(5, dtype=np.int32)[:, None], -np.ones(5), np.zeros(5)
    model = lm.build(known, [one])
    for words, ids in [("abc", [1, 2, 3]), ("bc", [2, 3]), ("cab", [3, 1, 2]), ("abcd", [1, 2, 3, 4])]:
        found = lexicon.build([(word, [1]) for word in words], 5)
        assert lexicon.language_model_ids(found, model).tolist() == ids
    with pytest.raises(ConfigError, match="knows 1 of the lexicon's 3 words .not 'x'"):
        lexicon.language_model_ids(lexicon.build([(word, [1]) for word in "axy"], 5), model)
