"""Hotwords: phrases whose score is raised while they are being said; an automaton over tokens.

    node 0   between words: a phrase may begin        node 1   within a word that is in no phrase
    other nodes: a phrase has been said as far as the tokens on the way there; the separator that ends
    its last word is part of it, so "art" is not found in "artist"

    potential [nodes]   credit for what has been said of a phrase: boost * tokens said / tokens of the
                        phrase, the most of all phrases that go on from here
    reward [nodes]      boost of the phrase that ends here

A hypothesis that goes from node s to node t gains potential[t] - potential[s] + reward[t]: over any path
that is the rewards of the phrases said, plus the credit of the one in progress, which is given back when
the phrase breaks off. Where no phrase goes on, `fail` leads to the longest later beginning, as in Aho and
Corasick (1975), but only at beginnings of words. The cost of a step
grows with the logarithm of the number of phrases.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError
from ..vocabulary import Vocabulary

DEFAULT_BOOST = 6.0  # chosen of 2, 4, 6 and 12 on dev: the most that cost other words nothing
MOST_BOOST = 100.0

Phrase = str | tuple[str, float]


class Arrays(NamedTuple):
    """Children of node n: first[n] .. first[n + 1] - 1, whose number is that of the node."""

    first: NDArray[np.int32]
    token: NDArray[np.int32]
    fail: NDArray[np.int32]
    potential: NDArray[np.float64]
    reward: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Hotwords:
    """Checked phrases, each with its boost, and their automaton."""

    phrases: tuple[tuple[str, float], ...]
    arrays: Arrays

    @property
    def words(self) -> list[str]:
        """All words of all phrases, each once."""
        return list(dict.fromkeys(word for phrase, _ in self.phrases for word in phrase.split(" ")))


def compile_phrases(phrases: Iterable[Phrase], vocabulary: Vocabulary) -> Hotwords:
    """Phrases, or (phrase, boost), of the vocabulary's letters -> Hotwords.

    Case and surplus spaces do not matter. Raises ConfigError naming the phrase that cannot be one.
    """
    if isinstance(phrases, str):
        raise ConfigError(f"hotwords: a list of phrases, not the text {phrases[:40]!r}")
    checked: dict[str, float] = {}
    for entry in phrases:
        phrase, boost = (entry, DEFAULT_BOOST) if isinstance(entry, str) else _pair(entry)
        text = " ".join(phrase.lower().split())
        if not text:
            raise ConfigError(f"hotwords: {phrase!r} holds no word; leave it out")
        unknown = sorted(set(text) - set(vocabulary.tokens) - {" "})
        if unknown:
            raise ConfigError(
                f"hotwords: {phrase!r} holds {', '.join(map(repr, unknown))}, which this model cannot write; "
                "write the phrase as it is spoken, in the model's letters"
            )
        checked[text] = max(boost, checked.get(text, 0.0))
    if checked and vocabulary.space < 0:
        raise ConfigError("hotwords need a model that writes spaces; this one does not")
    spelt = [(vocabulary.encode(f"{text} "), boost) for text, boost in checked.items()]
    return Hotwords(tuple(checked.items()), _automaton(spelt, vocabulary.space))


def _pair(entry: object) -> tuple[str, float]:
    if not isinstance(entry, Sequence) or len(entry) != 2 or not isinstance(entry[0], str):
        raise ConfigError(f"hotwords: a phrase or (phrase, boost), not {entry!r}")
    phrase, boost = entry
    if isinstance(boost, bool) or not isinstance(boost, int | float) or not 0 < boost <= MOST_BOOST:
        raise ConfigError(
            f"hotwords: the boost of {phrase!r} must be above 0, at most {MOST_BOOST:g}, not {boost!r}"
        )
    return phrase, float(boost)


def _automaton(phrases: list[tuple[list[int], float]], separator: int) -> Arrays:
    """(tokens with the separator at the end, boost) -> automaton, its nodes numbered level by level."""
    children: list[dict[int, int]] = [{}, {}]
    potential, reward, tokens = [0.0, 0.0], [0.0, 0.0], [0, 0]
    for spelling, boost in phrases:
        node = 0
        for said, token in enumerate(spelling, 1):
            if token not in children[node]:
                children[node][token] = len(children)
                children.append({})
                potential.append(0.0)
                reward.append(0.0)
                tokens.append(token)
            node = children[node][token]
            if said < len(spelling):
                potential[node] = max(potential[node], boost * said / len(spelling))
        reward[node] = boost
    # A longer phrase adds to what the shorter one at its beginning has earned, no more.
    earned = [0.0] * len(children)
    fail = [0, 0] + [1] * (len(children) - 2)
    order, waiting = [0, 1], deque([0])
    while waiting:
        node = waiting.popleft()
        for token, child in sorted(children[node].items()):
            order.append(child)
            waiting.append(child)
            if node == 0:
                fail[child] = 0 if token == separator else 1
            else:
                at = fail[node]
                while token not in children[at] and at > 1:
                    at = fail[at]
                fail[child] = children[at].get(token, 0 if token == separator else 1)
            whole = reward[child]
            reward[child] = max(0.0, whole - earned[node])
            earned[child] = max(earned[node], whole)
            # What ends here as the end of a longer phrase counts too, unless that counts itself.
            reward[child] = max(reward[child], reward[fail[child]] if whole == 0 else 0.0)
            if potential[child]:
                potential[child] = max(0.0, potential[child] - earned[child])
    number = {node: place for place, node in enumerate(order)}
    counts = [len(children[node]) for node in order]
    return Arrays(
        np.concatenate([[2], 2 + np.cumsum(counts)]).astype(np.int32),
        np.array([tokens[node] for node in order], np.int32),
        np.array([number[fail[node]] for node in order], np.int32),
        np.array([potential[node] for node in order]),
        np.array([reward[node] for node in order]),
    )
