"""A collector in a process of its own, and how tests talk to it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

START = "2026-03-01T10:00:00.000000+00:00"
LATER = "2026-03-01T10:05:00.000000+00:00"


class Collector:
    """A running collector."""

    def __init__(self, process: subprocess.Popen[str], url: str) -> None:
        self.process = process
        self.url = url
        self.client = httpx.Client(base_url=url, trust_env=False, timeout=20)

    @property
    def address(self) -> tuple[str, int]:
        port = httpx.URL(self.url).port
        assert port is not None
        return "127.0.0.1", port

    def stop(self) -> int:
        """Ask it to stop, as a service manager does, and return its exit code."""
        # What it answered on stays open otherwise, and is waited for.
        self.client.close()
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(20)

    def post(self, path: str, body: Any, **headers: str) -> httpx.Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.client.post(path, json=body, headers=named)


class Desktop:
    """A client of one source, so that tests that share a collector do not meet."""

    def __init__(self, collector: Collector, namespace: str = "") -> None:
        self.collector = collector
        self.source = uuid.uuid4().hex
        self.namespace = namespace
        self.headers = {"Sessionstore-Source": self.source, "Sessionstore-Namespace": namespace}

    def post(self, path: str, body: Any, key: str | None = None) -> httpx.Response:
        headers = self.headers if key is None else {**self.headers, "Idempotency-Key": key}
        return self.collector.client.post(path, json=body, headers=headers)

    def batch(self, *events: dict[str, Any]) -> list[dict[str, Any]]:
        answer = self.collector.client.post("/events/batch", json={"source": self.source, "events": events})
        assert answer.status_code == 200, answer.text
        results: list[dict[str, Any]] = answer.json()["results"]
        return results

    def get(self, path: str, **query: Any) -> Any:
        """A question about this source only."""
        by_header = path.startswith("/conversations/") and path != "/conversations/active"
        given = query if by_header else {"source": self.source, **query}
        answer = self.collector.client.get(path, params=given, headers=self.headers if by_header else {})
        assert answer.status_code == 200, answer.text
        return answer.json()


@contextmanager
def running(db: Path, *options: str, program: tuple[str, str] = ("-m", "sessionstore")) -> Iterator[Collector]:
    """Start a collector; it is killed at the end if the test has not stopped it."""
    command = [sys.executable, "-W", "error", *program, "serve", "--db", str(db), "--port", "0", *options]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**os.environ, "TZ": "Asia/Kolkata"})
    assert process.stderr is not None
    try:
        line = process.stderr.readline()
        assert line.startswith("listening on http://"), line + process.stderr.read()
        collector = Collector(process, line.split()[-1])
        with collector.client:
            yield collector
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        process.stderr.close()


def event(kind: str, body: dict[str, Any], key: str | None = None, namespace: str = "") -> dict[str, Any]:
    """An event of a batch."""
    from sessionstore.remote.events import PATHS

    return {"key": key or str(uuid.uuid4()), "kind": kind, "namespace": namespace, "path": PATHS[kind], "body": body}


def started(session_id: str = "user-alice", at: str = START, **more: Any) -> dict[str, Any]:
    """The body of a start."""
    return {"session_id": session_id, "agent_id": "helper", "start_time": at, **more}


def ended(session_id: str = "user-alice", at: str = LATER, begun: str = START, **more: Any) -> dict[str, Any]:
    """The body of an end."""
    return {"status": "completed", **started(session_id, begun), "end_time": at, "duration_seconds": 300.0, **more}


def answered(seq: int, ms: float, session_id: str = "user-alice", **more: Any) -> dict[str, Any]:
    """The body that tells what an answer cost."""
    attributes = {"seq": seq, "role": "assistant", "response_time_ms": ms, **more}
    return {"name": "message", "value": ms, "unit": "ms", "agent_id": "helper", "session_id": session_id,
            "timestamp": START, "attributes": attributes}  # fmt: skip


def raw_request(address: tuple[str, int], text: str) -> bytes:
    """What a server answers to bytes that no client library would send."""
    with socket.create_connection(address, timeout=20) as connection:
        connection.sendall(text.encode())
        connection.settimeout(20)
        answer = b""
        while part := connection.recv(65536):
            answer += part
    return answer
