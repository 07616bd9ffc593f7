"""Distances of two histograms, by hand."""

import numpy as np
import pytest

from ser_core.reporting.distances import (
    _pooled,
    chi_squared,
    jensen_shannon_distance,
    population_stability_index,
)


def test_many_rare_values_are_no_evidence():
    random = np.random.default_rng(0)
    drawn = [np.bincount(random.integers(0, 900, 1000), minlength=900) for _ in range(2)]
    assert chi_squared(*(counts.astype(float) for counts in drawn)) > 0.01
    few, many = np.array([400.0, 1, 0, 1]), np.array([400.0, 0, 1, 1])
    assert _pooled(np.stack([few, many])).tolist() == [[400, 2], [400, 2]]


def test_the_index_and_the_distance_by_hand():
    baseline, current = np.array([60, 40]), np.array([30, 70])
    p, q = (baseline + 0.5) / 101, (current + 0.5) / 101
    expected = sum((q - p) * np.log(q / p))
    assert population_stability_index(baseline, current) == pytest.approx(expected)
    p, q = baseline / 100, current / 100
    middle = (p + q) / 2
    divergence = sum(p * np.log2(p / middle) + q * np.log2(q / middle)) / 2
    assert jensen_shannon_distance(baseline, current) == pytest.approx(np.sqrt(divergence))
    assert jensen_shannon_distance(baseline, baseline * 3) == 0
