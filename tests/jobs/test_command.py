"""Flags, YAML and exit codes."""

import json

import pytest

from jobs.command import parse, run
from ser_core.console import say
from ser_core.errors import CheckError, CorpusError, RunError, UsageError
from ser_core.labeling.config import DEFAULT_MODEL, LabelConfig
from tests.log_lines import messages

NEEDED = ["--input", "in", "--output", "out"]


def usage_error(argv):
    with pytest.raises(UsageError) as caught:
        parse(LabelConfig, argv)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def yaml_file(tmp_path):
    """Writes a settings file and returns the flags that name it."""

    def write(content: str | bytes) -> list[str]:
        path = tmp_path / "nightly.yaml"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return ["--config", str(path)]

    return write


def test_defaults():
    config = parse(LabelConfig, NEEDED)
    assert type(config) is LabelConfig  # and not a class that no other process can import
    assert (config.input, config.output, config.model) == (("in",), "out", DEFAULT_MODEL)
    assert (config.precision, config.segments) == ("auto", "first")


def test_environment_variables_are_ignored(monkeypatch):
    monkeypatch.setenv("MODEL", "other")
    monkeypatch.setenv("PRECISION", "fp16")
    config = parse(LabelConfig, NEEDED)
    assert (config.model, config.precision) == (DEFAULT_MODEL, "auto")


@pytest.mark.parametrize("key", ["max-failed-fraction", "max_failed_fraction"])
def test_yaml_keys_may_be_spelled_like_flags_or_like_python(key, yaml_file):
    config = parse(LabelConfig, yaml_file(f"input: a\noutput: b\n{key}: 0.1\n"))
    assert (config.input, config.output, config.max_failed_fraction) == (("a",), "b", 0.1)


def test_flags_win_over_yaml(yaml_file):
    argv = yaml_file("input: a\noutput: b\nbatch-size: 4\nverbose: true\nsegments: all\n")
    config = parse(LabelConfig, [*argv, "--output", "c", "--batch-size", "8", "--no-verbose"])
    assert (config.input, config.output, config.batch_size) == (("a",), "c", 8)
    assert (config.verbose, config.segments) == (False, "all")


def test_yaml_is_read_as_utf8(yaml_file):
    assert parse(LabelConfig, yaml_file("input: 高兴\noutput: b\n")).input == ("高兴",)


# What shells and pydantic-settings would split, unquote or read as JSON.
ODD = ["a,b.wav", "{0..3}.tar", "{a,b}", "[x]", '"q"', "null", "a b", "\\", "3"]


@pytest.mark.parametrize("flag", ["--input", "--include"])
@pytest.mark.parametrize("repeated", [False, True])
def test_a_list_is_given_at_once_or_by_repeating_the_flag(flag, repeated):
    argv = [part for text in ODD for part in (flag, text)] if repeated else [flag, *ODD]
    needed = ["--output", "out"] if flag == "--input" else NEEDED
    for config in parse(LabelConfig, [*argv, *needed]), parse(LabelConfig, [*needed, *argv]):
        assert getattr(config, flag.removeprefix("--")) == tuple(ODD)
        assert config.output == "out"


def test_a_list_of_words():
    argv = [*NEEDED, "--retry", "timeout", "crashed", "--retry", "too_large"]
    assert parse(LabelConfig, argv).retry == ("timeout", "crashed", "too_large")
    assert "--retry zzz: Input should be 'decode_error'" in usage_error([*argv, "zzz"])


def test_a_list_in_yaml(yaml_file):
    argv = yaml_file('input: [a, "b,c"]\ninclude: "*.raw"\noutput: b\n')
    config = parse(LabelConfig, argv)
    assert (config.input, config.include) == (("a", "b,c"), ("*.raw",))
    config = parse(LabelConfig, [*argv, "--input", "d"])
    assert (config.input, config.include) == (("d",), ("*.raw",))


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--output", "o"], "--input is missing"),
        ([*NEEDED, "--precison", "fp32"], "did you mean --precision?"),
        ([*NEEDED, "--precison=fp32"], "did you mean --precision?"),
        ([*NEEDED, "--zzz"], "unrecognized argument --zzz; --help lists the flags"),
        ([*NEEDED, "--precision", "int4"], "--precision int4: Input should be 'auto'"),
        ([*NEEDED, "--batch-size", "0"], "--batch-size 0"),
        (["--input", "", "--output", "out"], "--input : is blank; is a variable unset?"),
        (["--input", "in", " ", "--output", "out"], "--input : is blank"),
        (["--input", "--output", "out"], "--input: expected at least one argument"),
        ([*NEEDED, "--include", ""], "--include : is blank"),
        ([*NEEDED, "--path-column="], "--path-column : String should have at least 1 character"),
        (["--input", "in", "--output", ""], "--output : String should have at least 1 character"),
        ([*NEEDED, "--model="], "--model : String should have at least 1 character"),
        ([*NEEDED, "--max-failed-fraction", "2"], "--max-failed-fraction 2"),
        (["--input", "in", "--output"], "--output: expected one argument"),
        (["--config", "/nowhere.yaml"], "--config /nowhere.yaml: there is no such file"),
        ([*NEEDED, "--config", ""], "--config : there is no such file"),
        ([*NEEDED, "--part-seconds", "inf"], "--part-seconds inf: Input should be less than"),
        ([*NEEDED, "--part-seconds", "nan"], "--part-seconds nan: Input should be less than"),
        ([*NEEDED, "--decode-timeout", "inf"], "--decode-timeout inf: Input should be less than"),
        ([*NEEDED, "--decode-timeout", "0"], "--decode-timeout 0: Input should be greater than 0"),
        ([*NEEDED, "--decode-memory", "17179869184"], "--decode-memory 17179869184: Input should"),
    ],
)
def test_a_bad_command_names_the_flag(argv, message):
    assert message in usage_error(argv)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("inputs: a\noutput: b\ninput: c\n", "no setting inputs; did you mean input?"),
        ("max-failed-fractions: 1\noutput: b\ninput: c\n", "did you mean max-failed-fraction?"),
        ("max_failed_fractoin: 1\n", "no setting max_failed_fractoin; did you mean max-failed-"),
        ("inptu: a\noutput: b\n", "no setting inptu; did you mean input?"),  # and none is missing
        ("batch-size: 1\nbatch_size: 2\ninput: a\noutput: b\n", "batch-size is set twice"),
        ("input: {folder: a}\noutput: b\n", "--input {'folder': 'a'}: Input should be a valid tup"),
        ("input:\noutput: b\n", "--input None: Input should be a valid tuple"),
        ("input: []\noutput: b\n", "--input []: Tuple should have at least 1 item"),
        ("input: [a, 3]\noutput: b\n", "--input 3: Input should be a valid string"),
        ("input: ''\noutput: b\n", "--input : is blank"),
        ("zzz: a\noutput: b\ninput: c\n", "no setting zzz; --help lists the settings"),
        ("1: a\noutput: b\ninput: c\n", "no setting 1; --help"),
        ("output: b\n", "--input is missing"),
        ("", "--input is missing"),
        ("input: a\noutput: b\nprecision: int4\n", "--precision int4"),
        ("input: a\noutput: b\nbatch-size: [1, 2]\n", "--batch-size [1, 2]"),
        ("- a\n", "not a mapping of settings to values"),
        ("just a text\n", "not a mapping of settings to values"),
        ("3\n", "not a mapping of settings to values"),
        ("input: [a\n", "cannot be read (while parsing a flow sequence"),
        (b"input: \xff\n", "cannot be read ("),
    ],
)
def test_a_bad_settings_file(content, message, yaml_file):
    assert message in usage_error(yaml_file(content))


def test_a_folder_as_settings_file(tmp_path):
    assert "there is no such file" in usage_error(["--config", str(tmp_path)])


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (None, 0),
        (RunError("stop"), 1),
        (KeyboardInterrupt(), 1),
        (CorpusError("--input x"), 2),
        (CheckError("1 of 3 recordings have no label"), 3),
    ],
)
def test_exit_codes(error, code, capsys):
    def job(_):
        if error:
            raise error

    assert run(LabelConfig, job, NEEDED) == code
    assert capsys.readouterr().err.count("\n") == (code != 0)


@pytest.mark.parametrize("kind", [CorpusError, RunError])
def test_an_error_is_printed_without_credentials(kind, capsys):
    def job(_):
        raise kind("--input ftp://me:secret@host/a and https://host/b?X-Amz-Signature=5ec2e7")

    assert run(LabelConfig, job, NEEDED) in (1, 2)
    (line,) = messages(capsys.readouterr().err)
    assert line == "error: --input ftp://***@host/a and https://host/b?X-Amz-Signature=***"


def test_the_traceback_of_a_bug_in_another_process_keeps_its_lines(capsys):
    def job(_):
        raise RunError("a bug stopped the run\nTraceback (most recent call last):\n  ...")

    assert run(LabelConfig, job, NEEDED) == 1
    assert messages(capsys.readouterr().err)[1] == "Traceback (most recent call last):"


def test_the_job_does_not_start_when_a_flag_is_wrong(capsys):
    assert run(LabelConfig, pytest.fail, ["--output", "o"]) == 2
    assert capsys.readouterr().err == "error: --input is missing; --help lists the flags\n"


@pytest.mark.parametrize("from_yaml", [False, True])
def test_the_log_has_what_a_job_says_and_why_it_ended(from_yaml, tmp_path, capsys):
    log, settings = tmp_path / "run.jsonl", tmp_path / "settings.yaml"
    settings.write_text(f"log-file: {log}\nlog_format: json\n")
    flags = ["--config", str(settings)]
    if not from_yaml:
        flags = ["--log-file", str(log), "--log-format", "json"]

    def job(config):
        assert type(config) is LabelConfig  # without the settings of the log
        say("working")
        raise RunError("storage is away")

    assert run(LabelConfig, job, [*NEEDED, *flags]) == 1
    assert log.read_text() == capsys.readouterr().err
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [(line["level"], line["message"]) for line in lines] == [
        ("info", "working"),
        ("error", "storage is away"),
    ]


def test_a_log_file_that_cannot_be_written_ends_the_command_before_the_job(tmp_path, capsys):
    flags = ["--log-file", str(tmp_path / "missing" / "log")]
    assert run(LabelConfig, pytest.fail, [*NEEDED, *flags]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: --log-file {tmp_path}/missing/log: it cannot be written (")


def test_a_bug_keeps_its_traceback():
    def job(_):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run(LabelConfig, job, NEEDED)


def test_help_lists_every_setting(capsys):
    with pytest.raises(SystemExit) as caught:
        parse(LabelConfig, ["--help"], prog="ser-batch label")
    assert caught.value.code == 0
    text = capsys.readouterr().out
    assert text.startswith("usage: ser-batch label ")
    assert "--config FILE" in text
    for name, field in LabelConfig.model_fields.items():
        assert f"--{name.replace('_', '-')}" in text
        assert field.description.split()[0] in text
