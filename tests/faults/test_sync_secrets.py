"""What programs that sync and collectors show of their keys and of messages: nothing (F35)."""

from __future__ import annotations

import json
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
import trustme
from backends import BatchBackend
from proxy import FaultProxy, answers, on_events, resets

FOLDER = Path(__file__).parent

KEY = "Kanarienvogel7Qx3vLw9Zt"
TEXT = "a word that only the canary sings"


@pytest.fixture
def ran(tmp_path: Path) -> Iterator[subprocess.CompletedProcess[str]]:
    """The program, when it has ended."""
    authority = trustme.CA()
    ca_file = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(ca_file)
    wrong = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("localhost").configure_cert(wrong)
    right = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(right)
    with ExitStack() as running:
        backend = running.enter_context(BatchBackend())
        faults = {
            "refused key": FaultProxy(backend, answers(401, {"error": f"{KEY} is no key"})),
            "quoted key": FaultProxy(backend, on_events(answers(422, {"error": {"message": f"Bearer {KEY}"}}))),
            "reset": FaultProxy(backend, resets),
            "redirect": FaultProxy(backend, answers(302, b"", {"Location": "http://127.0.0.1:9/"})),
            "bad certificate": FaultProxy(backend, tls=wrong),
            "good over TLS": FaultProxy(backend, tls=right),
        }
        remotes = {name: running.enter_context(proxy).url for name, proxy in faults.items()} | {"good": backend.url}
        settings = {"path": str(tmp_path / "agent.db"), "remotes": remotes, "ca_file": str(ca_file), "canary": KEY, "text": TEXT}
        program = [sys.executable, str(FOLDER / "sync_secrets.py")]
        yield subprocess.run([*program, json.dumps(settings)], capture_output=True, text=True, timeout=100, check=False)
        assert {request.headers.get("authorization") for request in backend.received} == {f"Bearer {KEY}"}


@pytest.mark.fault("F35")
def test_neither_the_key_nor_a_word_of_a_message_shows(tmp_path: Path, ran: subprocess.CompletedProcess[str]) -> None:
    """In logs at DEBUG, stderr, reprs, tracebacks with variables, and, of the key, the file."""
    assert ran.returncode == 0, ran.stderr[-3_000:]
    lines = ran.stderr.splitlines()
    assert ran.stdout == ""
    # The scan saw what it is about.
    for expected in ("LOG httpcore", "LOG httpx", "LOG sessionstore", "ZeroDivisionError", "ConfigError", "request_headers"):
        assert expected in ran.stderr, expected
    hits = [line for line in lines if KEY in line and not is_of_the_test(line)]
    assert hits == []
    assert [line for line in lines if line.startswith("LOG") and TEXT in line] == []
    files = sorted(tmp_path.glob("agent.db*"))
    assert files
    assert [file.name for file in files if KEY.encode() in file.read_bytes()] == []
    print(f"0 hits in {len(ran.stderr) / 1e6:.1f} MB of logs and tracebacks")


COLLECTOR = """
import logging, sys
logging.basicConfig(level=logging.DEBUG, stream=sys.stderr)
logging.getLogger().handlers[0].setFormatter(__import__("sync_secrets").WholeRecords("%(name)s %(message)s"))
from sessionstore.cli import main
sys.exit(main(["serve", *sys.argv[1:]]))
"""


@pytest.mark.fault("F35")
def test_a_collector_shows_its_keys_nowhere(tmp_path: Path) -> None:
    """Not in its log at DEBUG, in what it answers to right and wrong requests, or in its file."""
    keys, db = tmp_path / "keys", tmp_path / "collected.db"
    keys.write_text(f"team {KEY}\n")
    keys.chmod(0o600)
    command = [sys.executable, "-c", COLLECTOR, "--db", str(db), "--port", "0", "--api-key-file", str(keys)]
    log = tmp_path / "log"
    with log.open("wb") as stderr, subprocess.Popen(command, stderr=stderr, cwd=FOLDER) as collector:
        try:
            answers = list(asked(listening_at(collector, log)))
        finally:
            collector.terminate()
    assert collector.returncode == 0
    assert {200, 401, 404, 405, 413, 415, 422} <= {answer.status_code for answer in answers}
    shown = [answer.content + repr(answer.headers).encode() for answer in answers]
    text = log.read_bytes()
    # The scan saw what it is about.
    assert b"LOG asyncio" in text
    written = {file.name: file.read_bytes() for file in tmp_path.glob("collected.db*")}
    assert "collected.db" in written
    for what in (*shown, text, *written.values()):
        assert KEY.encode() not in what


def listening_at(collector: subprocess.Popen[bytes], log: Path) -> str:
    """Its URL, once it says it."""
    while collector.poll() is None:
        for line in log.read_text().splitlines():
            if line.startswith("listening on "):
                return line.split()[-1]
        time.sleep(0.01)
    raise AssertionError(log.read_text())


def asked(url: str) -> Iterator[httpx.Response]:
    """Answers to requests with the key where it belongs and where it does not."""
    start = {"session_id": "s", "agent_id": "a", "start_time": "2026-03-01T10:00:00+00:00"}
    json_type = {"Content-Type": "application/json"}
    with httpx.Client(base_url=url, headers={"Authorization": f"Bearer {KEY}"}, trust_env=False) as client:
        yield client.post("/conversations/start", json=start)
        yield client.post("/events/batch", json={"source": "s", "events": [{"key": "k", "kind": "erase", "body": {}}]})
        yield client.post("/events/batch", json={"source": f"{KEY}/", "events": []})
        yield client.post("/conversations/start", json={**start, "start_time": KEY})
        yield client.post("/conversations/start", content=f"{KEY}{{".encode(), headers=json_type)
        yield client.post("/conversations/start", content=b"", headers={"Content-Type": KEY})
        yield client.post("/conversations/start", json=start, headers={"Content-Encoding": KEY})
        yield client.post("/events/batch", content=b" " * (2 << 20), headers=json_type)
        yield client.get(f"/{KEY}")
        yield client.delete("/agents/active", params={"source": KEY})
        yield client.get("/metrics/quality", params={"start_date": KEY})
        yield client.get(f"/conversations/{KEY}")
        for header in (f"Basic {KEY}", f"Bearer {KEY} {KEY}", f"Bearer x{KEY}", KEY):
            yield client.get("/openapi.json", headers={"Authorization": header})
        yield client.get("/openapi.json")
        yield client.get("/metrics/overview")


def is_of_the_test(line: str) -> bool:
    """Whether it shows a variable of the program's own frames, which hold the key by this name."""
    return line.strip().startswith("canary =")
