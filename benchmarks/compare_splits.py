"""Compares three ways to split EMO-DB: a small HuBERT trained from scratch on each.

It measures how far the split methods differ, not how good the published model is.
"""

import argparse
import time

from benchmarks.measuring import ROOT, add_emodb_flag, machine, write_result
from ser_core.training.compare_splits import compare_splits, summarize
from ser_core.training.config import CompareSplitsConfig

MODEL = "benchmarks/small-hubert.json"
SETTINGS = {"epochs": 20, "batch_size": 16, "learning_rate": 5e-3, "seeds": 3, "workers": 1}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add_emodb_flag(parser)
    parser.add_argument(
        "--output", default="build/compare-splits", help="where finished runs are kept"
    )
    flags = parser.parse_args()
    host, started = machine(), time.monotonic()
    corpus = {"corpus": "emodb", "data": str(flags.data), "model": str(ROOT / MODEL)}
    config = {**corpus, **SETTINGS, "output": flags.output}
    runs = compare_splits(CompareSplitsConfig.model_validate(config))
    result = {
        "machine": host,
        "corpus": "emodb",
        "model": f"{MODEL}, 114 k parameters, from scratch",
        "settings": SETTINGS,
        "seconds": time.monotonic() - started,
        "splits": summarize(runs).to_dict("records"),
        "runs": runs.to_dict("records"),
    }
    write_result("compare-splits-emodb", result)


if __name__ == "__main__":
    main()
