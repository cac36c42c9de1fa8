"""A proxy on this machine that does to HTTP what networks and servers do: it cuts, delays, trickles, lies and refuses.

It speaks raw sockets, because no HTTP server would send what it sends. A fault is a function of one exchange; `passed` is none.
"""

from __future__ import annotations

import http.client
import json
import socket
import ssl
import struct
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

sys.path.append(str(Path(__file__).parents[1] / "integration"))

from backends import Backend, Received

_HOP_HEADERS = ("connection", "transfer-encoding", "content-length", "date", "server")
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


@dataclass
class Exchange:
    """One request that came in, and the ways to answer it. Whatever is sent by hand ends the connection."""

    received: Received
    proxy: FaultProxy
    connection: socket.socket
    is_over: bool = field(default=False)

    @property
    def carries_events(self) -> bool:
        """Whether it is more than a question."""
        return self.received.method == "POST"

    def forward(self) -> bytes:
        """Let the backend have it, and give its whole answer."""
        backend = self.proxy.backend
        if backend is None:
            raise AssertionError("there is no backend behind this proxy")
        host = backend.url.removeprefix("http://").split("/")[0]
        link = http.client.HTTPConnection(host, timeout=30)
        try:
            link.request(self.received.method, self.received.path, self.received.body, self.received.headers)
            answer = link.getresponse()
            kept = {name.lower(): value for name, value in answer.getheaders() if name.lower() not in _HOP_HEADERS}
            return answer_of(answer.status, answer.read(), kept)
        finally:
            link.close()

    def send(self, data: bytes) -> None:
        """Send bytes and keep the connection."""
        self.connection.sendall(data)
        self.proxy.sent_bytes += len(data)

    def end(self) -> None:
        """Close the connection, as a server does that ends."""
        self.is_over = True

    def reset(self) -> None:
        """Close it the hard way: the other side hears of a reset."""
        raw = self.connection
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        self.is_over = True


Fault = Callable[[Exchange], None]


class FaultProxy:
    """A server on a free port that does to each request what `fault` says."""

    def __init__(self, backend: Backend | None = None, fault: Fault | None = None, *, tls: ssl.SSLContext | None = None) -> None:
        self.backend = backend
        self.fault = fault or passed
        self.requests: list[Received] = []
        self.connections = 0
        self.sent_bytes = 0
        self.stopped = threading.Event()
        self._tls = tls
        self._listener: socket.socket | None = None
        self._port = 0
        self._listen()
        prefix = "/api/sdk" if backend is None else backend.prefix
        origin = "http://127.0.0.1" if tls is None else "https://localhost"
        self.url = f"{origin}:{self._port}{prefix}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stopped.set()
        self._close_listener()

    @property
    def event_requests(self) -> list[Received]:
        """Those that carried events."""
        return [each for each in self.requests if each.method == "POST"]

    @contextmanager
    def refusing(self) -> Iterator[None]:
        """Nobody listens meanwhile: connections are refused."""
        self._close_listener()
        yield
        self._listen()

    def _listen(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", self._port))
        self._port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, args=(self._listener,), name="fault-proxy", daemon=True).start()

    def _close_listener(self) -> None:
        listener, self._listener = self._listener, None
        if listener is not None:
            # Without this the thread in accept() would keep the port open.
            with suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._serve, args=(connection,), name="fault-proxy-connection", daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        # A client that goes away is what many of these tests are about, or a backend that is killed in the middle of an answer.
        with connection, suppress(OSError, http.client.HTTPException):
            if self._tls is None:
                self._talk(connection)
            else:
                with self._tls.wrap_socket(connection, server_side=True) as secure:
                    self._talk(secure)

    def _talk(self, connection: socket.socket) -> None:
        with connection.makefile("rb") as incoming:
            while (received := _read(incoming)) is not None:
                self.requests.append(received)
                exchange = Exchange(received, self, connection)
                self.fault(exchange)
                if exchange.is_over:
                    return


def _read(incoming: Any) -> Received | None:
    line = incoming.readline().decode("latin-1").split()
    if not line:
        return None
    headers: dict[str, str] = {}
    while (raw := incoming.readline()) not in (b"\r\n", b""):
        name, _, value = raw.decode("latin-1").partition(":")
        headers[name.strip().lower()] = value.strip()
    return Received(line[0], line[1], headers, incoming.read(int(headers.get("content-length", 0))))


def answer_of(status: int, body: bytes | Any = b"", headers: dict[str, str] | None = None) -> bytes:
    """The bytes of an answer; a body that is no bytes is sent as JSON."""
    plain = body if isinstance(body, bytes) else json.dumps(body).encode()
    fields = {"Content-Type": "application/json", "Content-Length": str(len(plain)), **(headers or {})}
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"HTTP/1.1 {status} Fault\r\n{lines}\r\n".encode() + plain


def passed(exchange: Exchange) -> None:
    """No fault."""
    exchange.send(exchange.forward())


def on_events(fault: Fault) -> Fault:
    """A fault that spares the question about capabilities."""
    return lambda exchange: fault(exchange) if exchange.carries_events else passed(exchange)


def answers(status: int, body: bytes | Any = b"", headers: dict[str, str] | None = None) -> Fault:
    """Always this answer, and the backend hears of nothing."""
    return lambda exchange: exchange.send(answer_of(status, body, headers))


def resets(exchange: Exchange) -> None:
    """The connection is reset after the request."""
    exchange.reset()


def closes(exchange: Exchange) -> None:
    """The connection is closed without a word."""
    exchange.end()


def loses_the_answer(exchange: Exchange) -> None:
    """The backend has stored everything, and then the connection is reset."""
    exchange.forward()
    exchange.reset()


def sends_half(exchange: Exchange) -> None:
    """The backend has stored everything, and half of its answer arrives."""
    whole = exchange.forward()
    exchange.send(whole[: len(whole) // 2])
    exchange.end()


def says_nothing(exchange: Exchange) -> None:
    """It never answers, until the proxy ends."""
    exchange.proxy.stopped.wait()
    exchange.end()


def trickles_headers(exchange: Exchange, pause: float = 0.05) -> None:
    """A byte at a time, and the headers never end."""
    _trickle(exchange, b"HTTP/1.1 200 OK\r\nX-Slow: ", pause)


def trickles_body(exchange: Exchange, pause: float = 0.05) -> None:
    """A byte at a time, and a body that never ends."""
    exchange.send(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 100000\r\n\r\n")
    _trickle(exchange, b"", pause)


def never_ends(exchange: Exchange) -> None:
    """As many bytes as the client takes."""
    exchange.send(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n")
    chunk = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
    while not exchange.proxy.stopped.is_set():
        exchange.send(chunk)


def endless_headers(exchange: Exchange) -> None:
    """Headers, as many as the client takes."""
    exchange.send(b"HTTP/1.1 200 OK\r\n")
    while not exchange.proxy.stopped.is_set():
        exchange.send(b"X-More: " + b"y" * 8_000 + b"\r\n")


def _trickle(exchange: Exchange, first: bytes, pause: float) -> None:
    for byte in first:
        exchange.send(bytes([byte]))
        if exchange.proxy.stopped.wait(pause):
            break
    while not exchange.proxy.stopped.wait(pause):
        exchange.send(b" ")
    exchange.end()
