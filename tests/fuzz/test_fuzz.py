"""Damaged recordings of every format become rows, with true samples or a reason."""

import pytest

from tests.fuzz.checking import check_all, summary
from tests.fuzz.mutants import mutant

MUTANTS = 2_000  # `python -m tests.fuzz --count 50000` checks more


@pytest.mark.slow
def test_no_damage_escapes():
    counts = summary(check_all(range(MUTANTS)))
    assert counts["findings"] == []
    assert counts["mutants"] == MUTANTS
    assert counts["statuses"]["ok"] > MUTANTS / 4
    assert counts["statuses"]["decode_error"] > MUTANTS / 4


def test_a_mutant_is_always_the_same():
    assert [mutant(number) for number in range(30)] == [mutant(number) for number in range(30)]
