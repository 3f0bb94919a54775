"""The n-gram model against KenLM, and its files."""

from __future__ import annotations

import gzip
import lzma
import math
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from oracles import load

from streamasr import tensorfile
from streamasr.data import ngram
from streamasr.errors import ConfigError, ModelError
from streamasr.search import lm

ARPA = """\\data\\
ngram 1=6
ngram 2=5
ngram 3=3

\\1-grams:
-2.1\t<unk>
-99\t<s>\t-0.4
-1.2\t</s>
-0.9\ta\t-0.31
-1.1\tb\t-0.22
-1.4\tc\t-0.05

\\2-grams:
-0.5\t<s> a\t-0.11
-0.7\ta b\t-0.3
-0.8\tb c\t-0.2
-0.3\tc a
-0.9\tb </s>

\\3-grams:
-0.2\t<s> a b
-0.6\ta b c
-0.4\tb c a

\\end\\
"""


def random_arpa(seed: int, order: int = 4) -> str:
    """Random n-grams over ten words. Beginnings are there, as in every ARPA file; and ends, for KenLM."""
    rng = np.random.default_rng(seed)
    words = ["<unk>", "<s>", "</s>", *"abcdefg"]
    grams = [[(word,) for word in words]]
    for _ in range(order - 1):
        begun = [g for g in grams[-1] if g[-1] not in ("</s>", "<unk>") and rng.random() < 0.7]
        known = set(grams[-1])
        longer = [(*g, w) for g in begun for w in words[2:] if rng.random() < 0.6]
        grams.append([g for g in longer if g[1:] in known])
    text = "\\data\\\n" + "".join(f"ngram {k}={len(g)}\n" for k, g in enumerate(grams, 1))
    for k, each in enumerate(grams, 1):
        text += f"\n\\{k}-grams:\n"
        for gram in each:
            back = "" if k == order else f"\t{-rng.uniform(0, 1):.4f}"
            text += f"{-rng.uniform(0.1, 3):.4f}\t{' '.join(gram)}{back}\n"
    return text + "\n\\end\\\n"


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


@pytest.mark.parametrize("seed", range(3))
def test_scores_are_those_of_kenlm(tmp_path: Path, seed: int) -> None:
    path = write(tmp_path / "lm.arpa", random_arpa(seed))
    ours, theirs = ngram.read(path, 16), load("kenlm").Model(str(path))
    rng = np.random.default_rng(seed)
    for _ in range(200):
        sentence = " ".join(rng.choice([*"abcdefg", "unheard"], rng.integers(0, 9)))
        expected = [score * math.log(10) for score, _, _ in theirs.full_scores(sentence)]
        np.testing.assert_allclose(ours.sentence(sentence), expected, atol=1e-5)  # KenLM: float32 log10


def test_kernels_score_the_same(tmp_path: Path) -> None:
    kernels = pytest.importorskip("streamasr.search.kernels")
    model = ngram.read(write(tmp_path / "lm.arpa", random_arpa(5)))
    rng, state = np.random.default_rng(0), model.start
    for word in rng.integers(-1, len(model.words), 300):
        expected = model.score(state, int(word))
        score, after = kernels.lm_score(model.tables, state, int(word))
        assert (score, after) == (pytest.approx(expected[0], abs=1e-12), expected[1])
        state = after


def test_definition(tmp_path: Path) -> None:
    model = ngram.read(write(tmp_path / "lm.arpa", ARPA))
    assert model.order == 3 and model.words[3] == "a"
    log10 = [score / math.log(10) for score in model.sentence("a b a")]
    #  <s> a; <s> a b; a b backs off, b backs off, a; a backs off to </s>
    np.testing.assert_allclose(log10, [-0.5, -0.2, -0.3 - 0.22 - 0.9, -0.31 - 1.2], atol=1e-6)


def test_words_are_drawn_by_their_probability(tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    path.write_text("a b c\na b\nb c a b\nc\na a b c d\n" * 3 + "e\n")
    model = ngram.read(path, 16)
    random, ends = np.random.default_rng(0), model.end
    states = [model.start, 0, model.score(model.start, model.ids["a"])[1]]
    states.append(model.score(states[-1], model.ids["b"])[1])
    for state in states:
        drawn = np.bincount([model.draw(state, random) for _ in range(4000)], minlength=len(model.words))
        expected = np.exp([model.score(state, word)[0] for word in range(len(model.words))])
        expected[model.ids[lm.BEGIN]] = 0.0
        assert expected.sum() == pytest.approx(1.0, abs=1e-3) and drawn[ends] > 0
        # Four standard deviations of 4000 draws, at most.
        np.testing.assert_allclose(drawn / 4000, expected, atol=4 * math.sqrt(0.25 / 4000))
    assert len(set(states)) == 4


@pytest.mark.parametrize("bits", [8, 16])
def test_file(tmp_path: Path, bits: int) -> None:
    model = ngram.read(write(tmp_path / "lm.arpa", random_arpa(1)), bits)
    model.write(tmp_path / "lm.safetensors")
    again = lm.read(tmp_path / "lm.safetensors")
    assert again.words == model.words and again.start == model.start
    for name, array in again.arrays._asdict().items():
        np.testing.assert_array_equal(array, getattr(model.arrays, name))
        assert not array.flags.owndata and not array.flags.writeable  # the file's own memory
    assert np.shares_memory(again.tables[0], again.arrays.context)


def test_codes_of_8_bits_are_close(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    values = -rng.gamma(3.0, 2.0, 20_000)
    codes, table = lm._quantise(values, 8)
    assert codes.dtype == np.uint8
    assert np.sqrt(np.mean((table[codes] - values) ** 2)) < 0.05


def test_compressed(tmp_path: Path) -> None:
    (tmp_path / "lm.arpa.gz").write_bytes(gzip.compress(ARPA.encode()))
    (tmp_path / "lm.arpa.xz").write_bytes(lzma.compress(ARPA.encode()))
    for name in ("lm.arpa.gz", "lm.arpa.xz"):
        assert ngram.read(tmp_path / name).words[-1] == "c"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("ngram 2=5", "ngram 2=6", "line 21: 5 2-grams, 6 were announced"),
        ("ngram 2=5", "ngram 2=4", "line 19: expected \\\\3-grams:"),
        ("-0.7\ta b", "-0.7\ta x", "line 16: 'x' is not among the 1-grams"),
        ("-0.7\ta b", "minus\ta b", "line 16: 'minus' is no number"),
        ("-0.7\ta b", "nan\ta b", "line 16: 'nan' is no number"),
        ("-0.7\ta b", "-0.7\ta b c", "line 16: expected log10 probability, 2 words"),
        ("-0.6\ta b c", "-0.6\ta b c\t-1", "line 23: expected log10"),
        ("-1.1\tb\t", "-1.1\ta\t", "line 11: 'a' occurs twice"),
        ("-0.7\ta b", "-0.7\tb c", "'b c' occurs twice"),
        ("-0.6\ta b c", "-0.6\tc b c", "n-gram 'c b c' is there, its first 2 words are not"),
        ("\\data\\", "data", "no .data.: this is not an ARPA file"),
        ("\\end\\", "", "expected .end., not 'the end of the file'"),
    ],
)
def test_what_is_wrong_is_told_with_its_line(tmp_path: Path, old: str, new: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        ngram.read(write(tmp_path / "lm.arpa", ARPA.replace(old, new)))


def test_a_kenlm_binary_is_named(tmp_path: Path) -> None:
    (tmp_path / "lm.bin").write_bytes(b"mmap lm http://kheafield.com/code format version 5\n\0" + bytes(100))
    with pytest.raises(ModelError, match="KenLM binary.*give the ARPA file"):
        ngram.read(tmp_path / "lm.bin")


def test_arrays_are_checked(tmp_path: Path) -> None:
    """Kernels trust them: no file may make one read beyond an array or go round for ever."""
    model = ngram.read(write(tmp_path / "lm.arpa", random_arpa(0)))
    count, contexts = len(model), len(model.arrays.backoff)
    for name, place, value in [
        ("context", 0, 2), ("context", -1, 1 << 31), ("context", 1, 0), ("first", 1, count), ("first", 2, 0),
        ("first", 0, 1), ("first", -1, count + 1), ("suffix", -1, count), ("suffix", 0, -1),
        ("suffix", -1, count - 1), ("word", -1, len(model.words)), ("log_probs", 0, np.nan),
        ("backoffs", 0, np.inf),
    ]:  # fmt: skip
        broken = getattr(model.arrays, name).copy()
        broken[place] = value if value < 1 << 31 else value - (1 << 32)
        with pytest.raises(ModelError, match="here: (context, )?(first|suffix|word|log_probs|backoffs)"):
            lm.LanguageModel(model.words, model.arrays._replace(**{name: broken}), "here")
    for name, length in [("context", -1), ("first", -1), ("backoff", -1), ("suffix", -1), ("word", -1)]:
        with pytest.raises(ModelError, match="here: "):
            cut = getattr(model.arrays, name)[:length]
            lm.LanguageModel(model.words, model.arrays._replace(**{name: cut}), "here")
    states = np.arange(-1, count + 3)
    assert sum(model.are_states(states[i : i + 1]) for i in range(len(states))) == contexts
    with pytest.raises(ModelError, match="cannot be read"):
        lm.read(tmp_path / "none")
    (tmp_path / "cut").write_bytes(b"\x10")
    with pytest.raises(ModelError, match="was it cut off"):
        lm.read(tmp_path / "cut")


def test_no_damaged_file_is_followed(tmp_path: Path) -> None:
    """A byte changed anywhere: refused, or a model whose every index is within bounds."""
    path = tmp_path / "lm.safetensors"
    ngram.read(write(tmp_path / "lm.arpa", random_arpa(2))).write(path)
    content, rng = path.read_bytes(), np.random.default_rng(0)
    for _ in range(80):
        damaged = bytearray(content)
        damaged[rng.integers(len(content))] ^= 1 << rng.integers(8)
        path.write_bytes(damaged)
        try:
            model = lm.read(path)
        except ModelError:
            continue
        state = model.start
        for word in rng.integers(0, len(model.words), 60):
            score, state = model.score(state, int(word))
            assert math.isfinite(score) and model.are_states(np.array([state]))


def test_a_list_of_words_is_not_unpacked_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensorfile, "_MOST_TEXT_BYTES", 1000)
    bomb = np.frombuffer(zlib.compress(bytes(1001)), np.uint8)
    with pytest.raises(ModelError, match="here: the list of words is cut off or above"):
        tensorfile.tensor_text(bomb, "here")
    with pytest.raises(ModelError, match="here: the list of words cannot be read"):
        tensorfile.tensor_text(np.zeros(9, np.uint8), "here")
    words = ["a", "naïve", "it's"]
    assert tensorfile.tensor_text(tensorfile.text_tensor(words), "here") == words


def test_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model and a text, mixed, cut and pruned."""
    write(tmp_path / "lm.arpa", random_arpa(3, 3))
    write(tmp_path / "more.txt", "a b c\nA, b!\nxylem d\n" * 3)
    write(tmp_path / "words.tsv", "a\tAH\nb\tB IY\nc\tS IY\n")
    line = ["", tmp_path / "lm.arpa", tmp_path / "more.txt", tmp_path / "lm.safetensors"]
    line += ["--weights", 3, 1, "--among", tmp_path / "words.tsv"]
    for extra in ([], ["--words", 2, "--prune", 1e-3]):
        monkeypatch.setattr(sys, "argv", list(map(str, [*line, *extra])))
        assert ngram.main() == 0
        model = lm.read(tmp_path / "lm.safetensors")
        assert set(model.words) <= {"<s>", "</s>", "<unk>", "a", "b", "c"}
        assert len(model.words) == (5 if extra else 6)
    monkeypatch.setattr(sys, "argv", [*map(str, line), "--words", "0"])
    with pytest.raises(ConfigError, match="no words are kept"):
        ngram.main()
    monkeypatch.setattr(sys, "argv", [*map(str, line), "--most-bytes", "9000", "--bits", "16"])
    with pytest.raises(ConfigError, match="counts codes of 8 bits"):
        ngram.main()


def test_text_alone_brings_its_words(tmp_path: Path) -> None:
    words, orders = ngram.read_grams(write(tmp_path / "text.txt", "b a b\nb c\n"))
    assert words == ["<s>", "</s>", "<unk>", "b", "a", "c"] and len(orders) == 3
    with pytest.raises(ModelError, match="has other words than the first source"):
        ngram.read_grams(write(tmp_path / "lm.arpa", ARPA), [*words, "d"])
    with pytest.raises(ModelError, match="the first source lacks <unk>"):
        ngram.read_grams(tmp_path / "text.txt", ["<s>", "</s>", "a"])
