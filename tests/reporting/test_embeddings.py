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
    sizes = pa.array([HIDDEN] * len(rows), pa.int32())
    return rows.append_column("embedding_size", sizes).append_column("embedding", column)


def parts(*sizes):
    """Parts of an output, each made a day after the one before, and their embeddings."""
    for day, size in enumerate(sizes):
        names = [f"{day}-{i}" for i in range(size)]
        rows = label_rows(names, random_scores(size), labeled_at=WHEN + pd.Timedelta(days=day))
        yield with_embeddings(rows, vectors(size, day, 10 * day))


def test_a_sample_has_the_rows_that_are_meant(tmp_path):
    labels = open_labels(str(write_labels(tmp_path / "labels", *parts(20, 20))))
    expected = np.concatenate([vectors(20, 0), vectors(20, 1, 10)])
    assert np.array_equal(in_order(sample(labels)), in_order(expected))


def test_the_parts_of_a_night_are_found_among_many(tmp_path):
    labels = open_labels(str(write_labels(tmp_path / "labels", *parts(9, 9, 9, 9, 9))))
    limit = pa.scalar(WHEN + pd.Timedelta(days=4), pa.timestamp("us", tz="UTC"))
    later = sample(labels, lambda rows: pc.greater_equal(rows["labeled_at"], limit))
    assert np.array_equal(in_order(later), in_order(vectors(9, 4, 40)))


def in_order(embeddings):
    """As they are stored."""
    return embeddings[np.argsort(embeddings[:, 0])].astype(np.float16)


def test_every_row_is_drawn_with_the_same_probability(tmp_path, monkeypatch):
    """However rows are divided into parts: else, the same rows would seem to drift."""
    monkeypatch.setattr(embeddings, "_MOST_ROWS", 200)
    labels = open_labels(str(write_labels(tmp_path / "labels", *parts(900, 100))))
    drawn = sample(labels)
    assert len(drawn) == 200
    assert np.mean(drawn[:, 0] > 5) == pytest.approx(0.1, abs=0.08)  # four standard deviations


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
