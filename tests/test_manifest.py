from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from streamasr.data import manifest
from streamasr.data.manifest import Utterance
from streamasr.errors import ManifestError


def line(**values: object) -> str:
    entry = {"id": "a", "audio": "a.wav", "duration": 1.0, "text": "hello", "speaker": "s"} | values
    return json.dumps({key: value for key, value in entry.items() if value is not ...})


def saved(folder: Path, *lines: str) -> Path:
    (folder / "a.wav").touch()
    path = folder / "list.jsonl"
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def test_reads_utterances(tmp_path: Path) -> None:
    path = saved(tmp_path, line(), "", line(id="b", duration=..., speaker=None, text="", other=[1]))
    assert manifest.read(path) == [
        Utterance("a", tmp_path / "a.wav", 1.0, "hello", "s"),
        Utterance("b", tmp_path / "a.wav", None, "", None),
    ]


def test_audio_is_found_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved(tmp_path, line())
    monkeypatch.chdir(tmp_path.parent)
    [utterance] = manifest.read(Path(tmp_path.name) / "list.jsonl")
    assert utterance.audio.is_absolute()
    assert utterance.audio == tmp_path / "a.wav"


def test_byte_order_mark_and_windows_line_ends(tmp_path: Path) -> None:
    path = saved(tmp_path)
    path.write_bytes(b"\xef\xbb\xbf" + line().encode() + b"\r\n" + line(id="b").encode() + b"\r\n")
    assert [u.id for u in manifest.read(path)] == ["a", "b"]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ('{"id": "x"', "line 1: not JSON"),
        ("[1, 2]", "line 1: not a JSON object but a list"),
        ("[" * 100_000, "line 1: not JSON"),
        (line(id=...), 'line 1: "id" is missing'),
        (line(id=" "), 'line 1: "id" must be a non-empty string, not an empty string'),
        (line(id=7), 'line 1: "id" must be a non-empty string, not 7'),
        (line(audio=None), 'line 1 (a): "audio" must be a non-empty string, not null'),
        (line(audio="b.wav"), "line 1 (a): no audio file"),
        (line(audio="."), "line 1 (a): no audio file"),
        (line(audio="x" * 5000), "line 1 (a): no audio file"),
        (line(audio="a\0.wav"), "line 1 (a): no audio file"),
        (line(text=...), 'line 1 (a): "text" is missing'),
        (line(text=["hello"]), '"text" must be a string (empty if nothing is said), not a list'),
        (line(text="\ud800"), '"text" must be a string'),
        (line(speaker=3), '"speaker" must be a string or left out, not 3'),
        (line(duration=0), '"duration" must be a positive number of seconds or left out, not 0'),
        (line(duration=-1.5), "not -1.5"),
        (line(duration=float("nan")), "not nan"),
        (line(duration=10**400), "not 1000"),
        (line(duration=True), "not true"),
        (line(duration="1.0"), "not '1.0'"),
    ],
)
def test_each_problem_is_named(tmp_path: Path, wrong: str, message: str) -> None:
    path = saved(tmp_path, wrong, line(id="good"))
    with pytest.raises(ManifestError) as caught:
        manifest.read(path)
    assert str(caught.value).startswith(f"{path}: 1 problem\n")
    assert message in str(caught.value)
    utterances, problems = manifest.scan(path)
    assert [u.id for u in utterances] == ["good"]
    assert message in str(problems[0])
    assert len(problems) == 1


def test_not_utf8(tmp_path: Path) -> None:
    path = saved(tmp_path)
    path.write_bytes(line(text="x").replace("x", "é").encode("latin-1"))
    with pytest.raises(ManifestError, match=r"line 1: not UTF-8 at byte \d+; save the manifest as UTF-8"):
        manifest.read(path)


def test_all_problems_at_once_and_the_first_of_two_is_good(tmp_path: Path) -> None:
    path = saved(tmp_path, line(), line(text="again"), "{", line(id="b", text=1, duration=0))
    utterances, problems = manifest.scan(path)
    assert [u.text for u in utterances] == ["hello"]
    assert [p.line for p in problems] == [2, 3, 4, 4]
    assert [p.id for p in problems] == ["a", "line 3", "b", "b"]
    assert "that of line 1 too" in problems[0].message


def test_an_id_that_looks_like_a_line(tmp_path: Path) -> None:
    utterances, problems = manifest.scan(saved(tmp_path, line(id="line 2"), "{", line(id="line 4"), "{"))
    assert [u.id for u in utterances] == ["line 2", "line 4"]
    assert all("not JSON" in p.message for p in problems)


def test_long_listings_are_cut_and_counted(tmp_path: Path) -> None:
    with pytest.raises(ManifestError) as caught:
        manifest.read(saved(tmp_path, *["{"] * 70))
    lines = str(caught.value).split("\n")
    assert "70 problems" in lines[0]
    assert len(lines) == 52
    assert lines[-1] == "  ... and 20 more"


def test_no_such_manifest(tmp_path: Path) -> None:
    for path in (tmp_path / "no.jsonl", tmp_path):
        with pytest.raises(ManifestError, match="cannot read the manifest"):
            manifest.scan(path)


names = st.text(st.characters(codec="utf-8"), min_size=1).filter(str.strip)
entries = st.tuples(
    st.none() | st.floats(min_value=0, exclude_min=True, allow_infinity=False),
    st.text(st.characters(codec="utf-8")),
    st.none() | st.text(st.characters(codec="utf-8")),
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50, deadline=None)
@given(st.dictionaries(names, entries))
def test_what_is_written_is_read(
    tmp_path: Path, listed: dict[str, tuple[float | None, str, str | None]]
) -> None:
    audio = tmp_path / "sound" / "a.wav"
    audio.parent.mkdir(exist_ok=True)
    audio.touch()
    folder = tmp_path / "lists"
    folder.mkdir(exist_ok=True)
    utterances = [Utterance(name, audio, *entry) for name, entry in listed.items()]
    manifest.write(folder / "list.jsonl", utterances)
    read = manifest.read(folder / "list.jsonl")
    assert [(u.id, u.duration, u.text, u.speaker) for u in read] == [
        (u.id, u.duration, u.text, u.speaker) for u in utterances
    ]
    assert all(u.audio.samefile(audio) for u in read)
    assert '"../sound/a.wav"' in (folder / "list.jsonl").read_text() or not listed
    assert [p.name for p in folder.iterdir()] == ["list.jsonl"]


def test_write_refuses_equal_ids_and_says_where_it_cannot(tmp_path: Path) -> None:
    utterance = Utterance("a", tmp_path / "a.wav", None, "", None)
    with pytest.raises(ManifestError, match='two utterances have the id "a"'):
        manifest.write(tmp_path / "list.jsonl", [utterance, utterance])
    with pytest.raises(ManifestError, match="cannot write the manifest"):
        manifest.write(tmp_path / "no" / "list.jsonl", [utterance])
    assert not list(tmp_path.iterdir())


def test_a_moved_folder_keeps_working(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    saved(tmp_path / "old", line())
    manifest.write(tmp_path / "old" / "copy.jsonl", manifest.read(tmp_path / "old" / "list.jsonl"))
    (tmp_path / "old").rename(tmp_path / "new")
    assert manifest.read(tmp_path / "new" / "copy.jsonl")[0].audio == tmp_path / "new" / "a.wav"
