"""What a command has written without a terminal: lines that begin with a time."""

import re

_LINE = r"(?:\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ )?(.*)"


def messages(text: str) -> list[str]:
    """The lines without their times, which what precedes the log has not."""
    return [re.fullmatch(_LINE, line)[1] for line in text.splitlines()]


def error(text: str) -> str:
    """The one error of a command, which is its last line."""
    *others, last = messages(text)
    assert last.startswith("error: "), text
    assert not any(line.startswith(("error: ", "Traceback")) for line in others), text
    return last
