"""Words and how they are spelt in the model's tokens, as one prefix tree of flat arrays.

    node 0            the root: between words
    first_child [nodes + 1]   nodes first_child[n] .. first_child[n + 1] - 1 are the children of n
    token [nodes]             the token that leads to n; ascending among the children of one node
    first_word [nodes + 1]    spellings first_word[n] .. first_word[n + 1] - 1 end at n
    word [spellings]          the words that are spelt so: homophones share a node

Nodes are numbered level by level, so children follow their parent and first_child ascends. A word may
have several spellings (pronunciations), a spelling any number of words. The separator (the space of a
character model) is in no spelling: the search knows that it ends words. A file has how many children and
words each node has in place of where they begin. Beside the arrays of the search it says of every spelling
whether it is its word's first, for those who may take only one (training).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .. import tensorfile
from ..errors import ConfigError, ModelError
from ..vocabulary import BLANK, Vocabulary
from .lm import LanguageModel

# Below this share of known words the language model was made for another spelling or language.
_LEAST_KNOWN = 0.5


class Arrays(NamedTuple):
    """The arrays above, in the order that the kernels take them in."""

    first_child: NDArray[np.int32]
    token: NDArray[np.int32]
    first_word: NDArray[np.int32]
    word: NDArray[np.int32]


class Lexicon:
    """`words` in a prefix tree over `tokens` tokens; shared by all streams, never changes."""

    def __init__(
        self,
        words: Sequence[str],
        tokens: int,
        arrays: Arrays,
        where: str = "lexicon",
        names: Sequence[str] | None = None,
        firsts: NDArray[np.bool_] | None = None,
    ) -> None:
        """`names` of the tokens, where they are known; `firsts` [spellings]: is it its word's first?

        Raises ModelError naming `where` when the arrays are no lexicon: kernels trust them.
        """
        self.words, self.tokens, self.arrays, self.where = tuple(words), tokens, arrays, where
        self.names = None if names is None else tuple(names)
        self.firsts = np.zeros(len(arrays.word), bool) if firsts is None else firsts
        _check(arrays, len(self.words), tokens, where)
        for array in arrays:
            array.flags.writeable = False

    def __len__(self) -> int:
        """Number of nodes."""
        return len(self.arrays.token)

    @cached_property
    def ids(self) -> dict[str, int]:
        """Word -> id."""
        return {word: number for number, word in enumerate(self.words)}

    def spellings(self, word: str) -> list[list[int]]:
        """A word of the lexicon -> its spellings, each some tokens, the first first where that is known."""
        order, first, nodes, parents = self._index
        number = self.ids[word]
        found = []
        places = sorted(order[first[number] : first[number + 1]], key=lambda place: not self.firsts[place])
        for node in nodes[places].tolist():
            tokens = []
            while node:
                tokens.append(int(self.arrays.token[node]))
                node = int(parents[node])
            found.append(tokens[::-1])
        return found

    def path(self, tokens: Iterable[int]) -> list[int]:
        """Tokens of a spelling, or of its beginning -> the nodes they lead to."""
        a, node, found = self.arrays, 0, []
        for token in tokens:
            begin, end = a.first_child[node : node + 2]
            node = int(begin + np.searchsorted(a.token[begin:end], token))
            found.append(node)
        return found

    @cached_property
    def _index(self) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any]]:
        """Spellings in the order of their words, where each word begins; their nodes; every node's parent."""
        a = self.arrays
        first = np.concatenate([[0], np.cumsum(np.bincount(a.word, minlength=len(self.words)))])
        nodes = np.repeat(np.arange(len(self)), np.diff(a.first_word))
        parents = np.repeat(np.arange(len(self)), np.diff(a.first_child))  # of nodes 1, 2, ...
        return np.argsort(a.word, kind="stable"), first, nodes, np.concatenate([[0], parents])

    def check(self, vocabulary: Vocabulary) -> None:
        """Raises ConfigError, naming the file, when it was not made for this vocabulary."""
        made, has = self.names or (), vocabulary.tokens
        if self.tokens != len(has):
            what = f"in {self.tokens} tokens, the model has {len(has)}"
        elif self.names is not None and made != has:
            one, other = next(pair for pair in zip(made, has, strict=True) if pair[0] != pair[1])
            what = f"in other tokens: {one!r} where the model has {other!r}"
        else:
            return
        raise ConfigError(f"{self.where}: is spelt {what}; make it for this model")

    def look_ahead(self, log_probs: NDArray[np.float64]) -> NDArray[np.float32]:
        """log p of every word [words] -> the best that can be reached from every node [nodes]."""
        a = self.arrays
        best = np.full(len(self), -np.inf)
        nodes = np.repeat(np.arange(len(self)), np.diff(a.first_word))
        np.maximum.at(best, nodes, log_probs[a.word])
        levels = [0, 1]  # first node of every level, and the end
        while levels[-1] < len(self):
            levels.append(int(a.first_child[levels[-1]]))
        parents = np.repeat(np.arange(len(self)), np.diff(a.first_child))  # of nodes 1, 2, ...
        for begin, end in zip(levels[-2:0:-1], levels[:1:-1], strict=True):
            np.maximum.at(best, parents[begin - 1 : end - 1], best[begin:end])
        return best.astype(np.float32)

    def write(self, path: str | os.PathLike[str], vocabulary: Vocabulary | None = None) -> None:
        """-> one safetensors file (docs/search.md, Files); with the tokens' names if told the vocabulary."""
        a = self.arrays
        tensors: dict[str, NDArray[Any]] = {"children": np.diff(a.first_child), "token": a.token}
        tensors["spellings"] = np.diff(a.first_word)
        tensors = {name: _narrowed(tensor) for name, tensor in tensors.items()}
        tensors |= {
            "word": a.word,
            "words": tensorfile.text_tensor(self.words),
            "tokens": np.array([self.tokens], np.int32),
        }
        if self.firsts.any():
            tensors["firsts"] = np.packbits(self.firsts)
        if vocabulary is not None:
            tensors["names"] = tensorfile.text_tensor(vocabulary.tokens)
        content = tensorfile.render(tensors)
        with open(f"{os.fspath(path)}.part", "wb") as file:  # never a half-written file under the real name
            file.write(content)
        os.replace(f"{os.fspath(path)}.part", path)


def read(path: str | os.PathLike[str]) -> Lexicon:
    """File from `Lexicon.write` -> the lexicon. Raises ModelError."""
    where = os.fspath(path)
    tensors = tensorfile.mapped(path)
    words = tensorfile.tensor_text(tensors.pop("words", None), where)
    tokens = tensors.pop("tokens", np.zeros(0))
    names = tensorfile.tensor_text(tensors.pop("names"), where) if "names" in tensors else None
    packed = tensors.pop("firsts", None)
    if tensors.keys() != {"children", "token", "spellings", "word"} or tokens.shape != (1,):
        raise ModelError(
            f"{where}: is not a lexicon of streamasr; `python -m streamasr.data.lexicon` makes one"
        )
    for name, tensor in tensors.items():
        if tensor.ndim != 1 or tensor.dtype.kind not in "ui":
            raise ModelError(f"{where}: {name} has {tensor.ndim} axes of {tensor.dtype}")
    arrays = Arrays(
        _starts(tensors["children"], 1, where),
        tensors["token"].astype(np.int32),
        _starts(tensors["spellings"], 0, where),
        tensors["word"].astype(np.int32),
    )
    firsts = None
    if packed is not None:
        if packed.dtype != np.uint8 or packed.shape != (-(-len(arrays.word) // 8),):
            raise ModelError(f"{where}: firsts is not one bit for each of {len(arrays.word)} spellings")
        firsts = np.unpackbits(packed, count=len(arrays.word)).astype(bool)
    return Lexicon(words, int(tokens[0]), arrays, where, names, firsts)


def _narrowed(numbers: NDArray[np.int32]) -> NDArray[Any]:
    """The same in as few bytes as hold them."""
    most = int(numbers.max(initial=0))
    return numbers.astype(np.uint8 if most < 1 << 8 else np.uint16 if most < 1 << 16 else np.int32)


def _starts(counts: NDArray[Any], begin: int, where: str) -> NDArray[np.int32]:
    """How many each has [n] -> where each begins, and the end [n + 1]."""
    starts = np.concatenate([[begin], begin + np.cumsum(counts, dtype=np.int64)])
    if starts.max() >= 1 << 31:
        raise ModelError(f"{where}: more than {1 << 31} nodes or spellings")
    return starts.astype(np.int32)


def spell(words: Iterable[str], vocabulary: Vocabulary) -> list[tuple[str, list[int]]]:
    """Words -> (word, its letters). Raises ConfigError naming word and letter that cannot be written."""
    letters = {t: i for i, t in enumerate(vocabulary.tokens) if i not in (BLANK, vocabulary.space)}
    spelt = []
    for word in words:
        unknown = [letter for letter in word if letter not in letters]
        if unknown:
            raise ConfigError(f"lexicon: {word!r} holds {unknown[0]!r}, which the model cannot write")
        if not word:
            raise ConfigError("lexicon: holds an empty word")
        spelt.append((word, [letters[letter] for letter in word]))
    return spelt


def build(spellings: Iterable[tuple[str, Sequence[int]]], tokens: int) -> Lexicon:
    """(word, its tokens), repeats allowed -> lexicon. Raises ConfigError naming the word.

    Of several spellings of a word the one that comes first here is its first.
    """
    pairs = list(dict.fromkeys((word, tuple(spelling)) for word, spelling in spellings))
    ids: dict[str, int] = {}
    for word, spelling in pairs:
        ids.setdefault(word, len(ids))
        if not spelling or not all(BLANK < token < tokens for token in spelling):
            raise ConfigError(f"lexicon: {word!r} is spelt {list(spelling)}: one or more of 1..{tokens - 1}")
    longest = max((len(spelling) for _, spelling in pairs), default=0)
    rows = np.zeros((len(pairs), longest), np.int32)
    for row, (_, spelling) in zip(rows, pairs, strict=True):
        row[: len(spelling)] = spelling
    order = np.lexsort(rows.T[::-1]) if pairs else np.zeros(0, np.int64)
    rows = rows[order]
    words = np.array([ids[word] for word, _ in pairs], np.int32)[order]
    lengths = (rows > 0).sum(1)
    # A row brings new nodes from where it differs from the row before.
    differs = np.ones((len(rows), longest), bool)
    differs[1:] = np.cumsum(rows[1:] != rows[:-1], 1) > 0
    new = differs & (rows > 0)
    node = np.zeros(len(rows), np.int64)  # of each row at the depth reached
    ends = np.zeros(len(rows), np.int64)
    parents, labels, total = [np.zeros(0, np.int64)], [np.zeros(1, np.int32)], 1
    for depth in range(longest):
        fresh = new[:, depth]
        parents.append(node[fresh])
        labels.append(rows[fresh, depth])
        node = total + np.cumsum(fresh) - 1
        total += int(fresh.sum())
        ends[lengths == depth + 1] = node[lengths == depth + 1]
    children = np.bincount(np.concatenate(parents), minlength=total)
    spelt = np.bincount(ends, minlength=total) if len(ends) else np.zeros(total, np.int64)
    by_node = np.argsort(ends, kind="stable")
    arrays = Arrays(
        np.concatenate([[1], 1 + np.cumsum(children)]).astype(np.int32),
        np.concatenate(labels),
        np.concatenate([[0], np.cumsum(spelt)]).astype(np.int32),
        words[by_node],
    )
    firsts = np.zeros(len(pairs), bool)
    firsts[np.unique([ids[word] for word, _ in pairs], return_index=True)[1]] = True
    return Lexicon(list(ids), tokens, arrays, firsts=firsts[order][by_node])


def language_model_ids(lexicon: Lexicon, model: LanguageModel) -> NDArray[np.int32]:
    """Id in the language model of every word of the lexicon [words]; -1: unknown, and there is no <unk>.

    Raises ConfigError with counts when they were not made for each other.
    """
    words = lexicon.words
    first = model.ids.get(words[0], 0) if words else 0
    if model.words[first : first + len(words)] == words:  # as the tools make them: a fifth of the time
        return np.arange(first, first + len(words), dtype=np.int32)
    ids = np.array([model.id_of(word) for word in words], np.int32)
    known = [word in model.ids for word in words]
    if sum(known) < _LEAST_KNOWN * len(known):
        strange = next(word for word, there in zip(words, known, strict=True) if not there)
        raise ConfigError(
            f"{lexicon.where}: the language model knows {sum(known)} of the lexicon's {len(known)} words "
            f"(not {strange!r}, for one; it has {model.words[-1]!r}): make both of the same words"
        )
    return ids


def _check(a: Arrays, words: int, tokens: int, where: str) -> None:
    nodes = len(a.token)
    for name, array in a._asdict().items():
        if array.ndim != 1 or array.dtype != np.int32:
            raise ModelError(f"{where}: {name} has {array.ndim} axes of {array.dtype}")
    if nodes < 1 or len(a.first_child) != nodes + 1 or len(a.first_word) != nodes + 1:
        raise ModelError(f"{where}: first_child, token and first_word are of different lengths")
    if a.first_child[0] != 1 or a.first_child[-1] != nodes or (np.diff(a.first_child) < 0).any():
        raise ModelError(f"{where}: first_child does not divide the nodes")
    if (a.first_child[:-1] <= np.arange(nodes)).any():
        raise ModelError(f"{where}: a node is its own descendant")
    if a.first_word[0] != 0 or a.first_word[-1] != len(a.word) or (np.diff(a.first_word) < 0).any():
        raise ModelError(f"{where}: first_word does not divide the spellings")
    if a.first_word[1] != 0 or nodes > 1 and (a.token[1:].min() < 1 or a.token.max() >= tokens):
        raise ModelError(f"{where}: a word without tokens, or a token outside 1..{tokens - 1}")
    if len(a.word) and (a.word.min() < 0 or a.word.max() >= words):
        raise ModelError(f"{where}: word holds an id outside the list of words")
