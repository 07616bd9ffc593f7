"""A killed run of every form of input, and its resume: what has a row keeps it, and all get one."""

import os

import form_inputs
import pytest
from harness import Job, Output, until_done

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(1200)]
FORMS = {form: make for form, make in form_inputs.FORMS.items() if form != "recordings"}
COUNT = 3_000
# Too many for the driver to list alone: tasks list them, and again while the first are labelled.
LONG = dict.fromkeys(["a folder", "a manifest", "tar shards", "Parquet"], 12_000)


def short_recordings(folder, speech, count):
    folder.mkdir()
    paths = [folder / f"{number:05}.wav" for number in range(count)]
    for path in paths:
        os.link(speech[0], path)
    return paths


@pytest.mark.parametrize(("form", "count"), [*dict.fromkeys(FORMS, COUNT).items(), *LONG.items()])
def test_a_killed_run_continues_within_its_input(form, count, command, speech, tmp_path):
    (tmp_path / "input").mkdir()
    FORMS[form](tmp_path / "input", short_recordings(tmp_path / "files", speech, count))
    inputs = [str(tmp_path / "input" / name) for name in form_inputs.arguments(form)[1:]]
    labelling = command(inputs, tmp_path / "labels", part_seconds=0.2, batch_size=1)
    output = Output(tmp_path / "labels")
    with Job(labelling) as job:
        job.until(output.parts, "the first part")
        job.kill()
        job.wait()
    before = output.rows().set_index("uri")
    assert 0 < len(before) < count
    until_done(labelling)
    after = output.rows()
    assert len(after) == count == len(set(after["uri"]))
    assert set(after["status"]) == {"ok"}
    kept = after.set_index("uri").loc[before.index]
    assert (kept["labeled_at"] == before["labeled_at"]).all()
    report = output.reports()[-1]
    assert (report["listed"], report["done_before"]) == (count, len(before))
