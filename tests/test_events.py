import dataclasses
import json

import pytest

from streamasr.events import Final, Partial, Transcript, Word

SO = Word("so", 0.25, 0.5, 0.9)
IT = Word("it", 0.5, 0.75, 0.8)
FINAL = Final(0, "so it", (SO, IT), 0.25, 0.75, 0.85, "finish")


def test_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        SO.text = "no"  # type: ignore[misc]


def test_to_dict_is_json() -> None:
    partial = Partial(3, "so", "it", (SO, IT), 1.5)
    assert partial.text == "so it"
    assert json.loads(json.dumps(partial.to_dict())) == {
        "type": "partial",
        "segment": 3,
        "stable": "so",
        "volatile": "it",
        "words": [
            {"text": "so", "start": 0.25, "end": 0.5, "confidence": 0.9},
            {"text": "it", "start": 0.5, "end": 0.75, "confidence": 0.8},
        ],
        "time": 1.5,
    }
    found = json.loads(json.dumps(FINAL.to_dict()))
    assert found["type"] == "final" and found["reason"] == "finish" and len(found["words"]) == 2


def test_transcript() -> None:
    second = Final(1, "so", (SO,), 2.0, 2.5, 0.9, "finish")
    transcript = Transcript.of([FINAL, second], 3.0)
    assert transcript.text == "so it so"
    assert transcript.words == (SO, IT, SO)
    assert json.loads(json.dumps(transcript.to_dict()))["segments"][1]["text"] == "so"
    assert Transcript.of([], 0.0) == Transcript("", (), (), 0.0)
