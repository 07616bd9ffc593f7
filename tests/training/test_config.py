"""Settings that cannot work are refused when the command is parsed."""

import pytest

from jobs.command import parse
from ser_core.errors import UsageError
from ser_core.training.config import CompareSplitsConfig, TrainConfig

REQUIRED = ["--corpus", "casia", "--data", "x", "--output", "y"]
COUNTS = ("--epochs", "--batch-size", "--accumulate", "--workers")


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        *((flag, value) for flag in COUNTS for value in ("0", "-1", "1e12", str(10**12), "nan")),
        *(("--seed", value) for value in ("-1", str(2**32), "inf")),
        *(("--learning-rate", value) for value in ("0", "-1", "nan", "inf", "1e308")),
    ],
)
def test_numbers_out_of_range(flag, value):
    with pytest.raises(UsageError, match=rf"^{flag} {value}[^\n]*$"):
        parse(TrainConfig, [*REQUIRED, flag, value])


def test_every_seed_of_a_comparison_is_in_range():
    with pytest.raises(UsageError, match="--seed"):
        parse(CompareSplitsConfig, [*REQUIRED, "--seed", str(2**31)])
    largest = parse(CompareSplitsConfig, [*REQUIRED, "--seed", str(2**30), "--seeds", "100000"])
    last = largest.seed + largest.seeds - 1
    assert TrainConfig(corpus="casia", data="x", output="y", seed=last).seed == last
