"""LibriSpeech as unpacked from its archives -> utterances (Panayotov et al., ICASSP 2015; CC BY 4.0).

    <folder>/.../84/121123/84-121123.trans.txt      "84-121123-0001 HAVE YOU NOT MET THEM ANYWHERE"
    <folder>/.../84/121123/84-121123-0001.flac

`folder` is one subset (LibriSpeech/dev-clean) or any folder above. To make a manifest of it:

    manifest.write("dev-clean.jsonl", librispeech.read("LibriSpeech/dev-clean"))
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from ...errors import ManifestError
from ..manifest import Utterance, listing
from ..text import normalise_for_training

_ID = re.compile(r"([0-9]+)-([0-9]+)-[0-9]+")


def read(folder: str | os.PathLike[str]) -> list[Utterance]:
    """folder -> utterances, sorted by id (speaker, chapter, number); text normalised, durations in seconds.

    Raises: ManifestError listing everything that is wrong: transcripts without audio and the reverse,
    lines without an id or text, ids that are not of their chapter, audio that is not FLAC.
    """
    folder = Path(folder).resolve()
    if not folder.is_dir():
        raise ManifestError(f"{folder}: no such folder; give the unpacked LibriSpeech or one of its subsets")
    transcripts = sorted(folder.rglob("*.trans.txt"))
    if not transcripts:
        raise ManifestError(f"{folder}: no *.trans.txt below it; give the unpacked LibriSpeech or a subset")
    utterances: list[Utterance] = []
    problems: list[str] = []
    for transcript in transcripts:
        _read_chapter(transcript, utterances, problems)
    for chapter in sorted(
        {audio.parent for audio in folder.rglob("*.flac")} - {t.parent for t in transcripts}
    ):
        problems.append(f"{chapter}: audio, but no *.trans.txt")
    seen: set[str] = set()
    for utterance in utterances:
        if utterance.id in seen:
            problems.append(f"{utterance.audio}: {utterance.id} is there twice")
        seen.add(utterance.id)
    if problems:
        raise ManifestError(listing(folder, problems))
    return sorted(utterances, key=lambda utterance: [int(part) for part in utterance.id.split("-")])


def _read_chapter(transcript: Path, utterances: list[Utterance], problems: list[str]) -> None:
    """Adds the utterances of one chapter's folder, and what is wrong with it."""
    chapter = transcript.parent
    named: set[str] = set()
    try:
        lines = transcript.read_text("utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        problems.append(f"{transcript}: cannot be read: {error}")
        return
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        name, _, text = line.strip().partition(" ")
        place = f"{transcript}, line {number}"
        if name in named:
            problems.append(f"{place}: {name} is transcribed twice")
            continue
        named.add(name)
        match = _ID.fullmatch(name)
        if match is None or f"{match[1]}-{match[2]}.trans.txt" != transcript.name:
            problems.append(f'{place}: "{name[:40]}" is not an id SPEAKER-CHAPTER-NUMBER of this chapter')
            continue
        try:
            normal = normalise_for_training(text)
            if not normal:
                raise ManifestError("no text after the id")
            audio = chapter / f"{name}.flac"
            utterances.append(Utterance(name, audio, _flac_seconds(audio), normal, match[1]))
        except ManifestError as error:
            problems.append(f"{place}: {error}")
    for audio in sorted(chapter.glob("*.flac")):
        if audio.stem not in named:
            problems.append(f"{audio}: {transcript.name} has no line for it")


def _flac_seconds(path: Path) -> float:
    """Length of a FLAC file from its header (STREAMINFO block), without decoding it.

    Raises: ManifestError if the file is missing or not FLAC, or its header does not say its length.
    """
    try:
        with path.open("rb") as file:
            head = file.read(26)
    except OSError as error:
        raise ManifestError(f"no audio file {path}: {error.strerror or error}") from error
    # Bytes: 4 mark, 4 block header, 10 sizes; then bits: 20 rate, 3 channels, 5 depth, 36 samples.
    if len(head) < 26 or head[:4] != b"fLaC" or head[4] & 0x7F:
        raise ManifestError(f"{path} is not a FLAC file; unpack the archive again")
    fields = int.from_bytes(head[18:26], "big")
    rate, samples = fields >> 44, fields & ((1 << 36) - 1)
    if not rate or not samples:
        raise ManifestError(f"{path} holds no samples; unpack the archive again")
    return samples / rate
