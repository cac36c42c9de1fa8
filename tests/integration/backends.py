"""Small HTTP servers for the tests: a backend that knows only the tracker SDK's endpoints, and one that takes batches.

What each of them received is kept in order, so that tests can say what arrived, how often and in which order.
"""

from __future__ import annotations

import gzip
import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from sessionstore.remote.events import PATHS


@dataclass
class Received:
    """A request as it arrived."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """Its body, decompressed and parsed."""
        plain = gzip.decompress(self.body) if self.headers.get("content-encoding") == "gzip" else self.body
        return json.loads(plain)


@dataclass
class Reply:
    """What to answer. `body` is sent as it is if it is bytes."""

    status: int = 200
    body: Any = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)


Answering = Callable[[Received], Reply]


class Backend:
    """A server on a free port of this machine, in a thread; `answer` says what it replies."""

    prefix = "/api/sdk"

    def __init__(self, answer: Answering | None = None) -> None:
        self.received: list[Received] = []
        self.answering: Answering = answer or self.answer
        self._lock = threading.Lock()
        backend = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _reply(self) -> None:
                length = int(self.headers.get("content-length", 0))
                headers = {name.lower(): value for name, value in self.headers.items()}
                body = self.rfile.read(length)
                if len(body) < length:
                    # The client was cut off.
                    self.close_connection = True
                    return
                backend.reply(self, Received(self.command, self.path, headers, body))

            do_GET = do_POST = _reply  # noqa: N815 - names of the base class

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}{self.prefix}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def events(self) -> list[Received]:
        """What was posted."""
        return [each for each in self.received if each.method == "POST"]

    def reply(self, handler: BaseHTTPRequestHandler, received: Received) -> None:
        """Answer one request."""
        with self._lock:
            self.received.append(received)
            reply = self.answering(received)
        body = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
        handler.send_response(reply.status)
        headers = {"Content-Type": "application/json", "Content-Length": str(len(body))} | reply.headers
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(body)

    def answer(self, received: Received) -> Reply:
        """The usual answer: of a backend that knows the tracker SDK's endpoints and no others."""
        known = {f"{self.prefix}{PATHS[kind]}" for kind in PATHS if kind not in ("metric", "message", "erase")}
        if received.method == "POST" and received.path in known:
            return Reply(200, {"ok": True})
        return Reply(404, {"detail": "Not Found"})


class BatchBackend(Backend):
    """A backend with this library's part of the API, in memory; it keeps each key once, in the order of arrival."""

    def __init__(self, answer: Answering | None = None, *, kinds: tuple[str, ...] = ("metric", "message", "erase")) -> None:
        super().__init__(answer)
        self.kinds = kinds
        self.stored: dict[str, dict[str, Any]] = {}
        self.encodings: list[str] = []

    def answer(self, received: Received) -> Reply:
        """Capabilities, batches and single events."""
        if received.method == "GET" and received.path == f"{self.prefix}/capabilities":
            batch = {"path": "/events/batch", "max_events": 500, "max_bytes": 1 << 20, "encodings": self.encodings}
            return Reply(200, {"api": "sessionstore", "version": 1, "kinds": list(self.kinds), "batch": batch})
        if received.path == f"{self.prefix}/events/batch":
            return Reply(200, {"results": [self.keep(event) for event in received.json["events"]]})
        if received.path.removeprefix(self.prefix) in PATHS.values():
            key = received.headers["idempotency-key"]
            self.keep({"key": key, "path": received.path.removeprefix(self.prefix), "body": received.json})
            return Reply(200, {"status": "stored"})
        return Reply(404, {"detail": "Not Found"})

    def keep(self, event: dict[str, Any]) -> dict[str, str]:
        """Store an event unless it is there."""
        if event["key"] in self.stored:
            return {"key": event["key"], "status": "duplicate"}
        self.stored[event["key"]] = event
        return {"key": event["key"], "status": "stored"}
