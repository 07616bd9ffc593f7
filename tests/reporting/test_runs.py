"""What the page says of a run."""

import json

from ser_core.reporting.runs import read_runs
from ser_core.storage.folder import Folder


def test_the_runs_of_a_folder(tmp_path):
    run = {
        "started_at": "2026-01-02T00:00:00+00:00",
        "outcome": "incomplete",
        "failed": None,
        "by_device": {"cuda bf16": 3, "cpu fp32": 1},
        "config": {"input": ["calls", "more"], "model": "m"},
    }
    of_0_1 = {"started_at": "2026-01-01T00:00:00+00:00", "config": {"input": "calls"}}
    (tmp_path / "__runs").mkdir()
    for name, content in {"a": of_0_1, "b": run}.items():
        (tmp_path / "__runs" / f"{name}.json").write_text(json.dumps(content))
    (tmp_path / "__runs" / "c.json").write_text("{")
    newest, oldest = read_runs(Folder(str(tmp_path)))
    assert (newest["run"], newest["input"], newest["model"]) == ("b", "calls, more", "m")
    assert newest["devices"] == "cuda bf16, cpu fp32"
    assert (oldest["run"], oldest["input"], oldest["outcome"]) == ("a", "calls", None)
