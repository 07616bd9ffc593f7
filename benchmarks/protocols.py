"""Measures what a split is worth: a small HuBERT trained from scratch on a corpus split three ways.

It shows how far the protocols lie apart, not how good the published model is.
"""

import argparse
import json
import time
from datetime import UTC, datetime
from pathlib import Path

from label import machine

from ser_core.protocols import ProtocolsConfig, compare_protocols, summarize

HERE = Path(__file__).parent
SETTINGS = {"epochs": 20, "batch_size": 16, "learning_rate": 5e-3, "seeds": 3, "workers": 1}


def main(corpus: str, data: str, output: str, result: Path) -> None:
    started, host = time.monotonic(), machine()
    model = str(HERE / "small-hubert.json")
    asked = {"corpus": corpus, "data": data, "output": output, "model": model, **SETTINGS}
    runs = compare_protocols(ProtocolsConfig.model_validate(asked))
    content = {
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": host,
        "corpus": corpus,
        "model": "benchmarks/small-hubert.json, 114 k parameters, from scratch",
        "settings": SETTINGS,
        "seconds": time.monotonic() - started,
        "protocols": summarize(runs).to_dict("records"),
        "runs": runs.to_dict("records"),
    }
    result.write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", help="folder of the corpus")
    parser.add_argument("--corpus", default="emodb")
    parser.add_argument("--output", default="build/protocols", help="folder for the runs")
    default = HERE / "results" / "protocols-emodb.json"
    parser.add_argument("--result", type=Path, default=default)
    arguments = parser.parse_args()
    main(arguments.corpus, arguments.data, arguments.output, arguments.result)
