"""Tables of labels in a temporary database."""

import itertools

import pytest
from label_folders import write_labels

from ser_core.labeling.current_rows import open_labels
from ser_core.reporting.label_table import database, load


@pytest.fixture
def table_of(tmp_path):
    """Makes a `LabelTable` of rows."""
    numbers = itertools.count()
    with database() as connection:

        def make(*parts, **options):
            name = f"labels_{next(numbers)}"
            labels = open_labels(str(write_labels(tmp_path / name, *parts)))
            return load(connection, labels, name, **options)

        yield make
