"""Calls in threads: few threads, whose callers wait no longer than they must."""

import gc
import os
import signal
import threading
import time
import weakref
from contextlib import suppress

import pytest

from ser_core.storage.threads import call_in_thread


def fail():
    raise KeyError("x")


def test_what_a_call_returns_or_raises():
    assert call_in_thread(lambda: 5, 30) == 5
    assert call_in_thread(lambda: None, 30) is None
    with pytest.raises(KeyError):
        call_in_thread(fail, 30)


def test_threads_are_used_again():
    before = threading.active_count()
    for _ in range(300):
        call_in_thread(threading.current_thread, 30)
    assert threading.active_count() <= before + 1


def test_a_call_that_hangs_is_given_up_and_holds_no_other():
    ended = threading.Event()
    started = time.monotonic()
    for _ in range(3):
        with pytest.raises(TimeoutError):
            call_in_thread(ended.wait, 0.05)
    assert time.monotonic() - started < 30
    assert call_in_thread(lambda: 5, 30) == 5
    ended.set()


def test_ctrl_c_is_not_held_up():
    ended, started = threading.Event(), time.monotonic()
    threading.Timer(0.1, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        call_in_thread(ended.wait, 60)
    ended.set()
    assert time.monotonic() - started < 30


@pytest.mark.parametrize("raised", [False, True])
def test_nothing_of_a_call_is_kept(raised):
    class Content:
        pass

    def fetch():
        content = Content()
        kept.append(weakref.ref(content))
        if raised:
            raise ValueError(content)
        return content

    kept = []
    with suppress(ValueError):
        call_in_thread(fetch, 30)
    deadline = time.monotonic() + 30
    while kept[0]() is not None and time.monotonic() < deadline:  # the thread may still be at it
        gc.collect()
    assert kept[0]() is None
