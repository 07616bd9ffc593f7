"""The proxy that the tests of storage faults rely on."""

import threading
import time
import urllib.error
import urllib.request
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest
from faulty_proxy import Cut, FaultyProxy, Reply, Silent, Slow


@pytest.fixture
def proxy(tmp_path):
    (tmp_path / "object").write_bytes(b"0123456789")

    class Handler(SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=str(tmp_path))

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with FaultyProxy(f"http://127.0.0.1:{server.server_address[1]}") as proxy:
        yield proxy
    server.shutdown()
    server.server_close()


def get(proxy, timeout=60.0):
    with urllib.request.urlopen(f"{proxy.url}/object", timeout=timeout) as answer:
        return answer.read()


def test_it_passes_what_no_fault_takes(proxy):
    with proxy.fault(Reply(500, "InternalError"), path="other|object$", method="PUT"):
        assert get(proxy) == b"0123456789"


def test_it_answers_with_errors_so_many_times(proxy):
    with proxy.fault(Reply(503, "SlowDown"), times=2) as fault:
        for _ in range(2):
            with pytest.raises(urllib.error.HTTPError, match="503"):
                get(proxy)
        assert get(proxy) == b"0123456789"
    assert fault.hits == 2


def test_it_cuts_an_answer(proxy):
    with proxy.fault(Cut(4)), pytest.raises(Exception, match="4 bytes read, 6 more expected"):
        get(proxy)


def test_it_is_slow(proxy):
    started = time.monotonic()
    with proxy.fault(Slow(20)):
        assert get(proxy) == b"0123456789"
    assert time.monotonic() - started > 0.4


def test_it_is_silent(proxy):
    with proxy.fault(Silent()), pytest.raises(TimeoutError):
        get(proxy, timeout=0.3)
    assert get(proxy) == b"0123456789"


def test_it_is_down_and_comes_up_at_the_same_port(proxy):
    with proxy.down(), pytest.raises(urllib.error.URLError, match="refused"):
        get(proxy)
    assert get(proxy) == b"0123456789"
