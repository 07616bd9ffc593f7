"""Flags, YAML and exit codes."""

import pytest

from jobs.command import parse, run
from ser_core.errors import CorpusError, RunError, UsageError
from ser_core.labeling.config import DEFAULT_MODEL, LabelConfig

NEEDED = ["--input", "in", "--output", "out"]


def refusal(argv):
    with pytest.raises(UsageError) as caught:
        parse(LabelConfig, argv)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_defaults():
    config = parse(LabelConfig, NEEDED)
    assert (config.input, config.output, config.model) == ("in", "out", DEFAULT_MODEL)
    assert (config.precision, config.segments) == ("auto", "first")


def test_nothing_comes_from_the_environment(monkeypatch):
    monkeypatch.setenv("MODEL", "other")
    monkeypatch.setenv("PRECISION", "fp16")
    config = parse(LabelConfig, NEEDED)
    assert (config.model, config.precision) == (DEFAULT_MODEL, "auto")


def test_yaml_and_flags_that_win_over_it(tmp_path):
    (tmp_path / "nightly.yaml").write_text("input: a\noutput: b\nmax-failed-fraction: 0.1\n")
    config = parse(LabelConfig, ["--config", str(tmp_path / "nightly.yaml"), "--output", "c"])
    assert (config.input, config.output, config.max_failed_fraction) == ("a", "c", 0.1)


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--output", "o"], "--input is missing"),
        ([*NEEDED, "--precison", "fp32"], "did you mean --precision?"),
        ([*NEEDED, "--precision", "int4"], "--precision int4"),
        ([*NEEDED, "--batch-size", "0"], "--batch-size 0"),
        ([*NEEDED, "--max-failed-fraction", "2"], "--max-failed-fraction 2"),
        (["--config", "/nowhere.yaml"], "--config /nowhere.yaml"),
    ],
)
def test_bad_commands_name_the_flag(argv, words):
    assert words in refusal(argv)


def test_unknown_setting_in_yaml(tmp_path):
    (tmp_path / "x.yaml").write_text("inputs: a\noutput: b\ninput: c\n")
    assert "--inputs" in refusal(["--config", str(tmp_path / "x.yaml")])
    (tmp_path / "x.yaml").write_text("- a\n")
    assert "not a mapping" in refusal(["--config", str(tmp_path / "x.yaml")])


@pytest.mark.parametrize(
    ("error", "code"),
    [(None, 0), (CorpusError("no\nway"), 2), (RunError("stop"), 1), (KeyboardInterrupt(), 1)],
)
def test_exit_codes(error, code, capsys):
    def job(_):
        if error:
            raise error

    assert run(LabelConfig, job, NEEDED) == code
    assert bool(capsys.readouterr().err) == (code != 0)


def test_a_bug_is_not_dressed_up():
    def job(_):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run(LabelConfig, job, NEEDED)


def test_help_lists_every_setting(capsys):
    with pytest.raises(SystemExit) as caught:
        parse(LabelConfig, ["--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    for name, field in LabelConfig.model_fields.items():
        assert f"--{name.replace('_', '-')}" in text
        assert field.description.split()[0] in text
