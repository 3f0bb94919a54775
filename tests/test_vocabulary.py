import doctest

import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import CHARACTERS, thorough

from streamasr import vocabulary
from streamasr.errors import ConfigError
from streamasr.vocabulary import Vocabulary


def test_examples() -> None:
    assert doctest.testmod(vocabulary).failed == 0


@thorough
@given(st.text(alphabet=" abcxyz'"))
def test_round_trip(text: str) -> None:
    assert CHARACTERS.decode(CHARACTERS.encode(text)) == " ".join(text.split())


def test_unknown_characters_are_named() -> None:
    with pytest.raises(ConfigError, match=r"\['\?', 'Ü'\]"):
        CHARACTERS.encode("so Ü?")
    with pytest.raises(ConfigError, match="<"):
        CHARACTERS.encode("<blank>")


def test_space() -> None:
    assert CHARACTERS.space == 1 and len(CHARACTERS) == 29
    assert Vocabulary(("<blank>", "a")).space == -1


@pytest.mark.parametrize(
    ("tokens", "kind", "message"),
    [
        (("a", "b"), "characters", "token 0"),
        (("<blank>",), "characters", "token 0"),
        (("<blank>", "ab"), "characters", "not one character"),
        (("<blank>", "a", "a"), "characters", "twice"),
        (("<blank>", "a"), "syllables", "syllables"),
        (("<blank>", "A B"), "phones", "not names of phones"),
    ],
)
def test_refused(tokens: tuple[str, ...], kind: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Vocabulary(tokens, kind)
