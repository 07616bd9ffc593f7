"""A small S3 server in this process that answers as slowly or wrongly as a test asks it to."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from html import escape
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, quote, unquote, urlsplit

from ser_core.storage.protocols import object_store

BUCKET = "corpora"
_CODES = {400: "ExpiredToken", 403: "AccessDenied", 404: "NoSuchKey"}
_CODES |= {500: "InternalError", 503: "SlowDown"}
_CHUNKS = 40  # of a slow answer


class Store(ThreadingHTTPServer):
    """Objects of one bucket.

    Attributes:
        objects: their content by key.
        page_size: names in a page of a listing.
        fault: what happens to a request for a key ("" for a listing), which is the nth for it: a
            status, ``silent``, ``drip``, the seconds that a slow answer takes, or None.
        requests: the keys that were asked for.
    """

    daemon_threads = True
    block_on_close = False
    request_queue_size = 64  # by default 5: others would try to connect again after a second

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.objects: dict[str, bytes] = {}
        self.page_size = 1000
        self.fault: Callable[[str, int], int | str | float | None] = lambda *_: None
        self.requests: list[str] = []
        self.closing = threading.Event()

    def handle_error(self, *_: object) -> None:
        """The client has gone, as is expected of an answer that takes too long."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Store

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        key = unquote(url.path).removeprefix(f"/{BUCKET}").removeprefix("/")
        self.server.requests.append(key)
        fault = self.server.fault(key, self.server.requests.count(key))
        if fault == "silent":
            self.server.closing.wait()
            self.close_connection = True
        elif isinstance(fault, int):
            self._answer(fault, f"<Error><Code>{_CODES[fault]}</Code></Error>".encode())
        elif "list-type" in url.query:
            self._answer(200, self._page(parse_qs(url.query)))
        elif key not in self.server.objects:
            self._answer(404, b"<Error><Code>NoSuchKey</Code></Error>")
        else:
            self._send_object(self.server.objects[key], fault)

    do_HEAD = do_GET  # noqa: N815 (the name that the base class calls)

    def _send_object(self, content: bytes, fault: str | float | None) -> None:
        content_range = None
        if "Range" in self.headers:
            total, wanted = len(content), self.headers["Range"].removeprefix("bytes=")
            first, last = (int(number or total) for number in wanted.split("-"))
            content = content[first : last + 1]
            content_range = f"bytes {first}-{first + len(content) - 1}/{total}"
        if fault is None or self.command == "HEAD":
            self._answer(206 if content_range else 200, content, content_range)
            return
        self._start(206 if content_range else 200, len(content), content_range)
        pause = fault / _CHUNKS if isinstance(fault, float) else 0.05
        size = len(content) // _CHUNKS + 1 if isinstance(fault, float) else 1
        due = time.monotonic()  # and not from now: on a busy machine, a sleep is always longer
        for start in range(0, len(content), size):
            self.wfile.write(content[start : start + size])
            due += pause
            time.sleep(max(0.0, due - time.monotonic()))

    def _page(self, query: dict[str, list[str]]) -> bytes:
        prefix = query.get("prefix", [""])[0]
        written = quote if "encoding-type" in query else escape
        after = max(query.get(name, [""])[0] for name in ("continuation-token", "start-after"))
        keys = sorted(k for k in self.server.objects if k.startswith(prefix) and k > after)
        page, more = keys[: self.server.page_size], len(keys) > self.server.page_size
        items = "".join(
            f'<Contents><Key>{written(key)}</Key><Size>{len(self.server.objects[key])}</Size><ETag>"1"</ETag>'
            "<LastModified>2026-01-01T00:00:00.000Z</LastModified></Contents>"
            for key in page
        )
        token = f"<NextContinuationToken>{page[-1]}</NextContinuationToken>" if more else ""
        token += "<EncodingType>url</EncodingType>" if written is quote else ""
        end = f"<IsTruncated>{str(more).lower()}</IsTruncated>{token}"
        return f"<ListBucketResult>{items}{end}</ListBucketResult>".encode()

    def _answer(self, status: int, body: bytes, content_range: str | None = None) -> None:
        self._start(status, len(body), content_range)
        if self.command != "HEAD":
            self.wfile.write(body)

    def _start(self, status: int, length: int, content_range: str | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(length))
        self.send_header("Last-Modified", "Thu, 01 Jan 2026 00:00:00 GMT")
        if content_range:
            self.send_header("Content-Range", content_range)
        self.send_header("ETag", '"1"')
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nothing."""


@contextmanager
def running_store() -> Iterator[tuple[Store, dict[str, str]]]:
    """A store, and the environment variables that point an S3 client to it."""
    with Store() as store:
        thread = threading.Thread(target=store.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        object_store.cache_clear()  # a file system keeps the variables that it was made with
        yield (
            store,
            {
                "AWS_ACCESS_KEY_ID": "tester",
                "AWS_SECRET_ACCESS_KEY": "not-a-secret",
                "AWS_ENDPOINT_URL": f"http://127.0.0.1:{store.server_port}",
                "AWS_DEFAULT_REGION": "us-east-1",
            },
        )
        object_store.cache_clear()
        store.closing.set()
        store.shutdown()
        thread.join()
