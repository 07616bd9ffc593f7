"""``{date}`` in settings, and ``--date``."""

from datetime import UTC, date, datetime

import pytest

from jobs import dates
from jobs.command import parse
from jobs.dates import expand_dates
from jobs.ser_batch import JOBS
from ser_core.errors import UsageError
from ser_core.labeling.config import LabelConfig

NIGHT = date(2026, 3, 1)
NEEDED = ["--input", "s3://b/calls/{date}", "--output", "s3://b/labels"]


@pytest.mark.parametrize(
    ("text", "expanded"),
    [
        ("s3://b/{date}", "s3://b/2026-03-01"),
        ("s3://b/{date-1}", "s3://b/2026-02-28"),
        ("s3://b/{date+31}", "s3://b/2026-04-01"),
        ("{date:%Y/%m/%d}", "2026/03/01"),
        ("{date-1:%d.%-m.%y}", "28.2.26"),
        ("{date-60:%G-W%V-%u}", "2026-W01-3"),
        ("{date:%Y}/{date:%m}/{date}", "2026/03/2026-03-01"),
        ("{date}/{000..999}.tar", "2026-03-01/{000..999}.tar"),  # other braces are for patterns
        ("{dates,calls}/{x}", "{dates,calls}/{x}"),
        ("update", "update"),
    ],
)
def test_what_stands_for_a_date(text, expanded):
    assert expand_dates("--input", text, NIGHT) == expanded


@pytest.mark.parametrize(
    "text",
    ["{date-1d}", "{Date}", "{date:}", "{date:%H}", "{date:%Q}", "{date:%}", "{date-9999999999}",
     "{date-1000000}", "{date -1}", "a/{dates}", "{date}/{date+}", "{date:%Y%-}"],
)  # fmt: skip
def test_what_only_looks_like_a_date_is_refused_in_one_line(text):
    with pytest.raises(UsageError) as caught:
        parse(LabelConfig, ["--input", "in", "--output", text])
    assert str(caught.value).startswith(f"--output {text}: write {{date}}, {{date-1}} for the")
    assert "\n" not in str(caught.value)


def test_the_date_is_that_of_the_flag_in_every_setting(tmp_path):
    (tmp_path / "night.yaml").write_text("output: s3://b/labels/{date-1:%Y%m%d}\n")
    argv = ["--config", str(tmp_path / "night.yaml"), "--date", "2026-03-01"]
    config = parse(LabelConfig, [*argv, "--input", "s3://b/{date}", "{date-1}.csv"])
    assert config.input == ("s3://b/2026-03-01", "2026-02-28.csv")
    assert config.output == "s3://b/labels/20260228"


def test_without_the_flag_it_is_today_in_utc(monkeypatch):
    class Clock(datetime):
        @classmethod
        def now(cls, tz=None):
            assert tz is UTC  # a machine's own time zone would shift the night
            return cls(2026, 3, 1, 0, 30, tzinfo=UTC)

    monkeypatch.setattr(dates, "datetime", Clock)
    assert parse(LabelConfig, NEEDED).input == ("s3://b/calls/2026-03-01",)


@pytest.mark.parametrize("text", ["2026-02-30", "yesterday", "20260301", "2026-3", "", "1.3.2026"])
def test_a_bad_date_is_one_line(text):
    with pytest.raises(UsageError) as caught:
        parse(LabelConfig, [*NEEDED, "--date", text])
    assert str(caught.value) == f"--date {text}: not a date such as 2026-11-27"


@pytest.mark.parametrize("job", JOBS)
def test_every_job_has_it(job, capsys):
    with pytest.raises(SystemExit):
        parse(JOBS[job].config, ["--help"])
    assert "{date:%Y/%m/%d}" in capsys.readouterr().out
