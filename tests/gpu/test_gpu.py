"""On a GPU the scores are the card's in fp32, and close to them in bf16."""

import numpy as np
import pytest
import torch
from recordings import speech_like

from benchmarks.card import Card
from ser_core.models.checkpoint import load_checkpoint
from ser_core.models.classifier import Classifier

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU on this machine"),
]


@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-4), ("bf16", 0.1)])
def test_scores_on_the_gpu(full_checkpoint, precision, tolerance):
    waveforms = [speech_like(s, seed=int(s * 10)) for s in (0.2, 1.9, 6.0, 4.1)]
    card = Card(full_checkpoint)
    expected = np.stack([card.scores_of(waveform) for waveform in waveforms])
    classifier = Classifier(load_checkpoint(str(full_checkpoint)), precision, 3)
    assert classifier.on_gpu
    np.testing.assert_allclose(classifier.scores(waveforms), expected, atol=tolerance)
