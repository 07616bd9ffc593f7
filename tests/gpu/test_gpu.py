"""On a GPU the scores are the card's in fp32, and close to them in bf16.

It imports what the GPU machine has: ``pytest --noconftest tests/gpu``.
"""

import numpy as np
import pytest
import torch

from benchmarks.measuring import full_checkpoint, waveforms
from ser_core.models.card import Card
from ser_core.models.checkpoint import load_checkpoint
from ser_core.models.classifier import Classifier

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU on this machine"),
]


@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-4), ("bf16", 0.1)])
def test_scores_on_the_gpu(tmp_path, precision, tolerance):
    checkpoint = full_checkpoint(tmp_path / "checkpoint")
    speeches = waveforms(np.array([0.2, 1.9, 6.0, 4.1]))
    card = Card(checkpoint)
    expected = np.stack([card.scores_of(speech) for speech in speeches])
    classifier = Classifier(load_checkpoint(checkpoint), precision, 3)
    assert classifier.on_gpu
    np.testing.assert_allclose(classifier.scores(speeches), expected, atol=tolerance)
