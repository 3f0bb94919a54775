from __future__ import annotations

import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamasr.cli import render
from streamasr.events import Final, Transcript, Word


def segment(number: int, start: float, text: str, word_seconds: float = 0.3, gap: float = 0.1) -> Final:
    words = []
    time = start
    for word in text.split():
        words.append(Word(word, time, time + word_seconds, 0.9))
        time += word_seconds + gap
    return Final(number, text, tuple(words), start, words[-1].end, 0.9, "endpoint:silence")


def transcript(*segments: Final, duration: float | None = None) -> Transcript:
    return Transcript.of(list(segments), segments[-1].end + 2 if duration is None else duration)


TWO = transcript(segment(0, 0.5, "good morning"), segment(1, 3.25, "this is a test"))
EMPTY = Transcript("", (), (), 4.0)


def test_txt_is_a_line_per_segment() -> None:
    assert render.txt(TWO) == "good morning\nthis is a test\n"


def test_srt() -> None:
    assert render.srt(TWO) == (
        "1\n00:00:00,500 --> 00:00:01,500\ngood morning\n\n2\n00:00:03,250 --> 00:00:04,750\nthis is a test\n"
    )


def test_vtt() -> None:
    assert render.vtt(TWO) == (
        "WEBVTT\n\n00:00:00.500 --> 00:00:01.500\ngood morning\n\n"
        "00:00:03.250 --> 00:00:04.750\nthis is a test\n"
    )


def test_vtt_escapes_what_its_grammar_keeps_for_itself() -> None:
    assert "a &lt;b&gt; &amp; c" in render.vtt(transcript(segment(0, 0, "a <b> & c")))


def test_json_is_the_transcripts_own_form() -> None:
    assert json.loads(render.as_json(TWO)) == json.loads(json.dumps(TWO.to_dict()))


def test_nothing_said() -> None:
    assert render.txt(EMPTY) == ""
    assert render.srt(EMPTY) == ""
    assert render.vtt(EMPTY) == "WEBVTT\n"
    assert json.loads(render.as_json(EMPTY))["text"] == ""


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "00:00:00,000"), (59.9996, "00:01:00,000"), (3661.25, "01:01:01,250"), (360_000, "100:00:00,000")],
)
def test_clock(seconds: float, text: str) -> None:
    assert render.clock(seconds, ",") == text


def test_a_long_segment_becomes_cues_of_balanced_lines() -> None:
    text = "the old man went down to the river again and sat there until it was dark"
    cues = render.cues(transcript(segment(0, 0, f"{text} {text}")))
    assert [cue.lines for cue in cues] == [
        ("the old man went down to the river again", "and sat there until it was dark the"),
        ("old man went down to the river again", "and sat there until it was dark"),
    ]


def test_a_pause_begins_a_new_cue() -> None:
    words = (Word("before", 0.0, 0.4, 1.0), Word("after", 1.4, 1.8, 1.0))
    cues = render.cues(transcript(Final(0, "before after", words, 0.0, 1.8, 1.0, "finish")))
    assert [cue.lines for cue in cues] == [("before",), ("after",)]
    assert cues[0].end == 1.0


def test_words_without_length_are_still_shown() -> None:
    words = (Word("a", 1.0, 1.0, 1.0),)
    cues = render.cues(transcript(Final(0, "a", words, 1.0, 1.0, 1.0, "finish"), duration=1.0))
    assert cues[0].end > cues[0].start


spoken = st.lists(
    st.tuples(st.text("ab'", min_size=1, max_size=130), st.floats(0.05, 3.0), st.floats(0.0, 2.0)), min_size=1
)


@settings(deadline=None)  # a busy machine is no failure
@given(st.lists(spoken, max_size=4))
def test_every_word_is_shown_once_in_order_and_in_its_time(
    said: list[list[tuple[str, float, float]]],
) -> None:
    segments = []
    time = 0.0
    for number, words in enumerate(said):
        timed = []
        for text, length, gap in words:
            timed.append(Word(text, time, time + length, 0.5))
            time += length + gap
        text = " ".join(word.text for word in timed)
        segments.append(Final(number, text, tuple(timed), timed[0].start, timed[-1].end, 0.5, "finish"))
    whole = Transcript.of(segments, time)
    cues = render.cues(whole)
    assert "".join("".join(cue.lines) for cue in cues).replace(" ", "") == whole.text.replace(" ", "")
    for cue in cues:
        assert 1 <= len(cue.lines) <= render.LINES
        assert all(len(line) <= render.LINE for line in cue.lines)
        assert cue.start < cue.end
    for cue, following in zip(cues, cues[1:], strict=False):
        assert cue.end <= following.start
    times = re.findall(r"(\S+) --> (\S+)", render.srt(whole))
    assert len(times) == len(cues)
    assert all(start <= end for start, end in times)
