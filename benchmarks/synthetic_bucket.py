"""Buckets that exist only as a rule: their server makes up every name and content when asked."""

import bisect
import multiprocessing
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing.connection import Connection
from typing import Any
from urllib.parse import parse_qs, urlsplit
from xml.sax.saxutils import escape

import numpy as np

from benchmarks.measuring import wav, waveforms

_KEYS_PER_FOLDER = 100_000
_KEYS_PER_PAGE = 1000  # as S3
_START_SECONDS = 60.0
_LAST = "\U0010ffff"
# Any client takes them: nothing is checked.
_ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "any",
    "AWS_SECRET_ACCESS_KEY": "any",
    "AWS_DEFAULT_REGION": "us-east-1",
}


def bucket_of(count: int) -> str:
    """The URI of a bucket of so many recordings of 0.3 s, a hundred thousand in each folder."""
    return f"s3://recordings-{count}"


@contextmanager
def synthetic_buckets() -> Iterator[dict[str, str]]:
    """Serves a bucket of every size.

    Yields:
        The environment variables that lead an S3 client to it.
    """
    ours, theirs = multiprocessing.get_context("spawn").Pipe()
    process = multiprocessing.get_context("spawn").Process(
        target=_serve, args=(theirs,), daemon=True
    )
    process.start()
    try:
        if not ours.poll(_START_SECONDS):
            raise RuntimeError("the server of the synthetic buckets did not start")
        yield _ENVIRONMENT | {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{ours.recv()}"}
    finally:
        process.terminate()
        process.join()


def _serve(ready: Connection) -> None:
    handler = type("Handler", (_Handler,), {"content": wav(*waveforms(np.array([0.3])))})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    ready.send(server.server_address[1])
    server.serve_forever()


def _key(index: int) -> str:
    return f"{index // _KEYS_PER_FOLDER:04}/{index:08}.wav"


class _Handler(BaseHTTPRequestHandler):
    """Answers LIST (version 2), GET of a range, and HEAD."""

    protocol_version = "HTTP/1.1"
    content: bytes

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        count, key = _split(url.path)
        if not key:
            query = {name: values[0] for name, values in parse_qs(url.query).items()}
            self._answer(200, _page(count, len(self.content), query), "application/xml")
        elif not _exists(count, key):
            self._answer(404, b"<Error><Code>NoSuchKey</Code></Error>", "application/xml")
        else:
            first, last = 0, len(self.content) - 1
            if asked := self.headers["Range"]:
                start, _, end = asked.removeprefix("bytes=").partition("-")
                first, last = int(start), min(last, int(end or last))
            part = self.content[first : last + 1]
            span = f"bytes {first}-{last}/{len(self.content)}"
            self._answer(206 if asked else 200, part, "audio/wav", {"Content-Range": span})

    def do_HEAD(self) -> None:
        found = _exists(*_split(self.path))
        self._answer(200 if found else 404, self.content if found else b"", "audio/wav")

    def log_message(self, *_: Any) -> None:
        """Says nothing."""

    def _answer(
        self, status: int, body: bytes, kind: str, more: dict[str, str] | None = None
    ) -> None:
        self.send_response(status)
        headers = {"Content-Type": kind, "Content-Length": str(len(body))} | (more or {})
        headers |= {"ETag": '"0"', "Last-Modified": "Thu, 01 Jan 2026 00:00:00 GMT"}
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)


def _split(path: str) -> tuple[int, str]:
    """How many keys the bucket of a path has, and the path in it."""
    bucket, _, key = path.strip("/").partition("/")
    return int(bucket.rpartition("-")[2]), key


def _exists(count: int, key: str) -> bool:
    number = key.rpartition("/")[2].removesuffix(".wav")
    return number.isdecimal() and int(number) < count


def _page(count: int, num_bytes: int, query: dict[str, str]) -> bytes:
    prefix, keys = query.get("prefix", ""), range(count)
    after = max(query.get("continuation-token", ""), query.get("start-after", ""))
    start = max(
        bisect.bisect_left(keys, prefix, key=_key), bisect.bisect_right(keys, after, key=_key)
    )
    stop = bisect.bisect_left(keys, prefix + _LAST, key=_key)
    end = min(stop, start + int(query.get("max-keys", _KEYS_PER_PAGE)))
    if query.get("delimiter") and "/" not in prefix:
        folders = range(start // _KEYS_PER_FOLDER, -(-stop // _KEYS_PER_FOLDER))
        found = "".join(
            f"<CommonPrefixes><Prefix>{folder:04}/</Prefix></CommonPrefixes>" for folder in folders
        )
        end = stop
    else:
        found = "".join(_contents(_key(index), num_bytes) for index in range(start, end))
    more = f"<NextContinuationToken>{_key(end - 1)}</NextContinuationToken>" if end < stop else ""
    return (
        '<?xml version="1.0" encoding="UTF-8"?><ListBucketResult>'
        f"<Prefix>{escape(prefix)}</Prefix><KeyCount>{end - start}</KeyCount>"
        f"<IsTruncated>{'true' if more else 'false'}</IsTruncated>{more}{found}"
        "</ListBucketResult>"
    ).encode()


@cache
def _tail(num_bytes: int) -> str:
    return (
        "</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified><ETag>&quot;0&quot;</ETag>"
        f"<Size>{num_bytes}</Size><StorageClass>STANDARD</StorageClass></Contents>"
    )


def _contents(key: str, num_bytes: int) -> str:
    return f"<Contents><Key>{key}{_tail(num_bytes)}"
