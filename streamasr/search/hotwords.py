"""Hotwords: phrases whose score is raised while they are being said; an automaton over what is said.

Its labels are the tokens, and beyond them the ends of the lexicon's words (number of tokens + word): so a
word that only sounds like a phrase's is none of it. Tokens of words that the lexicon lacks are negative, for
they are on their way in a tree of their own. Without a lexicon the separator ends words.

    node 0   between words: a phrase may begin        node 1   within a word that is in no phrase
    other nodes: a phrase has been said as far as the labels on the way there; the end of its last word is
    part of it, so "art" is not found in "artist"

    potential [nodes]   credit for what has been said of a phrase, the most of all phrases that go on from
                        here: boost * labels said / labels of the phrase, where a word ends
    reward [nodes]      boost of the phrase that ends here

A hypothesis that goes from node s to node t gains potential[t] - potential[s] + reward[t]: over any path
that is the rewards of the phrases said, plus the credit of the one in progress, which is given back when
the phrase breaks off.

Within a word the credit makes the look-ahead right: a hypothesis carries what the best word that can still
be reached promises (docs/search.md), and a hotword gets in advance what its own score, boost included,
promises beyond that. The beginning of a name that is also that of a common word gets nothing, so
that a thousand names do not fill the beam with their beginnings. Without a language model, and so without
look-ahead, each label gets the same.

Where no phrase goes on, `fail` leads to the longest later beginning, as in Aho and Corasick (1975), but
only at beginnings of words. The cost of a step grows with the logarithm of the number of phrases.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError
from .lexicon import Lexicon
from .pronounce import Speller

DEFAULT_BOOST = 6.0  # chosen of 2 to 12 on dev sets: the most that costs other words nothing (docs/search.md)
MOST_BOOST = 100.0
# The longest word in dictionaries has 45; the time to pronounce one grows with the square of its letters.
LONGEST_WORD = 64

Phrase = str | tuple[str, float]
# A word's labels, its end the last -> at each of the others, by how much the score that the search's
# look-ahead hopes for is above the word's own.
Surplus = Callable[[Sequence[int]], Sequence[float]]


class Arrays(NamedTuple):
    """Edges of node n: first[n] .. first[n + 1] - 1, their labels ascending, and where they lead."""

    first: NDArray[np.int32]
    label: NDArray[np.int32]
    target: NDArray[np.int32]
    fail: NDArray[np.int32]
    potential: NDArray[np.float64]
    reward: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Hotwords:
    """Checked phrases, each with its boost, and their automaton; `side`: words that the lexicon lacks."""

    phrases: tuple[tuple[str, float], ...]
    side: Lexicon
    arrays: Arrays


def compile_phrases(
    phrases: Iterable[Phrase],
    speller: Speller,
    surplus: Surplus | None = None,
) -> Hotwords:
    """Phrases, or (phrase, boost) -> Hotwords. Case and further spaces do not matter.

    `surplus`: None where the search has no look-ahead.
    Raises ConfigError naming the phrase that cannot be one.
    """
    checked = check(phrases)
    if checked and speller.separator < 0:
        raise ConfigError("hotwords need a model that writes where words end; this one does not")
    try:
        side = speller.side(word for text in checked for word in text.split(" "))
    except ConfigError as error:
        raise ConfigError(f"hotwords: {error}") from None
    spelt = [(labels, boost) for text, boost in checked.items() for labels in speller.phrase(text, side)]
    ends = {speller.separator, *(label for labels, _ in spelt for label in labels if label >= speller.tokens)}
    credited = [(labels, _credit(labels, boost, ends, surplus)) for labels, boost in spelt]
    return Hotwords(tuple(checked.items()), side, _automaton(credited, ends))


def _credit(labels: Sequence[int], boost: float, ends: set[int], surplus: Surplus | None) -> list[float]:
    """Labels of a phrase, those in `ends` ends of words -> credit once each has been said."""
    shares = [boost * said / len(labels) for said in range(1, len(labels) + 1)]
    if surplus is None:
        return shares
    credit: list[float] = []
    before = 0.0  # at the end of the word before
    for place, label in enumerate(labels):
        if label in ends:
            gain = shares[place] - before
            credit += [before + max(0.0, gain - more) for more in surplus(labels[len(credit) : place + 1])]
            credit.append(shares[place])
            before = shares[place]
    return credit


def check(phrases: Iterable[Phrase], what: str = "hotwords") -> dict[str, float]:
    """Phrases, or (phrase, boost) -> boost of each, in lower case. Raises ConfigError, told of `what`."""
    if isinstance(phrases, str | Mapping) or not isinstance(phrases, Iterable):
        raise ConfigError(f"{what}: a list of phrases, not {phrases!r:.60}")
    checked: dict[str, float] = {}
    for entry in phrases:
        phrase, boost = (entry, DEFAULT_BOOST) if isinstance(entry, str) else _pair(entry)
        text = " ".join(phrase.lower().split())
        if not text:
            raise ConfigError(f"{what}: {phrase!r} holds no word; leave it out")
        if long := next((word for word in text.split(" ") if len(word) > LONGEST_WORD), None):
            raise ConfigError(
                f"{what}: {long[:20]!r}... has {len(long)} letters, a word may have {LONGEST_WORD}; "
                "write a phrase with spaces between its words"
            )
        checked[text] = max(boost, checked.get(text, 0.0))
    return checked


def _pair(entry: object) -> tuple[str, float]:
    if not isinstance(entry, Sequence) or len(entry) != 2 or not isinstance(entry[0], str):
        raise ConfigError(f"hotwords: a phrase or (phrase, boost), not {entry!r}")
    phrase, boost = entry
    if isinstance(boost, bool) or not isinstance(boost, int | float) or not 0 < boost <= MOST_BOOST:
        raise ConfigError(
            f"hotwords: the boost of {phrase!r} must be above 0, at most {MOST_BOOST:g}, not {boost!r}"
        )
    return phrase, float(boost)


def _automaton(phrases: list[tuple[list[int], list[float]]], ends: set[int]) -> Arrays:
    """(labels, credit) -> automaton, its nodes numbered level by level; `ends`: labels that end words."""
    children: list[dict[int, int]] = [{}, {}]
    potential, reward = [0.0, 0.0], [0.0, 0.0]
    for labels, credit in phrases:
        node = 0
        for said, label in enumerate(labels, 1):
            if label not in children[node]:
                children[node][label] = len(children)
                children.append({})
                potential.append(0.0)
                reward.append(0.0)
            node = children[node][label]
            if said < len(labels):
                potential[node] = max(potential[node], credit[said - 1])
        reward[node] = max(reward[node], credit[-1])
    # A longer phrase adds to what the shorter one at its beginning has earned, no more.
    earned = [0.0] * len(children)
    fail = [0, 0] + [1] * (len(children) - 2)
    order, waiting = [0, 1], deque([0])
    while waiting:
        node = waiting.popleft()
        for label, child in sorted(children[node].items()):
            order.append(child)
            waiting.append(child)
            if node == 0:
                fail[child] = 0 if label in ends else 1
            else:
                at = fail[node]
                while label not in children[at] and at > 1:
                    at = fail[at]
                fail[child] = children[at].get(label, 0 if label in ends else 1)
            whole = reward[child]
            reward[child] = max(0.0, whole - earned[node])
            earned[child] = max(earned[node], whole)
            # What ends here as the end of a longer phrase counts too, unless that counts itself.
            reward[child] = max(reward[child], reward[fail[child]] if whole == 0 else 0.0)
            if potential[child]:
                potential[child] = max(0.0, potential[child] - earned[child])
    number = {node: place for place, node in enumerate(order)}
    edges = [sorted(children[node].items()) for node in order]
    return Arrays(
        np.concatenate([[0], np.cumsum([len(each) for each in edges])]).astype(np.int32),
        np.array([label for each in edges for label, _ in each], np.int32),
        np.array([number[child] for each in edges for _, child in each], np.int32),
        np.array([number[fail[node]] for node in order], np.int32),
        np.array([potential[node] for node in order]),
        np.array([reward[node] for node in order]),
    )
