"""Opening files, and the status of each reason why one cannot be opened."""

import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import fsspec
import pytest
from misbehaving_store import BUCKET

from ser_core.errors import RecordingError, Status
from ser_core.storage.reading import Stopwatch, open_file, open_table

MARGIN = 30.0  # s that a busy machine may add to a deadline; the usual one is 60


def status_of(path):
    with pytest.raises(RecordingError) as caught, open_file(str(path)):
        pass
    return caught.value.status, str(caught.value)


def test_a_missing_file(tmp_path):
    assert status_of(tmp_path / "gone.wav")[0] is Status.NOT_FOUND


def test_a_dangling_link(tmp_path):
    (tmp_path / "x.wav").symlink_to(tmp_path / "nowhere.wav")
    status, reason = status_of(tmp_path / "x.wav")
    assert status is Status.NOT_FOUND
    assert "link" in reason


def test_a_pipe_is_refused_without_waiting(tmp_path):
    os.mkfifo(tmp_path / "x.wav")
    status, reason = status_of(tmp_path / "x.wav")
    assert status is Status.DECODE_ERROR
    assert "regular file" in reason


def test_a_file_without_read_permission(tmp_path):
    """Runs in a process that gives up root permissions, since root can read any file."""
    path = tmp_path / "x.wav"
    path.write_bytes(b"RIFF")
    path.chmod(0)
    for folder in [tmp_path, *tmp_path.parents][:3]:
        folder.chmod(folder.stat().st_mode | 0o055)
    code = (
        "import sys; from ser_core.errors import RecordingError\n"
        "import os; from ser_core.storage.reading import open_file\n"
        "if os.geteuid() == 0: os.seteuid(65534)\n"
        "try:\n"
        "    with open_file(sys.argv[1]): print('opened')\n"
        "except RecordingError as error: print(error.status)\n"
    )
    command = [sys.executable, "-c", code, str(path)]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "permission_denied"


def test_a_disk_that_fails_is_not_a_bad_recording(tmp_path):
    (tmp_path / "x.wav").symlink_to("/proc/self/mem")  # a regular file, which cannot be read
    with pytest.raises(RecordingError) as caught, open_file(str(tmp_path / "x.wav")):
        raise RecordingError(Status.DECODE_ERROR, "what a decoder makes of it")
    assert caught.value.status is Status.UNAVAILABLE
    (tmp_path / "y.wav").write_bytes(b"no audio")
    with pytest.raises(RecordingError, match="bad") as caught, open_file(str(tmp_path / "y.wav")):
        raise RecordingError(Status.DECODE_ERROR, "bad")
    assert caught.value.status is Status.DECODE_ERROR


# ---- a store that misbehaves ---------------------------------------------------------------------


def read(key, size=None):
    with open_file(f"s3://{BUCKET}/{key}", size) as handle:
        return handle.read()


def timed(call, *args):
    """What a call returns or raises, and how long it took."""
    started = time.monotonic()
    try:
        result = call(*args)
    except RecordingError as error:
        result = error
    return result, time.monotonic() - started


@pytest.mark.parametrize("deadline", [0.5], indirect=True)
@pytest.mark.parametrize("fault", ["silent", "drip"])
@pytest.mark.parametrize("size", [None, 10_000], ids=["size unknown", "size known"])
def test_an_object_that_never_arrives_is_unavailable(store, deadline, fault, size):
    store.objects = {"dead.wav": bytes(10_000)}
    store.fault = lambda *_: fault
    error, seconds = timed(read, "dead.wav", size)
    assert error.status is Status.UNAVAILABLE
    assert f"no complete answer within {deadline:g} s" in str(error)
    assert 0.9 * deadline < seconds < 2 * deadline + MARGIN  # the size, and the content


def test_an_object_that_does_not_arrive_holds_no_other(store):
    arrived = threading.Event()
    store.objects = {"late.wav": b"late", "good.wav": b"good"}
    store.fault = lambda key, _: arrived.wait() and None if key == "late.wav" else None
    with ThreadPoolExecutor(1) as pool:
        late = pool.submit(read, "late.wav", 4)
        try:
            assert [read("good.wav") for _ in range(20)] == [b"good"] * 20
            assert not late.done()
        finally:
            arrived.set()
        assert late.result() == b"late"


@pytest.mark.parametrize("deadline", [8.0], indirect=True)  # a busy machine may add 3 s
def test_slow_is_not_dead(store, deadline):
    store.objects = {"slow.wav": os.urandom(100_000)}
    store.fault = lambda *_: 0.6 * deadline
    content, seconds = timed(read, "slow.wav", 100_000)
    assert content == store.objects["slow.wav"]
    assert seconds > 0.5 * deadline


@pytest.mark.parametrize("status", [500, 503])
def test_a_busy_store_is_asked_again(store, status):
    store.objects = {"x.wav": b"content"}
    store.fault = lambda _, attempt: status if attempt <= 2 else None
    assert read("x.wav", 7) == b"content"


@pytest.mark.parametrize("deadline", [4.0], indirect=True)
@pytest.mark.parametrize(("status", "word"), [(500, "InternalError"), (503, "SlowDown")])
def test_a_store_that_stays_busy_is_given_up_in_time_and_with_the_reason(
    store, deadline, status, word
):
    store.objects = {"x.wav": b"content"}
    store.fault = lambda *_: status
    error, seconds = timed(read, "x.wav", 7)
    assert error.status is Status.UNAVAILABLE
    assert word in str(error)
    assert seconds < deadline + MARGIN
    assert len(store.requests) > 1


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (400, Status.UNAVAILABLE),  # the credentials have expired
        (403, Status.PERMISSION_DENIED),
        (404, Status.NOT_FOUND),
    ],
)
def test_a_clear_answer_is_not_asked_for_again(store, status, expected):
    store.fault = lambda *_: status
    assert timed(read, "x.wav", 7)[0].status is expected
    assert len(store.requests) == 1


@pytest.mark.parametrize("deadline", [0.5], indirect=True)
def test_a_decoder_that_tries_again_does_not_wait_again(store, deadline):
    store.objects = {"x.wav": bytes(3 << 20)}
    store.fault = lambda *_: "silent"

    def decode_twice():
        with open_file(f"s3://{BUCKET}/x.wav", 3 << 20) as handle:
            for _ in range(2):
                with pytest.raises(TimeoutError):
                    handle.read(1)
            raise RecordingError(Status.DECODE_ERROR, "what a decoder makes of it")

    error, seconds = timed(decode_twice)
    assert error.status is Status.UNAVAILABLE
    assert seconds < deadline + MARGIN


class Hanging(fsspec.AbstractFileSystem):
    """A file system without a coroutine that could be cancelled."""

    protocol = "hanging"
    released = threading.Event()

    def cat_file(self, *_, **__):
        self.released.wait()
        return b""


@pytest.mark.parametrize("deadline", [0.5], indirect=True)
def test_a_file_system_that_hangs_is_given_up(deadline):
    fsspec.register_implementation("hanging", Hanging, clobber=True)
    with pytest.raises(RecordingError) as caught, open_file("hanging://x.wav", 10):
        pass
    Hanging.released.set()
    assert caught.value.status is Status.UNAVAILABLE
    assert f"within {deadline:g} s" in str(caught.value)


def test_waiting_for_a_store_is_told_when_it_begins_and_ends(store):
    class Telling(Stopwatch):
        events: list[str] = []  # noqa: RUF012

        @contextmanager
        def waiting(self):
            self.events.append("begin")
            with super().waiting():
                yield
            self.events.append("end")

    store.objects = {"x.wav": bytes(3 << 20)}
    store.fault = lambda key, attempt: 0.4 if key and attempt == 2 else None
    stopwatch = Telling()
    with open_file(f"s3://{BUCKET}/x.wav", None, stopwatch) as handle:
        assert Telling.events == ["begin", "end"] * 2  # connected, and asked for the size
        handle.read(1)
        assert Telling.events == ["begin", "end"] * 3
        handle.read(1)
    assert Telling.events == ["begin", "end"] * 3
    assert 0.3 < stopwatch.seconds < 0.4 + MARGIN


def test_a_table_is_read_to_its_end(store):
    store.objects = {"t.csv": os.urandom(9_000_000)}
    store.fault = lambda _, attempt: 503 if attempt % 2 else None
    with open_table(f"s3://{BUCKET}/t.csv") as handle:
        assert handle.read() == store.objects["t.csv"]


@pytest.mark.parametrize("uri", [__file__, f"s3://{BUCKET}/x.wav"])
def test_no_position_before_the_beginning(store, uri):
    store.objects = {"x.wav": bytes(3 << 20)}
    with open_file(uri) as handle:
        handle.seek(5)
        for offset, whence in (-1, os.SEEK_SET), (-6, os.SEEK_CUR), (-(1 << 30), os.SEEK_END):
            with pytest.raises(OSError, match=r"Invalid argument|negative position"):
                handle.seek(offset, whence)
        assert handle.tell() == 5
