"""corpora -> log-mel frames of every utterance, computed once and kept on disk as float16.

A corpus is a manifest, or a folder in LibriSpeech's layout. One pair of files for each:
`<stem>-<key>.npy` (frames of all utterances end to end [T, 80], not normalised) and `<stem>-<key>.json`
(first frame and text of each). The key is a hash of the manifest's text (of the folder's utterances) and
of the feature settings, so a changed corpus is cached anew. What it sounds like in rooms (rooms.py, another
one for every utterance) is cached in the same way.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from .. import audio
from ..data import manifest
from ..data.recipes import librispeech
from ..data.text import NORMALISER, normalise_for_training
from ..errors import AudioError, ManifestError
from ..features import FeatureConfig, LogMel
from ..resample import Resampler
from .rooms import in_a_room


@dataclass(frozen=True)
class CachedUtterance:
    id: str
    text: str  # normalised
    corpus: str  # stem of its manifest
    frames: NDArray[np.float16]  # [T, mel_bands], a view of the memory-mapped cache
    frames_in_room: NDArray[np.float16] | None = None  # the same length


def log_mel(path: Path, config: FeatureConfig, room: int | None = None) -> NDArray[np.float32]:
    """Recording -> frames [T, 80] covering all of it, the last window filled up with zeros.

    Recorded in the room of this number, if one is given.
    """
    samples, rate = audio.read(path)
    resampler = Resampler(rate)
    state = resampler.start()
    samples = np.concatenate([resampler.advance(state, samples), resampler.finish(state)])
    if room is not None:
        samples = in_a_room(samples, np.random.default_rng(room), config.sample_rate)
    padding = config.samples_of(config.frames_covering(len(samples))) - len(samples)
    stage = LogMel(config)
    return stage.advance(stage.start(), np.concatenate([samples, np.zeros(max(padding, 0), np.float32)]))


def load(
    paths: Iterable[Path], folder: Path, config: FeatureConfig, in_rooms: bool = False
) -> list[CachedUtterance]:
    """All utterances of the manifests, computing what the cache in `folder` lacks.

    With `in_rooms` they have `frames_in_room` as well.
    Raises ManifestError listing every problem of every manifest, unreadable recordings included.
    """
    utterances: list[CachedUtterance] = []
    problems: list[str] = []
    for path in paths:
        try:
            plain = _load_manifest(path, folder, config)
            if in_rooms:
                heard = _load_manifest(path, folder, config, "rooms 1")
                plain = [replace(u, frames_in_room=v.frames) for u, v in zip(plain, heard, strict=True)]
            utterances += plain
        except ManifestError as error:
            problems.append(str(error))
    if problems:
        raise ManifestError("\n".join(problems))
    return utterances


def _load_manifest(path: Path, folder: Path, config: FeatureConfig, rooms: str = "") -> list[CachedUtterance]:
    """`rooms`: name of what was drawn for them, or nothing, for the recordings as they are."""
    if path.is_dir():
        listed = librispeech.read(path)
        content = repr([(u.id, u.duration, u.text) for u in listed]).encode()
    else:
        listed, content = manifest.read(path), path.read_bytes()
    settings = json.dumps(asdict(config), sort_keys=True) + NORMALISER + rooms
    key = hashlib.sha256(content + settings.encode()).hexdigest()[:12]
    frames_file, index_file = (folder / f"{path.stem}-{key}.{kind}" for kind in ("npy", "json"))
    if not index_file.exists():
        folder.mkdir(parents=True, exist_ok=True)
        # Another run may be computing the same: the later one replaces like by like.
        with TemporaryDirectory(prefix="part-", dir=folder) as mine:
            parts = (Path(mine) / frames_file.name, Path(mine) / index_file.name)
            _compute(path, listed, config, *parts, bool(rooms))
            parts[0].replace(frames_file)
            parts[1].replace(index_file)  # appears last and whole: it vouches for the frames
    index = json.loads(index_file.read_text())
    frames = np.load(frames_file, mmap_mode="r")
    edges = [*index["first_frame"], len(frames)]
    return [
        CachedUtterance(utterance.id, text, path.stem, frames[first:last])
        for utterance, text, first, last in zip(listed, index["text"], edges[:-1], edges[1:], strict=True)
    ]


def _compute(
    path: Path,
    listed: list[manifest.Utterance],
    config: FeatureConfig,
    frames_file: Path,
    index_file: Path,
    in_rooms: bool,
) -> None:
    firsts, frames = [], 0
    problems: list[str] = []
    with frames_file.open("wb") as file, ProcessPoolExecutor(os.cpu_count(), get_context("spawn")) as pool:
        _write_header(file, 0, config)
        rooms = range(len(listed)) if in_rooms else [None] * len(listed)
        results = pool.map(_one, [u.audio for u in listed], [config] * len(listed), rooms, chunksize=8)
        for utterance, result in zip(listed, tqdm(results, path.stem, len(listed), unit="utt"), strict=True):
            if isinstance(result, str):
                problems.append(f"{utterance.id}: {result}")
            else:
                file.write(result.tobytes())  # 360 hours would not fit into the memory of most machines
                firsts.append(frames)
                frames += len(result)
        file.seek(0)
        _write_header(file, frames, config)
    texts = []
    for utterance in listed:
        try:
            texts.append(normalise_for_training(utterance.text))
        except ManifestError as error:
            problems.append(f"{utterance.id}: {error}")
    if problems:
        raise ManifestError(manifest.listing(path, problems))
    index_file.write_text(json.dumps({"first_frame": firsts, "text": texts}))


def _write_header(file: BinaryIO, frames: int, config: FeatureConfig) -> None:
    """Of an .npy file; as long for any number of frames, so that it can be written again."""
    shape = {"descr": "<f2", "fortran_order": False, "shape": (frames, config.mel_bands)}
    np.lib.format.write_array_header_1_0(file, shape)


def _one(path: Path, config: FeatureConfig, room: int | None) -> NDArray[np.float16] | str:
    try:
        return log_mel(path, config, room).astype(np.float16)
    except AudioError as error:
        return str(error)
