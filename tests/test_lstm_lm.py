"""The language model in NumPy: against torch, against itself, and its file."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from oracles import load
from strategies import random_lstm

from streamasr import tensorfile
from streamasr.engine.reference import ReferenceEngine
from streamasr.errors import ConfigError, ModelError
from streamasr.search import lstm_lm
from streamasr.search.generation import draw, generate
from streamasr.search.lstm_lm import LstmModel
from streamasr.search.subwords import LINE_END, Subwords

SUBWORDS = Subwords(["\n", "a", "b", "c", "a ", "b ", "c ", "ab ", "ca"])
TENSORS = random_lstm(len(SUBWORDS))
MODEL = LstmModel(SUBWORDS, TENSORS)
TEXTS = [[1, 2, 6], [1, 2], [1, 2, 6, 8, 8], [3], [], [1, 2, 6]]


def log_probs(model: LstmModel, tokens: list[int]) -> np.ndarray[Any, Any]:
    state = model.start()
    return np.concatenate([model.step([token], state) for token in tokens])


def test_equals_torch() -> None:
    torch = load("torch")
    from streamasr.train.lm_model import LstmModel as Twin

    twin = Twin(len(SUBWORDS), 6, 10, 2, 0.1, "float32").eval()
    twin.load_state_dict({name: torch.from_numpy(tensor) for name, tensor in TENSORS.items()})
    tokens = [0, 3, 1, 8, 2, 0, 5]
    logits, _ = twin(torch.tensor(tokens)[:, None])
    expected = logits[:, 0].log_softmax(-1).detach().numpy()
    # float32; torch's kernel has a rational tanh.
    np.testing.assert_allclose(log_probs(MODEL, tokens), expected, rtol=0, atol=1e-5)


def test_the_layers_are_those_of_the_reference_engine() -> None:
    conv = {
        "conv1.weight": (1, 1, 4, 3),
        "conv1.bias": (1,),
        "conv2.weight": (1, 1, 3, 3),
        "conv2.bias": (1,),
    }
    rest = {"output.weight": (2, 10), "output.bias": (2,)}
    zeros = {name: np.zeros(shape, np.float32) for name, shape in (conv | rest).items()}
    engine = ReferenceEngine("lstm", "joint", 8, {**TENSORS, **zeros})
    tokens = [0, 3, 1, 8, 2]
    x = TENSORS["embedding"][tokens][None] * np.float32(math.sqrt(6))
    h = np.zeros((1, 2, 10), np.float32)
    c = np.zeros_like(h)
    engine.recur(x[0], [1] * len(tokens), h, c)
    state = MODEL.start()
    for token in tokens:
        MODEL.step([token], state)
    np.testing.assert_allclose(state.h[:, 0], h[0], atol=1e-6)
    np.testing.assert_allclose(state.c[:, 0], c[0], atol=1e-6)


def test_texts_that_share_beginnings_score_as_each_alone() -> None:
    context = [LINE_END, 4]
    expected = []
    for text in TEXTS:
        known = log_probs(MODEL, [*context, *text])[1:]
        expected.append(sum(float(known[i, token]) for i, token in enumerate(text)))
    found = MODEL.score(context, TEXTS)
    # Products of other shapes: other last bits.
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert found[0] == found[5] and found[4] == 0
    np.testing.assert_array_equal(found, MODEL.score(context, TEXTS))


def test_probabilities_of_a_line() -> None:
    assert np.exp(log_probs(MODEL, [0, 3])).sum(1) == pytest.approx([1, 1], abs=1e-6)
    scores = MODEL.line("ab ca")
    tokens = [*SUBWORDS.word("ab"), *SUBWORDS.word("ca"), LINE_END]
    assert len(scores) == 3 and SUBWORDS.word("ab") == (7,) and len(SUBWORDS.word("ca")) == 2
    assert sum(scores) == pytest.approx(float(MODEL.score([LINE_END], [tokens])[0]), abs=1e-5)


def test_file(tmp_path: Path) -> None:
    lstm_lm.write(tmp_path, SUBWORDS, TENSORS, {"updates": 3})
    model = lstm_lm.read(tmp_path)
    assert model.subwords.pieces == SUBWORDS.pieces and model.parameters == MODEL.parameters
    # A row's largest number is 127: half a step is its 254th part.
    stored = tensorfile.mapped(tmp_path / lstm_lm.TENSORS)
    for name in ("embedding", "layers.0.weight_x"):
        back = stored[name] * stored[f"{name}.scale"][:, None]
        assert (np.abs(back - TENSORS[name]).max(1) <= np.abs(TENSORS[name]).max(1) / 253).all()
    np.testing.assert_allclose(log_probs(model, [0, 3, 1]), log_probs(MODEL, [0, 3, 1]), atol=0.1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d, t: d.update(format=2), "format 1"),
        (lambda d, t: d.update(subwords=[1]), "list of texts"),
        (lambda d, t: d["subwords"].append("cab "), r"embedding has shape \[9, 6\], must be \[10, 6\]"),
        (lambda d, t: t.pop("projection"), "projection"),
        (lambda d, t: t.pop("layers.0.gain"), r"layers\.0\.gain is missing"),
        (lambda d, t: t.pop("layers.0.weight_x.scale"), r"layers\.0\.weight_x: int8 needs"),
        (lambda d, t: t.update(more=np.zeros(2, np.float32)), "more is missing, or has no place"),
        (lambda d, t: t.update(bias=np.full(9, np.nan, np.float32)), "bias holds NaN"),
        (lambda d, t: t.update(bias=np.zeros(9, np.int32)), "bias: dtype 'I32'"),
    ],
)
def test_a_damaged_file_is_told(tmp_path: Path, change: Any, message: str) -> None:
    lstm_lm.write(tmp_path, SUBWORDS, TENSORS, {})
    description = json.loads((tmp_path / lstm_lm.DESCRIPTION).read_text())
    tensors: dict[str, Any] = dict(tensorfile.views((tmp_path / lstm_lm.TENSORS).read_bytes(), ""))
    change(description, tensors)
    (tmp_path / lstm_lm.DESCRIPTION).write_text(json.dumps(description))
    (tmp_path / lstm_lm.TENSORS).write_bytes(tensorfile.render(tensors))
    with pytest.raises(ModelError, match=message):
        lstm_lm.read(tmp_path)


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"lstm_lm\.json: no such file.*train-lm"):
        lstm_lm.read(tmp_path)


def test_generated_text_depends_on_the_seed_alone() -> None:
    texts = [list(generate(MODEL, words=20, seed=seed)) for seed in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]
    for text in texts:
        assert sum(piece.endswith(" ") for piece in text) == 20 and text[-1].endswith(" ")
    likeliest = "".join(generate(MODEL, "ab", 5, temperature=0, seed=1))
    assert likeliest == "".join(generate(MODEL, "ab", 5, temperature=0, seed=2))
    assert likeliest == "".join(generate(MODEL, "ab", 5, top_k=1, seed=3))
    state = MODEL.start()
    MODEL.step([LINE_END], state)
    first = int(MODEL.step([SUBWORDS.ids["ab "]], state).argmax())
    assert likeliest.startswith(SUBWORDS.pieces[first])


def test_what_is_drawn() -> None:
    p = np.log(np.array([0.1, 0.5, 0.15, 0.25], np.float32))
    random = np.random.default_rng(0)

    def share(**settings: Any) -> list[float]:
        values = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, **settings}
        drawn = [draw(p, random=random, **values) for _ in range(3000)]
        return [drawn.count(i) / 3000 for i in range(4)]

    # Three standard deviations of a share among 3000 are 0.03 at most.
    assert share() == pytest.approx([0.1, 0.5, 0.15, 0.25], abs=0.03)
    assert share(top_k=2) == pytest.approx([0, 2 / 3, 0, 1 / 3], abs=0.03)
    assert share(top_p=0.8) == pytest.approx([0, 5 / 9, 1 / 6, 5 / 18], abs=0.03)
    assert share(top_p=0.4) == [0, 1, 0, 0]
    squares = np.array([0.1, 0.5, 0.15, 0.25]) ** 2
    assert share(temperature=0.5) == pytest.approx(list(squares / squares.sum()), abs=0.03)


@pytest.mark.parametrize(
    "settings", [{"words": 0}, {"temperature": -1.0}, {"top_k": -1}, {"top_p": 0.0}, {"top_p": 1.1}]
)
def test_impossible_wishes_are_told(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="words must be 1 or more"):
        list(generate(MODEL, **settings))
    with pytest.raises(ConfigError, match="letters 'x'"):
        list(generate(MODEL, "ax"))
