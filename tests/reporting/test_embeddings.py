"""Embeddings that have moved are told apart from samples of the same ones."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from label_folders import WHEN, label_rows, random_scores, write_labels

from ser_core.labeling.current_rows import open_labels
from ser_core.reporting import embeddings
from ser_core.reporting.drift import compare
from ser_core.reporting.embeddings import component_counts, sample

HIDDEN = 8


def vectors(count, seed=0, shift=0.0):
    return np.random.default_rng(seed).standard_normal((count, HIDDEN)) + shift


def with_embeddings(rows: pa.Table, embeddings) -> pa.Table:
    flat = pa.array(np.asarray(embeddings, np.float16).ravel())
    column = pa.FixedSizeListArray.from_arrays(flat, HIDDEN)
    return rows.append_column("embedding", column)


def test_a_sample_has_the_rows_that_are_meant(tmp_path):
    expected = vectors(40)
    parts = [
        with_embeddings(
            label_rows(
                [f"{part}-{i}" for i in range(20)],
                random_scores(20),
                labeled_at=WHEN.replace(day=1 + part),
            ),
            expected[20 * part : 20 * part + 20],
        )
        for part in range(2)
    ]
    labels = open_labels(str(write_labels(tmp_path / "labels", *parts)))
    assert sample(labels) == pytest.approx(expected, abs=2e-3)
    limit = pa.scalar(WHEN.replace(day=2), pa.timestamp("us", tz="UTC"))
    later = sample(labels, lambda rows: pc.greater_equal(rows["labeled_at"], limit))
    assert later == pytest.approx(expected[20:], abs=2e-3)


def test_the_parts_of_a_night_are_found_among_many(tmp_path, monkeypatch):
    monkeypatch.setattr(embeddings, "_MOST_PARTS", 2)
    parts = [
        with_embeddings(
            label_rows([f"{day}-{i}" for i in range(9)], random_scores(9), labeled_at=at),
            vectors(9, day),
        )
        for day, at in enumerate(WHEN + pd.Timedelta(days=d) for d in range(5))
    ]
    labels = open_labels(str(write_labels(tmp_path / "labels", *parts)))
    limit = pa.scalar(WHEN + pd.Timedelta(days=4), pa.timestamp("us", tz="UTC"))
    later = sample(labels, lambda rows: pc.greater_equal(rows["labeled_at"], limit))
    assert later == pytest.approx(vectors(9, 4), abs=2e-3)


def test_labels_without_embeddings(tmp_path):
    labels = open_labels(str(write_labels(tmp_path / "l", label_rows(["a"], random_scores(1)))))
    assert not len(sample(labels))
    assert component_counts(sample(labels), sample(labels)) == []


@pytest.mark.parametrize(("shift", "drifts"), [(0.0, False), (1.0, True)])
def test_a_shift_is_drift(table_of, shift, drifts):
    components = component_counts(vectors(500, 1), vectors(500, 2, shift))
    table = table_of(label_rows(["a", "b"], random_scores(2)))
    judged = {c.measure: c.verdict for c in compare(table, table, components)}
    verdicts = [judged[f"embedding {number}"] for number in range(1, 6)]
    assert any(verdict != "none" for verdict in verdicts) == drifts


def test_embeddings_of_another_size_are_not_compared():
    assert component_counts(vectors(50), vectors(50)[:, :4]) == []
