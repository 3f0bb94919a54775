"""The beam search against flashlight-text's, on random log-probabilities."""

from __future__ import annotations

import numpy as np
import pytest
from oracles import load
from test_beam import VOCABULARY, random_log_probs

from streamasr.search import lexicon
from streamasr.search.beam import BeamConfig, BeamSearch

WORDS = ["a", "ab", "ba", "bb", "aba", "abb", "bab"]


@pytest.mark.parametrize("seed", range(5))
def test_best_text_is_that_of_flashlight(seed: int) -> None:
    flashlight = load("flashlight.lib.text.decoder")
    log_probs = random_log_probs(14, 4, seed)
    # It hears a word only with its separator: the last step is one.
    log_probs[-1] = np.log(np.array([0.001, 0.997, 0.001, 0.001], np.float32))
    space = VOCABULARY.space
    trie = flashlight.Trie(len(VOCABULARY), space)
    for number, word in enumerate(WORDS):
        trie.insert([*VOCABULARY.encode(word), space], number, 0.0)
    trie.smear(flashlight.SmearingMode.MAX)
    options = flashlight.LexiconDecoderOptions(
        beam_size=2000, beam_size_token=4, beam_threshold=1e6, lm_weight=0.0, word_score=0.5,
        unk_score=-np.inf, sil_score=0.0, log_add=True, criterion_type=flashlight.CriterionType.CTC,
    )  # fmt: skip
    decoder = flashlight.LexiconDecoder(options, trie, flashlight.ZeroLM(), space, 0, -1, [], False)
    theirs = decoder.decode(log_probs.ctypes.data, len(log_probs), 4)[0]
    config = BeamConfig(
        beam=2000, tokens=4, beam_threshold=1e6, token_threshold=1e6, blank_skip=1.0, word_bonus=0.5,
        recombine=False,
    )  # fmt: skip
    search = BeamSearch(VOCABULARY, config, lexicon.build(lexicon.spell(WORDS, VOCABULARY), 4))
    s = search.start()
    search.advance(s, log_probs)
    (score, told), *_ = search.nbest(s, 1)
    if [word.text for word in told.words] != [WORDS[i] for i in theirs.words if i >= 0]:
        assert score > theirs.score
    assert score >= theirs.score - 1e-3  # it sums in float32, and keeps alignments of a prefix apart
