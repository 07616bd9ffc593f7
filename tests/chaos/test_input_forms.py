"""A killed run of every form of input, and its resume: what has a row keeps it, and all get one."""

import form_inputs
import pytest
from harness import Job, Output, until_done

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(1200)]
COUNT = 400
FORMS = {form: make for form, make in form_inputs.FORMS.items() if form != "recordings"}


@pytest.mark.parametrize("form", FORMS)
def test_a_killed_run_continues_within_its_input(form, command, make_corpus, tmp_path):
    (tmp_path / "input").mkdir()
    FORMS[form](tmp_path / "input", make_corpus(tmp_path / "files", COUNT))
    inputs = [str(tmp_path / "input" / name) for name in form_inputs.arguments(form)[1:]]
    labelling = command(inputs, tmp_path / "labels", part_seconds=0.2, batch_size=1)
    output = Output(tmp_path / "labels")
    with Job(labelling) as job:
        job.until(output.parts, "the first part")
        job.kill()
        job.wait()
    before = output.rows().set_index("uri")
    assert 0 < len(before) < COUNT
    until_done(labelling)
    after = output.rows()
    assert len(after) == COUNT == len(set(after["uri"]))
    assert set(after["status"]) == {"ok"}
    kept = after.set_index("uri").loc[before.index]
    assert (kept["labeled_at"] == before["labeled_at"]).all()
    report = output.reports()[-1]
    assert (report["listed"], report["done_before"]) == (COUNT, len(before))
