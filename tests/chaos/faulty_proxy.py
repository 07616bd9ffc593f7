"""An HTTP proxy in front of an S3 server whose faults are switched while clients use it.

Headers pass through as they are, the Host too: clients sign it, so it must stay the proxy's.
"""

import http.client
import re
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple, Self

_HOST = "127.0.0.1"
_UPSTREAM_SECONDS = 60.0
_SLICE_SECONDS = 0.05  # between the pieces of a slow answer
_HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length"}


class Reply(NamedTuple):
    """Answers with an error of S3 instead of asking the server."""

    status: int
    code: str


class Slow(NamedTuple):
    """Sends the body at so many bytes per second."""

    bytes_per_second: float


class Cut(NamedTuple):
    """Closes the connection after so many bytes of the body."""

    bytes: int


class Silent(NamedTuple):
    """Takes the request and never answers."""


Kind = Reply | Slow | Cut | Silent


@dataclass
class Fault:
    """What happens to certain requests.

    Attributes:
        kind: what happens.
        method: a pattern of the methods, such as ``GET|HEAD``.
        path: a pattern that is searched in the path with its query.
        times: for how many requests.
        hits: how many there were.
    """

    kind: Kind
    method: str = ".*"
    path: str = ""
    times: float = float("inf")
    hits: int = field(default=0, init=False)

    def takes(self, method: str, path: str) -> bool:
        """Whether it applies to a request."""
        return (
            self.hits < self.times
            and bool(re.fullmatch(self.method, method))
            and bool(re.search(self.path, path))
        )


class _Answer(NamedTuple):
    status: int
    headers: list[tuple[str, str]]
    length: str | None
    body: bytes


class FaultyProxy:
    """Forwards requests to ``upstream``, except those that a fault takes.

    ::

        with FaultyProxy("http://127.0.0.1:8333") as proxy:
            with proxy.fault(Reply(503, "SlowDown"), method="PUT"):
                ...
    """

    def __init__(self, upstream: str) -> None:
        self._upstream = upstream.removeprefix("http://")
        self._lock = threading.Lock()
        self._faults: list[Fault] = []
        self._connections: set[socket.socket] = set()
        self._closed = threading.Event()  # ends the silence
        self._server: ThreadingHTTPServer | None = None
        self._listen(0)
        self.port: int = self._server.server_address[1]
        self.url = f"http://{_HOST}:{self.port}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._closed.set()
        self.go_down()

    @contextmanager
    def fault(self, kind: Kind, **options: Any) -> Iterator[Fault]:
        """Applies a fault within the block; later faults come first."""
        fault = self.add(kind, **options)
        try:
            yield fault
        finally:
            self.remove(fault)

    def add(self, kind: Kind, **options: Any) -> Fault:
        """Applies a fault from now on."""
        fault = Fault(kind, **options)
        with self._lock:
            self._faults.insert(0, fault)
        return fault

    def remove(self, fault: Fault) -> None:
        """Ends a fault, also for those who wait for an answer now."""
        with self._lock:
            self._faults.remove(fault)
        if isinstance(fault.kind, Silent):
            self._disconnect()

    def clear(self) -> None:
        """Ends all faults."""
        for fault in list(self._faults):
            self.remove(fault)

    @contextmanager
    def down(self) -> Iterator[None]:
        """Refuses connections within the block, and breaks those that exist."""
        self.go_down()
        try:
            yield
        finally:
            self.come_up()

    def go_down(self) -> None:
        """Refuses connections from now on."""
        server, self._server = self._server, None
        if server is not None:
            server.shutdown()
            server.server_close()
        self._disconnect()

    def come_up(self) -> None:
        """Takes connections again, at the same port."""
        self._listen(self.port)

    def _listen(self, port: int) -> None:
        handler: Callable[..., BaseHTTPRequestHandler] = type(
            "Handler", (_Handler,), {"proxy": self}
        )
        self._server = _Server((_HOST, port), handler)
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def _disconnect(self) -> None:
        with self._lock:
            connections, self._connections = self._connections, set()
        for connection in connections:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def _take(self, method: str, path: str) -> Kind | None:
        with self._lock:
            for fault in self._faults:
                if fault.takes(method, path):
                    fault.hits += 1
                    return fault.kind
        return None


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 64

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Says nothing: clients of a faulty server go away at any moment."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    proxy: FaultyProxy

    def setup(self) -> None:
        super().setup()
        with self.proxy._lock:
            self.proxy._connections.add(self.connection)

    def finish(self) -> None:
        with self.proxy._lock:
            self.proxy._connections.discard(self.connection)
        super().finish()

    def handle_any(self) -> None:
        body = self._body()
        kind = self.proxy._take(self.command, self.path)
        match kind:
            case Silent():
                self.close_connection = True
                self._wait_for_the_end()
            case Reply(status, code):
                self._send(_error(status, code), None)
            case _:
                self._send(self._forward(body), kind)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = handle_any  # noqa: N815

    def log_message(self, *_: object) -> None:
        """Logs nothing."""

    def _body(self) -> bytes:
        """The body as it came, with the marks of its chunks if it is chunked."""
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = b""
        while size := int((line := self.rfile.readline()).split(b";")[0], 16):
            body += line + self.rfile.read(size + 2)
        body += line
        while (line := self.rfile.readline()) not in (b"\r\n", b""):
            body += line
        return body + b"\r\n"

    def _forward(self, body: bytes) -> _Answer:
        connection = http.client.HTTPConnection(self.proxy._upstream, timeout=_UPSTREAM_SECONDS)
        connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        for name, value in self.headers.items():
            if name.lower() not in ("connection", "expect"):
                connection.putheader(name, value)
        connection.putheader("Connection", "close")
        connection.endheaders(body)
        answer = connection.getresponse()
        headers = [(n, v) for n, v in answer.getheaders() if n.lower() not in _HOP_BY_HOP]
        length = answer.getheader("Content-Length") if self.command == "HEAD" else None
        content = answer.read()
        connection.close()
        return _Answer(answer.status, headers, length, content)

    def _send(self, answer: _Answer, kind: Kind | None) -> None:
        self.send_response_only(answer.status)
        for name, value in answer.headers:
            self.send_header(name, value)
        if answer.status not in (204, 304):
            self.send_header("Content-Length", answer.length or str(len(answer.body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        if isinstance(kind, Cut):
            self.wfile.write(answer.body[: kind.bytes])
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
        elif isinstance(kind, Slow):
            self._send_slowly(answer.body, kind.bytes_per_second)
        else:
            self.wfile.write(answer.body)

    def _send_slowly(self, body: bytes, bytes_per_second: float) -> None:
        size = max(1, int(bytes_per_second * _SLICE_SECONDS))
        for start in range(0, len(body), size):
            self.wfile.write(body[start : start + size])
            self.proxy._closed.wait(_SLICE_SECONDS)

    def _wait_for_the_end(self) -> None:
        """Waits until the client or the proxy gives up."""
        with suppress(OSError):
            self.connection.settimeout(None)
            self.connection.recv(1)


def _error(status: int, code: str) -> _Answer:
    text = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{code}</Message></Error>"
    return _Answer(status, [("Content-Type", "application/xml")], None, text.encode())
