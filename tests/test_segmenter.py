from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamasr.errors import ConfigError
from streamasr.search import Hypothesis, TimedWord
from streamasr.segmenter import DEFAULT_RULES, EndpointRule, Segmenter, SegmenterState

STEP = 1600  # samples: a tenth of a second
SO, IT = TimedWord("so", 2, 4, 0.5), TimedWord("it", 6, 6, 0.25)


def segmenter(*rules: EndpointRule) -> Segmenter:
    return Segmenter(rules, STEP, 16_000)


def ends(
    stage: Segmenter, speech: str, between: str = "", state: SegmenterState | None = None
) -> list[tuple[int, str]]:
    """Steps ("x": speech, ".": silence, "-": loud silence) -> where a segment ends, and why.

    `between`: "w" within a word.
    """
    state = state or stage.start()
    found = []
    for step, letter in enumerate(speech):
        within = step < len(between) and between[step] == "w"
        level = -20.0 if letter == "." else 20.0
        reason = stage.advance(state, letter == "x", level, lambda within=within: not within)
        if reason:
            stage.final(state, Hypothesis((SO,), 1), 10**9, reason)
            found.append((step, reason))
    return found


def test_silence_after_speech() -> None:
    stage = segmenter(EndpointRule(silence_seconds=0.3))
    assert ends(stage, "........") == []
    assert ends(stage, "..x..x...") == [(8, "endpoint:silence")]
    assert ends(stage, "x........") == [(3, "endpoint:silence")]
    assert ends(stage, "x...x......") == [(3, "endpoint:silence"), (7, "endpoint:silence")]


def test_silence_ends_a_segment_though_the_last_word_was_not_closed() -> None:
    assert ends(segmenter(EndpointRule(silence_seconds=0.3)), "x...", "wwww") == [(3, "endpoint:silence")]


def test_a_loud_pause_is_none_until_it_is_twice_as_long() -> None:
    stage = segmenter(EndpointRule(silence_seconds=0.4))
    assert ends(stage, ".x--x....") == [(8, "endpoint:silence")]
    assert ends(stage, ".x.--...") == [(7, "endpoint:silence")]
    assert ends(stage, ".x--..x-....") == [(11, "endpoint:silence")]
    assert ends(stage, ".x" + "-" * 9) == [(9, "endpoint:silence")]
    # Nothing is known of the background before the first quiet step.
    assert ends(stage, "x----") == [(4, "endpoint:silence")]


def test_the_background_follows() -> None:
    """A new noise is loud until it has lasted: 20 dB a second, what is above it by 10 dB is loud."""
    stage, state = segmenter(EndpointRule(silence_seconds=9.0)), segmenter().start()
    for level in (-100.0, -30.0, 25.0):
        stage.advance(state, False, level, lambda: True)
    assert state.background == -13.0 and state.loud == 1  # never below a quiet room; 2 dB up in a step
    for _ in range(30):
        stage.advance(state, False, 25.0, lambda: True)
    assert state.background == 25.0 and state.loud == 14
    stage.advance(state, False, 3.0, lambda: True)
    assert state.background == 3.0
    stage.advance(state, True, 3.0, lambda: True)
    assert state.loud == 0


def test_length_counts_from_the_first_speech() -> None:
    stage = segmenter(EndpointRule(length_seconds=0.5))
    assert ends(stage, "." * 20) == []
    assert ends(stage, "." * 20 + "xxxxx") == [(24, "endpoint:length")]
    assert ends(stage, "x" * 12) == [(4, "endpoint:length"), (9, "endpoint:length")]


def test_length_waits_for_the_end_of_a_word_but_not_for_ever() -> None:
    stage = segmenter(EndpointRule(length_seconds=0.5))
    assert ends(stage, "x" * 8, "wwwwwww") == [(7, "endpoint:length")]
    assert ends(stage, "x" * 40, "w" * 40) == [(24, "endpoint:length")]  # two seconds later


def test_rule_without_speech_counts_from_the_end_before() -> None:
    stage = segmenter(EndpointRule(needs_speech=False, length_seconds=0.5))
    assert ends(stage, "." * 12) == [(4, "endpoint:length"), (9, "endpoint:length")]
    stage = segmenter(EndpointRule(needs_speech=False, silence_seconds=0.5))
    assert ends(stage, "." * 6 + "x" + "." * 6) == [(4, "endpoint:silence"), (11, "endpoint:silence")]


def test_default_rules() -> None:
    stage = segmenter(*DEFAULT_RULES)
    assert ends(stage, "x" + "." * 9 + "x" + "." * 10) == [(20, "endpoint:silence")]
    assert ends(stage, "x" * 200) == [(199, "endpoint:length")]


def test_no_rules() -> None:
    assert ends(segmenter(), "x" * 500 + "." * 500) == []


def test_no_empty_final() -> None:
    stage, state = segmenter(), segmenter().start()
    assert stage.final(state, Hypothesis((), 0), 16_000, "finish") is None
    assert state.segment == 0


def test_final() -> None:
    stage, state = segmenter(), segmenter().start()
    state.step = 10
    final = stage.final(state, Hypothesis((SO, IT), 2), 16_000, "endpoint:silence")
    assert final is not None
    assert (final.segment, final.text, final.reason) == (0, "so it", "endpoint:silence")
    assert [(w.start, w.end) for w in final.words] == [(0.2, 0.5), (0.6, 0.7)]
    assert (final.start, final.end) == (0.2, 0.7)
    assert final.confidence == pytest.approx((0.5 * 0.25) ** 0.5)
    assert state.segment == 1


def test_no_time_beyond_the_end_of_the_sound() -> None:
    stage, state = segmenter(), segmenter().start()
    final = stage.final(state, Hypothesis((SO, IT), 2), 10_000, "finish")
    assert final is not None
    assert [(w.start, w.end) for w in final.words] == [(0.2, 0.5), (0.6, 0.625)]


def test_partial_only_when_the_text_changed() -> None:
    stage, state = segmenter(), segmenter().start()
    first = stage.partial(state, Hypothesis((SO,), 0), 16_000, 1.0)
    assert first is not None and (first.stable, first.volatile, first.time) == ("", "so", 1.0)
    assert stage.partial(state, Hypothesis((SO,), 0), 17_600, 1.1) is None
    second = stage.partial(state, Hypothesis((SO, IT), 1), 19_200, 1.2)
    assert second is not None and (second.stable, second.volatile, second.segment) == ("so", "it", 0)
    stage.final(state, Hypothesis((SO, IT), 2), 19_200, "endpoint:silence")
    assert stage.partial(state, Hypothesis((), 0), 20_800, 1.3) is None
    third = stage.partial(state, Hypothesis((SO,), 1), 22_400, 1.4)
    assert third is not None and (third.stable, third.volatile, third.segment) == ("so", "", 1)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "must be above 0"),
        ({"silence_seconds": -1.0}, "silence_seconds"),
        ({"length_seconds": float("inf")}, "length_seconds"),
        ({"silence_seconds": float("nan")}, "silence_seconds"),
        ({"silence_seconds": "1"}, "silence_seconds"),
        ({"needs_speech": 1, "silence_seconds": 1}, "needs_speech"),
    ],
)
def test_rules_are_checked(values: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        EndpointRule(**values)  # type: ignore[arg-type]


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(1, 4)), min_size=1, max_size=6),
    st.tuples(st.floats(-0.5, 0.5), st.floats(-0.5, 0.5)),
    st.integers(0, 3),
)
def test_offsets_keep_words_apart_and_within_the_sound(
    gaps: list[tuple[int, int]], offsets: tuple[float, float], beyond: int
) -> None:
    stage = Segmenter((), STEP, 16_000, offsets)
    state, step, words = stage.start(), 0, []
    for gap, length in gaps:
        words.append(TimedWord("w", step + gap, step + gap + length - 1, 0.5))
        step += gap + length
    samples = max(step - beyond, 0) * STEP + 7
    told = []
    for part in (words[:3], words[3:]):
        final = stage.final(state, Hypothesis(tuple(part), len(part)), samples, "finish")
        told += final.words if final else []
    times = [time for word in told for time in (word.start, word.end)]
    assert times == sorted(times)
    assert 0 <= times[0] and times[-1] <= samples / 16_000


def test_offsets_are_added_where_there_is_room() -> None:
    stage = Segmenter((), STEP, 16_000, (-0.05, 0.02))
    final = stage.final(stage.start(), Hypothesis((SO, IT), 2), 10**6, "finish")
    assert final is not None
    assert [(w.start, w.end) for w in final.words] == [(0.15, 0.52), (0.55, 0.72)]


def test_a_final_in_the_middle_of_a_chunk_does_not_reach_into_its_rest() -> None:
    stage = Segmenter((), STEP, 16_000, (0.0, 0.5))
    state = stage.start()
    state.step = 8
    final = stage.final(state, Hypothesis((SO, IT), 2), 10**6, "endpoint:length")
    assert final is not None and final.end == 0.8
