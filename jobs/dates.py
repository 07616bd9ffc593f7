"""``{date}`` in the settings of any job → a date."""

import re
from datetime import UTC, date, datetime, timedelta

from ser_core.errors import UsageError

_BRACES = re.compile(r"\{date(?P<days>[+-]\d+)?(?::(?P<format>[^{}]*))?\}")
_LOOKS_LIKE_ONE = re.compile(r"\{date[^{},]*\}", re.IGNORECASE)  # with a comma: alternatives
_NOT_OF_A_DATE = re.compile(r"%(?!-?[YymdjGVu%])")
_REMEDY = "write {date}, {date-1} for the day before, or {date:%Y/%m/%d}"


def parse_date(text: str | None) -> date:
    """The date that ``--date`` gives; today in UTC if it is not given.

    Raises:
        UsageError: it is no date.

    >>> parse_date("2026-11-27")
    datetime.date(2026, 11, 27)
    """
    if text is None:
        return datetime.now(UTC).date()
    try:
        return datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC).date()
    except ValueError:
        raise UsageError(f"--date {text}: not a date such as 2026-11-27") from None


def expand_dates(flag: str, value: object, day: date) -> object:
    """A setting with its dates spelled out; what is no text stays as it is.

    Args:
        flag: that gives the setting, for messages.
        value: the setting, or several.
        day: the date of the run.

    Raises:
        UsageError: something in braces looks like a date and is none.

    >>> expand_dates("--input", "calls/{date-1:%Y/%m}/{0..9}", date(2026, 12, 1))
    'calls/2026/11/{0..9}'
    """
    if isinstance(value, list | tuple):
        return [expand_dates(flag, each, day) for each in value]
    if not isinstance(value, str):
        return value
    try:
        expanded = _BRACES.sub(lambda braces: _formatted(braces, day), value)
    except (OverflowError, ValueError):
        raise UsageError(f"{flag} {value}: {_REMEDY}") from None
    if _LOOKS_LIKE_ONE.search(_BRACES.sub("", value)):
        raise UsageError(f"{flag} {value}: {_REMEDY}")
    return expanded


def _formatted(braces: re.Match[str], day: date) -> str:
    """The date of one pair of braces.

    Raises:
        ValueError: its format has other parts than those of a date.
        OverflowError: there is no such date.
    """
    form = braces["format"]
    if form is not None and (not form or _NOT_OF_A_DATE.search(form)):
        raise ValueError(form)
    day += timedelta(days=int(braces["days"] or 0))
    return day.isoformat() if form is None else day.strftime(form)
