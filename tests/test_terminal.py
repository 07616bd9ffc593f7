"""On a terminal, a live line that leaves nothing behind, with messages above it."""

import fcntl
import os
import pty
import re
import struct
import sys
import termios
import threading
from contextlib import contextmanager, suppress

from ser_core.console import phase, progress, say, show
from ser_core.log import logged, open_log


@contextmanager
def terminal(monkeypatch, width=60):
    """Standard error is a terminal; yields a list that has what was written to it in the end."""
    controller, end = pty.openpty()
    size = struct.pack("HHHH", 24, width, 0, 0)
    fcntl.ioctl(end, termios.TIOCSWINSZ, size)
    written, parts = [], []

    def read():
        with suppress(OSError):  # nobody has it open any more
            while True:
                parts.append(os.read(controller, 1 << 16))

    reader = threading.Thread(target=read)
    with open(end, "w") as stream, monkeypatch.context() as patch:
        reader.start()
        patch.setattr(sys, "stderr", stream)
        patch.setenv("COLUMNS", str(width))
        yield written
    reader.join()
    os.close(controller)
    written.append(b"".join(parts).decode())


def screen(written):
    """The lines that are seen in the end: the live line was erased."""
    lines = [""]
    for part in re.split(r"(\r\n|\r|\n|\x1b\[[0-9;?]*[A-Za-z])", written):
        if part in ("\n", "\r\n"):
            lines.append("")
        elif part == "\x1b[2K":
            lines[-1] = ""
        elif part == "\x1b[1A":
            lines.pop()
        elif not part.startswith(("\r", "\x1b")):
            lines[-1] += part
    return [line for line in lines if line]


def test_phases_are_a_live_line_and_messages_stay(monkeypatch):
    with terminal(monkeypatch) as written, logged(open_log(None, "text")):
        phase("loading the checkpoint")
        say("37 recordings [a]")
        progress("5 of 37 recordings", 5, 37)
    assert "loading the checkpoint" in written[0]
    assert "5 of 37 recordings" in written[0]
    assert "━" in written[0]  # a bar
    assert screen(written[0]) == ["37 recordings [a]"]
    cursor = [written[0].rindex(f"\x1b[?25{state}") for state in "lh"]
    assert cursor == sorted(cursor), "the cursor is shown again"


def test_a_long_line_is_cut_instead_of_wrapped(monkeypatch):
    with terminal(monkeypatch) as written, logged(open_log(None, "text")):
        phase("x" * 200)
    frames = re.split(r"\x1b\[[0-9;?]*[A-Za-z]|[\r\n]", written[0])
    assert 40 < max(map(len, frames)) <= 60
    assert written[0].count("\x1b[1A") == 1  # to erase it: there is no second line


def test_the_live_line_is_gone_before_a_result_is_printed(monkeypatch):
    with terminal(monkeypatch) as written, logged(open_log(None, "text")):
        phase("computing")
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", sys.stderr)  # the same terminal
            show("UAR 0.5")
        say("a message")
    assert screen(written[0]) == ["UAR 0.5", "a message"]


def test_standard_output_is_left_alone(monkeypatch, capsys):
    with terminal(monkeypatch) as written, logged(open_log(None, "text")):
        phase("computing")
        print("from a library")
        show("UAR 0.5")
    assert capsys.readouterr().out == "from a library\nUAR 0.5\n"
    assert "library" not in written[0]


def test_json_on_a_terminal_has_no_live_line_unless_a_file_takes_it(monkeypatch, tmp_path):
    with terminal(monkeypatch) as written, logged(open_log(None, "json")):
        phase("loading")
    assert re.fullmatch(r'\{"time": .*"loading"\}\r\n', written[0])
    file = tmp_path / "log"
    with terminal(monkeypatch) as written, logged(open_log(str(file), "json")):
        phase("starting")
    assert "starting" in written[0]
    assert "{" not in written[0]
    assert '"starting"' in file.read_text()


def test_output_of_others_is_not_disturbed(monkeypatch):
    with terminal(monkeypatch) as written, logged(open_log(None, "text", live=False)):
        phase("starting Ray")
    assert re.fullmatch(r"\S+Z starting Ray\r\n", written[0])


def test_a_terminal_that_is_gone_does_not_end_the_job(monkeypatch):
    controller, end = pty.openpty()
    with open(end, "w") as stream:
        monkeypatch.setattr(sys, "stderr", stream)
        with logged(open_log(None, "text")):
            phase("loading")
            os.close(controller)
            progress("1 of 2", 1, 2)
            say("a line")
        monkeypatch.undo()


def test_rich_is_not_asked_whether_it_is_a_terminal(monkeypatch, capsys):
    """CI systems set these variables, and keep what is written."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    with logged(open_log(None, "text")):
        progress("1 of 2", 1, 2, last=True)
    assert re.fullmatch(r"\S+Z 1 of 2\n", capsys.readouterr().err)
