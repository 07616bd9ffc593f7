"""Command line → config → exit code, for every job; it knows no job."""

import argparse
import difflib
import re
import signal
import sys
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from ser_core.errors import RunError, UsageError

Config = TypeVar("Config", bound=BaseModel)


def run(
    config_class: type[Config], job: Callable[[Config], object], argv: Sequence[str] | None = None
) -> int:
    """Runs a job and returns the command's exit code.

    0: done. 1: the run did not finish, the same command continues it. 2: the command cannot run
    as written. A bug is not caught: its traceback is what one needs, and Python exits with 1.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a cluster that goes away says so
    try:
        job(parse(config_class, sys.argv[1:] if argv is None else argv))
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except RunError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped; the same command goes on from here", file=sys.stderr)
        return 1
    return 0


def parse(config_class: type[Config], argv: Sequence[str]) -> Config:
    """The config that flags, and the YAML file named by ``--config``, ask for; flags win.

    Raises:
        UsageError: an unknown or missing flag, or a value that doesn't fit, in one line.
    """
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--config")
    known, rest = first.parse_known_args(argv)
    if {"-h", "--help"} & set(argv):
        print("--config FILE: a YAML file with any of these settings; flags win over it\n")
    try:
        from_file = _read_yaml(known.config) if known.config else {}
        return _flags_of(config_class)(_cli_parse_args=rest, **from_file)
    except SettingsError as error:
        raise UsageError(_flag_error(config_class, str(error))) from None
    except ValidationError as error:
        first_error = error.errors()[0]
        name = ".".join(map(str, first_error["loc"]))
        words = f"{_flag(name)} {first_error['input']}: {first_error['msg']}"
        raise UsageError(words if first_error["type"] != "missing" else _missing(name)) from None


def _flags_of(config_class: type[Config]) -> type[Config]:
    """The config as pydantic-settings reads it: from flags first, then from what it is given."""

    class Flags(config_class, BaseSettings):  # type: ignore[misc, valid-type]
        __doc__ = config_class.__doc__
        model_config = SettingsConfigDict(
            cli_kebab_case=True,
            cli_implicit_flags=True,
            cli_hide_none_type=True,
            cli_exit_on_error=False,
            cli_enforce_required=False,  # the YAML file may give it
        )

        @classmethod
        def settings_customise_sources(  # type: ignore[override]
            cls, _: type[BaseSettings], init_settings: PydanticBaseSettingsSource, **__: Any
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            return (init_settings,)  # and nothing from the environment

    return Flags


def _read_yaml(path: str) -> dict[str, Any]:
    try:
        with open(path, encoding="utf-8") as file:
            content = yaml.safe_load(file)
    except (OSError, yaml.YAMLError) as error:
        words = " ".join(str(error).split())
        raise UsageError(f"--config {path}: cannot be read ({words})") from None
    if not isinstance(content, dict):
        raise UsageError(f"--config {path}: not a mapping of settings to values")
    return {key.replace("-", "_"): value for key, value in content.items()}


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _missing(name: str) -> str:
    return f"{_flag(name)} is missing; --help lists the flags"


def _flag_error(config_class: type[BaseModel], words: str) -> str:
    words = words.removeprefix("error parsing CLI: ")
    unknown = re.match(r"unrecognized arguments: (--[\w-]+)", words)
    flags = [_flag(name) for name in config_class.model_fields]
    close = difflib.get_close_matches(unknown[1], flags, n=1) if unknown else []
    return f"{words}; {f'did you mean {close[0]}?' if close else '--help lists the flags'}"
