"""All that a run learns from and is measured on: configuration -> batches, vocabulary, lexicon, n-gram."""

from __future__ import annotations

import itertools
import lzma
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError
from ..features import FeatureConfig
from ..vocabulary import Vocabulary
from . import cache, config, start, units
from .augment import Augmenter
from .batches import Batches, pieces, statistics
from .crf import Ngram
from .phones import PhoneLexicon, unknown_words

NOISE_FRAMES = 600  # longest piece of noise that is trained on as an utterance without words
CHARACTERS = Vocabulary(("<blank>", " ", *"abcdefghijklmnopqrstuvwxyz", "'"))


@dataclass(frozen=True)
class Dataset:
    features: FeatureConfig
    statistics: tuple[NDArray[np.float32], NDArray[np.float32]]  # of the frames: mean, deviation, [mel_bands]
    vocabulary: units.Units  # of the first head
    lexicon: PhoneLexicon | None  # of the phone head; None: there is none, or it learns nothing here
    ngram: Ngram | None  # CTC-CRF's denominator
    batches: Batches  # training
    dev: dict[str, Batches]  # validation, by the manifests' names


def read(
    settings: config.Config, base: Path, begun: start.Start | None, say: Callable[[str], None]
) -> Dataset:
    """Manifests, lexicon and texts that `settings` names, relative to `base` -> Dataset.

    `begun`: what the run begins from or goes on with; its statistics, sub-words and pronunciations stay.
    Raises ConfigError, ManifestError.
    """
    data = settings.data
    features = FeatureConfig()
    excluded = set(config.manifests(data.exclude, base))
    train = [p for p in config.manifests(data.train, base) if p not in excluded]
    dev = config.manifests(data.dev, base)
    folder = (base / data.cache).resolve()
    say(f"reading {len(train)} training, {len(dev)} validation manifests (cache: {folder})")
    utterances = cache.load(train, folder, features, settings.augment.room_probability > 0)
    measured = begun.statistics if begun else statistics(utterances)
    vocabulary: units.Units = CHARACTERS
    if data.subwords and begun and begun.subwords:
        vocabulary = units.SubwordUnits(begun.subwords)
    elif data.subwords:
        vocabulary = units.learn((u.text for u in utterances), data.subwords, CHARACTERS)
    noise = cache.load(config.manifests(data.noise, base), folder, features)
    utterances += pieces(noise, NOISE_FRAMES)  # what has no words in it is to be read as nothing
    reads_phones = settings.model.phone_layer and not settings.train.predict_steps
    lexicon = _open_lexicon(data, base, begun) if reads_phones else None
    if lexicon:
        for note in unknown_words(lexicon, (u.text for u in utterances)):
            say(f"note: {note}")
    ngram = None
    if lexicon and settings.train.denominator:
        others = _sample(config.manifests(data.text, base))
        if begun and not data.text:
            others = begun.sentences(settings.train.seed)
        texts = itertools.chain((u.text for u in utterances), others)
        sequences = (p for p in map(lexicon, texts) if p is not None)
        ngram = Ngram(sequences, len(lexicon.names), settings.train.denominator_order)
    shared = (data, settings.model, features, measured, vocabulary, lexicon)
    augmenter = Augmenter(settings.augment, features, [u.frames for u in noise])
    views = 2 if settings.train.consistency else 1
    return Dataset(
        features, measured, vocabulary, lexicon, ngram,
        Batches(utterances, *shared, augmenter, views),
        {path.stem: Batches(cache.load([path], folder, features), *shared) for path in dev},
    )  # fmt: skip


def _open_lexicon(data: config.DataConfig, base: Path, begun: start.Start | None) -> PhoneLexicon:
    paths = config.manifests(data.lexicon, base)
    if not paths and not (begun and begun.like):
        raise ConfigError("model.phone_layer needs data.lexicon, or --from a model that has a lexicon")
    if begun is None:
        return PhoneLexicon(paths)
    return PhoneLexicon([*paths, *begun.pronouncers], begun.phones, begun.phones_of)


def _sample(paths: list[Path]) -> Iterator[str]:
    """Every fourth line of texts (.txt or .xz): plenty for an n-gram of phones."""
    for path in paths:
        with lzma.open(path, "rt", encoding="utf-8") if path.suffix == ".xz" else path.open() as lines:
            yield from (line.strip() for line in itertools.islice(lines, 0, None, 4))
