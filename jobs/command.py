"""Command line → config → exit code, the same for every job; it knows no job."""

import argparse
import functools
import logging
import signal
import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn, TypeVar, get_origin

import yaml
from pydantic import BaseModel, Field, ValidationError
from pydantic_settings import (
    BaseSettings,
    CliSettingsSource,
    SettingsConfigDict,
    SettingsError,
    YamlConfigSettingsSource,
)

from jobs.dates import expand_dates, parse_date
from jobs.start import STOPPED
from ser_core.console import say
from ser_core.errors import CheckError, RunError, UsageError, exit_code, hint, one_line
from ser_core.log import LogFormat, logged, open_log
from ser_core.versions import installed_version

Config = TypeVar("Config", bound=BaseModel)


class LogSettings(BaseModel):
    """The settings of every command that its job does not know: they change no result."""

    log_file: str | None = Field(
        None, min_length=1, description="append the lines of the run to this file, too"
    )
    log_format: LogFormat = Field(
        "text", description="of lines in the log file and without a terminal; json has counts"
    )


def run(
    config_class: type[Config],
    job: Callable[[Config], object],
    argv: Sequence[str] | None = None,
    prog: str | None = None,
) -> int:
    """Runs a job and returns the exit code of the command, which `exit_code` defines.

    A bug is not caught, so that its traceback is seen; Python then exits with 1.

    Args:
        config_class: what the flags are made from.
        job: called with the config, once the flags are known to be right.
        argv: the flags; those of this process by default.
        prog: the name of the command in ``--help``.
    """

    def command() -> None:
        config, log = parse_all(config_class, sys.argv[1:] if argv is None else argv, prog)
        live = not getattr(config, "verbose", False)  # which shows the output of others
        with logged(open_log(log.log_file, log.log_format, live)):
            codes.append(_exit_code(functools.partial(job, config)))

    codes = list[int]()
    return _exit_code(command) or codes[0]


def _exit_code(call: Callable[[], object]) -> int:
    """Makes a call, says why it ended if it raised an error, and returns the code for that."""
    try:
        call()
    except (UsageError, CheckError) as error:
        say(one_line(error), logging.ERROR)
        return exit_code(error)
    except RunError as error:
        say(str(error), logging.ERROR)  # one line, or a bug's traceback
        return exit_code(error)
    except KeyboardInterrupt as error:
        say(STOPPED)
        return exit_code(error)
    return exit_code(None)


@contextmanager
def interruptible() -> Iterator[None]:
    """Within it, Ctrl-C and SIGTERM, with which a cluster asks a job to stop, are exceptions."""
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, signal.default_int_handler) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler or signal.SIG_DFL)  # None: not set by Python


def parse(config_class: type[Config], argv: Sequence[str], prog: str | None = None) -> Config:
    """The config alone of `parse_all`."""
    return parse_all(config_class, argv, prog)[0]


def parse_all(
    config_class: type[Config], argv: Sequence[str], prog: str | None = None
) -> tuple[Config, LogSettings]:
    """Builds the configs from flags and from the YAML file that ``--config`` names; flags win.

    In both, ``{date}`` stands for ``--date``.

    Raises:
        UsageError: a flag or setting is unknown, missing or invalid; the message is one line.
        SystemExit: ``--help`` or ``--version`` was given and has been printed.
    """
    settings = _settings_class(config_class)
    parser = _parser(config_class, prog)
    flags = CliSettingsSource[argparse.ArgumentParser](
        settings,
        root_parser=parser,
        add_argument_method=functools.partial(_add_argument, _lists(config_class)),
    )
    known, unknown = parser.parse_known_args(list(argv))
    if unknown:
        raise UsageError(_unknown_flag(unknown[0].split("=")[0], config_class))
    path, day = vars(known).pop("config"), parse_date(vars(known).pop("date"))
    values = {} if path is None else _read_yaml(settings, config_class, path)
    # Not through the source, which would split them at commas and read them as JSON.
    lists = {name: vars(known).pop(name) for name in _lists(config_class) if name in known}
    try:
        flags(parsed_args=known)
        given = values | flags() | lists
        dated = {name: expand_dates(_flag(name), value, day) for name, value in given.items()}
        log = {name: dated.pop(name) for name in LogSettings.model_fields if name in dated}
        return config_class.model_validate(dated), LogSettings.model_validate(log)
    except ValidationError as error:
        raise UsageError(_invalid(error)) from None
    except SettingsError as error:
        raise UsageError(one_line(error)) from None


def _parser(config_class: type[BaseModel], prog: str | None) -> argparse.ArgumentParser:
    """The parser of what every job has; the flags of its config are added to it."""
    parser = _Parser(prog=prog, description=config_class.__doc__, allow_abbrev=False)
    parser.add_argument(
        "--config", metavar="FILE", help="YAML file with any of these settings; flags win over it"
    )
    parser.add_argument(
        "--date",
        metavar="DATE",
        help="what {date} in any setting stands for, as 2026-11-27; by default today, in UTC."
        " {date-1} is the day before, {date:%%Y/%%m/%%d} another format",
    )
    add_version(parser)
    return parser


def add_version(parser: argparse.ArgumentParser) -> None:
    """Adds ``--version``."""
    version = f"ser-batch {installed_version('ser-batch')}"
    parser.add_argument("--version", action="version", version=version, help="print the version")


def _lists(config_class: type[BaseModel]) -> list[str]:
    """The settings that have several values."""
    fields = config_class.model_fields.items()
    return [name for name, field in fields if get_origin(field.annotation) is tuple]


def _add_argument(
    lists: Collection[str], parser: argparse.ArgumentParser, *names: str, **how: Any
) -> argparse.Action:
    """Adds a flag; one of a list may be repeated, and takes several values each time."""
    if how["dest"] in lists:
        item = str(how["metavar"]).removeprefix("tuple[").removesuffix(",...]")
        how |= {"action": "extend", "nargs": "+", "metavar": item}
    return parser.add_argument(*names, **how)


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are one line without the usage."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}; --help lists the flags")


def _settings_class(config_class: type[Config]) -> type[BaseSettings]:
    """The config class in the form that the sources of pydantic-settings take."""

    class Settings(LogSettings, config_class, BaseSettings):  # type: ignore[misc, valid-type]
        model_config = SettingsConfigDict(
            case_sensitive=True,
            cli_kebab_case=True,
            cli_implicit_flags=True,
            cli_hide_none_type=True,
            cli_enforce_required=False,  # the YAML file may have it
        )

    return Settings


def _read_yaml(
    settings: type[BaseSettings], config_class: type[BaseModel], path: str
) -> dict[str, Any]:
    """The settings in a file, whose keys may be spelled like flags, ``batch-size``, or like Python.

    By hand, because pydantic-settings offers kebab case for flags and not for files.
    """
    if not Path(path).is_file():  # the source would silently skip it
        raise UsageError(f"--config {path}: there is no such file")
    try:
        content = YamlConfigSettingsSource(settings, Path(path), yaml_file_encoding="utf-8")()
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"--config {path}: cannot be read ({one_line(error)})") from None
    except (TypeError, ValueError):  # what the source raises where the file holds a list or a text
        raise UsageError(f"--config {path}: not a mapping of settings to values") from None
    values: dict[str, Any] = {}
    for key, value in content.items():
        name = str(key).replace("-", "_")
        if name not in _fields(config_class):
            known = [field.replace("_", "-") for field in _fields(config_class)]
            suggestion = hint(name.replace("_", "-"), known, "--help lists the settings")
            raise UsageError(f"--config {path}: there is no setting {key}; {suggestion}")
        if name in values:
            raise UsageError(f"--config {path}: {key} is set twice")
        values[name] = value
    return values


def _invalid(errors: ValidationError) -> str:
    """The first error in one line."""
    error = errors.errors()[0]
    reason = str(error.get("ctx", {}).get("error") or error["msg"])
    if not error["loc"]:
        return reason
    name = _flag(str(error["loc"][0]))
    if error["type"] == "missing":
        return f"{name} is missing; --help lists the flags"
    return one_line(f"{name} {error['input']}: {reason}")


def _unknown_flag(flag: str, config_class: type[BaseModel]) -> str:
    flags = [*map(_flag, _fields(config_class)), "--config", "--date", "--help", "--version"]
    return f"unrecognized argument {flag}; {hint(flag, flags, '--help lists the flags')}"


def _fields(config_class: type[BaseModel]) -> list[str]:
    """The names of all settings."""
    return [*config_class.model_fields, *LogSettings.model_fields]


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"
