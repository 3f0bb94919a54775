from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamasr.data.text import NORMALISER, normalise, normalise_for_training
from streamasr.errors import ManifestError


@pytest.mark.parametrize(
    ("written", "normal"),
    [
        ("Hello, World!", "hello world"),
        ("  two \t spaces\n", "two spaces"),
        ("don’t DON‘T don't don`t", "don't don't don't don't"),
        ("naïve café Ångström façade", "naive cafe angstrom facade"),
        ("straße œuvre smørrebrød", "strasse oeuvre smorrebrod"),
        ("well-known—yes – no/maybe… and...more", "well known yes no maybe and more"),
        ("the U.S. (really)", "the us really"),
        ("'tis the dogs' 'bone'", "'tis the dogs' bone"),
        ("``quoted'' ' \"words\"", "quoted words"),
        ("it cost 1,000", "it cost 1000"),
        ("ﬁve", "five"),
        ("co\u00adoperate", "cooperate"),
        ("", ""),
        ("?!", ""),
    ],
)
def test_examples(written: str, normal: str) -> None:
    assert normalise(written) == normal


@settings(deadline=None)  # a busy machine is no failure
@given(st.text())
def test_normal_text_stays_as_it_is(text: str) -> None:
    assert normalise(normalise(text)) == normalise(text)


@settings(deadline=None)  # a busy machine is no failure
@given(st.text())
def test_training_text_is_in_the_alphabet_or_refused(text: str) -> None:
    try:
        normal = normalise_for_training(text)
    except ManifestError:
        return
    assert re.fullmatch(r"([a-z']+( [a-z']+)*)?", normal)
    assert normal == normalise(text)


@settings(deadline=None)  # a busy machine is no failure
@given(st.lists(st.text("abcxyz", min_size=1)))
def test_spoken_words_pass_through(words: list[str]) -> None:
    assert normalise_for_training(" ".join(words)) == " ".join(words)


@pytest.mark.parametrize(
    ("text", "named"),
    [("in 1984 or 42", "1984, 42"), ("R&D", "&"), ("5€", "€, 5"), ("да", "д, а"), ("½", "12")],
)
def test_training_names_what_cannot_be_said(text: str, named: str) -> None:
    with pytest.raises(ManifestError, match="write as spoken words") as caught:
        normalise_for_training(text)
    assert str(caught.value).endswith(": " + named)


def test_scoring_keeps_what_training_refuses() -> None:
    assert normalise("Room 101, да") == "room 101 да"


def test_the_rules_have_a_name() -> None:
    assert NORMALISER == "streamasr-en-1"
