from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
from oracles import load_torchaudio

from streamasr.data import manifest
from streamasr.data.recipes import librispeech
from streamasr.errors import ManifestError


def chapter(root: Path, speaker: int, book: int, lines: dict[str, str], seconds: float = 0.5) -> Path:
    """The official layout: SPEAKER/CHAPTER/SPEAKER-CHAPTER.trans.txt and one .flac a line."""
    folder = root / str(speaker) / str(book)
    folder.mkdir(parents=True)
    text = "".join(f"{name} {words}\n" for name, words in lines.items())
    (folder / f"{speaker}-{book}.trans.txt").write_text(text)
    for name in lines:
        soundfile.write(folder / f"{name}.flac", np.zeros(int(seconds * 16000)), 16000)
    return folder


def test_reads_the_official_layout_in_order(tmp_path: Path) -> None:
    root = tmp_path / "LibriSpeech" / "dev-clean"
    chapter(root, 251, 7, {"251-7-0001": "IT'S LATE", "251-7-0000": "HELLO WORLD"}, seconds=1.25)
    chapter(root, 84, 121123, {"84-121123-0000": "HAVE YOU"})
    utterances = librispeech.read(tmp_path / "LibriSpeech")
    assert [u.id for u in utterances] == ["84-121123-0000", "251-7-0000", "251-7-0001"]
    assert [u.text for u in utterances] == ["have you", "hello world", "it's late"]
    assert [u.duration for u in utterances] == [0.5, 1.25, 1.25]
    assert [u.speaker for u in utterances] == ["84", "251", "251"]
    manifest.write(tmp_path / "all.jsonl", utterances)
    assert manifest.read(tmp_path / "all.jsonl") == utterances


def test_agrees_with_torchaudio(tmp_path: Path) -> None:
    datasets = load_torchaudio().datasets
    root = tmp_path / "LibriSpeech" / "train-clean-100"
    for speaker, book in ((1034, 121119), (84, 7), (84, 121550), (9, 5)):
        name = f"{speaker}-{book}"
        chapter(
            root, speaker, book, {f"{name}-0011": "IT'S THREE", f"{name}-0002": f"ONE {'TWO ' * book}"[:40]}
        )
    dataset = datasets.LIBRISPEECH(tmp_path, url="train-clean-100")
    oracle = [dataset.get_metadata(i) for i in range(len(dataset))]
    assert len(oracle) == 8
    expected = {
        f"{speaker}-{book}-{number:04}": (str(tmp_path / "LibriSpeech" / path), text.lower(), str(speaker))
        for path, _, text, speaker, book, number in oracle
    }
    found = {u.id: (str(u.audio), u.text, u.speaker) for u in librispeech.read(root)}
    assert found == expected


def test_all_problems_are_listed_at_once(tmp_path: Path) -> None:
    folder = chapter(tmp_path, 1, 2, {"1-2-0000": "GOOD", "1-2-0001": "GONE", "1-2-0002": "BROKEN"})
    (folder / "1-2-0001.flac").unlink()
    (folder / "1-2-0002.flac").write_bytes(b"RIFF")
    soundfile.write(folder / "1-2-0009.flac", np.zeros(10), 16000)
    with (folder / "1-2.trans.txt").open("a") as file:
        file.write("1-2-0000 AGAIN\n1-2-0004\n9-9-0000 ELSEWHERE\n1-2-0005 ROOM 101\n")
    chapter(tmp_path, 3, 4, {"3-4-0000": "X"})
    (tmp_path / "3" / "4" / "3-4.trans.txt").unlink()
    with pytest.raises(ManifestError) as caught:
        librispeech.read(tmp_path)
    message = str(caught.value)
    assert "8 problems" in message
    for part in (
        "no audio file",
        "1-2-0002.flac is not a FLAC file",
        "1-2-0000 is transcribed twice",
        "line 5: no text after the id",
        '"9-9-0000" is not an id',
        "a-z and apostrophe: 101",
        "1-2-0009.flac: 1-2.trans.txt has no line for it",
        "4: audio, but no *.trans.txt",
    ):
        assert part in message, part


def test_the_same_chapter_in_two_subsets(tmp_path: Path) -> None:
    for subset in ("dev-clean", "copy"):
        chapter(tmp_path / subset, 1, 2, {"1-2-0000": "TWICE"})
    with pytest.raises(ManifestError, match="1-2-0000 is there twice"):
        librispeech.read(tmp_path)


@pytest.mark.parametrize("name", ["", "missing"])
def test_not_a_corpus(tmp_path: Path, name: str) -> None:
    with pytest.raises(ManifestError, match="give the unpacked LibriSpeech"):
        librispeech.read(tmp_path / name)
