"""Whatever a recording's bytes make a decoder do is that recording's row."""

import numpy as np
import pandas as pd
import pytest
from bad_recordings import BREAKING, FORMATS, mp3_after_junk, tagged_wav, write
from harness import SABOTAGE, Output, run, until_done

LIMITS = {"decode_timeout": 20, "decode_memory": 1}  # only what hangs reaches 20 s


def test_each_costs_one_row(command, make_corpus, tmp_path):
    paths = make_corpus(tmp_path / "corpus", 30)
    cases = [*FORMATS, *BREAKING]
    bad = write(tmp_path / "corpus", cases)
    job = command(tmp_path / "corpus", tmp_path / "labels", {"PYTHONPATH": str(SABOTAGE)}, **LIMITS)
    until_done(job, rounds=1)
    rows = Output(tmp_path / "labels").check([*paths, *bad])
    assert set(rows.loc[[path.name for path in paths], "status"]) == {"ok"}
    unexpected = {
        case.name: (row["status"], row["error"])
        for case in cases
        if (row := rows.loc[case.name])["status"] not in case.statuses
    }
    assert not unexpected
    durations = rows["duration"].dropna()
    assert ((durations >= 0) & (durations < 3 * 3600)).all(), durations.sort_values()


@pytest.mark.chaos
def test_whole_recordings(command, make_corpus, tmp_path):
    """With ``--segments all``, what is long or lies is decoded to its end."""
    paths = make_corpus(tmp_path / "corpus", 4)
    bad = write(tmp_path / "corpus", FORMATS)
    job = command(tmp_path / "corpus", tmp_path / "labels", segments="all", decode_timeout=60)
    until_done(job, rounds=1)
    rows = Output(tmp_path / "labels").check([*paths, *bad])
    for case in FORMATS:
        also = {"too_large", "timeout"} if case.name == "long-silence.flac" else set()
        assert rows.loc[case.name, "status"] in case.statuses | also, rows.loc[case.name, "error"]


@pytest.mark.chaos
def test_the_same_bytes_get_the_same_scores_from_disk_and_from_s3(command, tmp_path, bucket):
    files = {"tagged.wav": tagged_wav(), "after-junk.mp3": mp3_after_junk()}
    (tmp_path / "corpus").mkdir()
    for name, data in files.items():
        (tmp_path / "corpus" / name).write_bytes(data)
    uris = bucket.upload("corpus", files)
    there = command(f"{bucket.uri}/corpus", tmp_path / "there", bucket.environment)
    until_done(there, rounds=1)
    until_done(command(tmp_path / "corpus", tmp_path / "here"), rounds=1)
    remote = Output(tmp_path / "there").check(uris)
    local = Output(tmp_path / "here").check((tmp_path / "corpus").iterdir())
    columns = [*local.filter(like="score"), "duration", "status", "label"]
    assert set(local["status"]) == {"ok"}
    pd.testing.assert_frame_equal(
        remote.loc[list(files), columns], local.loc[list(files), columns], check_categorical=False
    )
    assert np.ptp(local["score"]) > 0


@pytest.mark.chaos
def test_fifty_that_crash_cost_fifty_rows(command, make_corpus, tmp_path):
    """What they cost in time is measured by benchmarks/faults.py."""
    (crashing,) = [case for case in BREAKING if case.name == "crashes.wav"]
    paths = make_corpus(tmp_path / "corpus", 1000)
    for path in paths[10::20]:
        path.write_bytes(crashing.make())
    job = command(tmp_path / "corpus", tmp_path / "labels", {"PYTHONPATH": str(SABOTAGE)})
    assert run(job).code == 0
    statuses = Output(tmp_path / "labels").check(paths)["status"]
    assert statuses.value_counts().to_dict() == {"ok": 950, "crashed": 50}
