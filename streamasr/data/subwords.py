"""Counted words -> inventory of sub-words, by byte-pair encoding (`search/subwords.py` says what one is).

Begin with the single letters; again and again add, as a sub-word, the text of those two neighbours
that stand side by side most often, until there are enough. Neighbours are told by the text they make,
not by where they part, so the list of texts is the whole inventory.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Mapping

from ..errors import ConfigError
from ..search.subwords import Subwords

# Words seen less often are left to the letters: they cost time and decide nothing.
_LEAST_COUNT = 3


def learn(counts: Mapping[str, int], size: int) -> Subwords:
    """Words and how often each occurs -> inventory of at most `size` sub-words; ties by alphabet.

    Raises ConfigError when the letters alone are more.
    """
    letters = sorted(set().union(*counts))
    pieces = ["\n", *letters, *(f"{letter} " for letter in letters)]
    if size < len(pieces):
        raise ConfigError(f"{size} sub-words are fewer than the {len(pieces)} that spell every word")
    words = [([*word[:-1], f"{word[-1]} "], n) for word, n in counts.items() if n >= _LEAST_COUNT]
    pairs: Counter[str] = Counter()  # how often neighbours make this text
    places: dict[str, set[int]] = {}  # words in which they do, or once did
    for number, (parts, count) in enumerate(words):
        for text in _neighbours(parts):
            pairs[text] += count
            places.setdefault(text, set()).add(number)
    # Counts may have fallen since they were put on the heap: they are looked up when they come to the top.
    heap = [(-n, text) for text, n in pairs.items()]
    heapq.heapify(heap)
    while len(pieces) < size and heap:
        n, joined = heapq.heappop(heap)
        if -n != pairs[joined]:
            if pairs[joined]:
                heapq.heappush(heap, (-pairs[joined], joined))
            continue
        pieces.append(joined)
        risen: set[str] = set()
        for number in places.pop(joined):
            parts, count = words[number]
            for text in _neighbours(parts):
                pairs[text] -= count
            _join(parts, joined)
            for text in _neighbours(parts):
                pairs[text] += count
                places.setdefault(text, set()).add(number)
                risen.add(text)
        for text in risen:
            heapq.heappush(heap, (-pairs[text], text))
        pairs[joined] = 0
    return Subwords(pieces)


def _neighbours(parts: list[str]) -> list[str]:
    return [a + b for a, b in zip(parts, parts[1:], strict=False)]


def _join(parts: list[str], joined: str) -> None:
    """Neighbours that make this text become one part, from left to right."""
    i = 0
    while i + 1 < len(parts):
        if parts[i] + parts[i + 1] == joined:
            parts[i : i + 2] = [joined]
        i += 1
