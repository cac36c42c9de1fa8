"""A collector in trouble: a full disk, keys under way, files it must not use, clients that mean no good."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from collecting import answered, ended, event, started

import sessionstore
from sessionstore import queries
from sessionstore.collector import create_app
from sessionstore.errors import MissingExtraError
from sessionstore.queries import collecting
from sessionstore.remote.settings import Remote

pytestmark = pytest.mark.anyio
HEADERS = {"Idempotency-Key": "the-key"}


@pytest.fixture
async def inner(store_path: Path, new_file: Path) -> AsyncIterator[sessionstore.AsyncSessionStore]:
    """The collector's own store."""
    shutil.copy(new_file, store_path)
    async with sessionstore.aopen(store_path) as opened:
        yield opened


@pytest.fixture
async def client(inner: sessionstore.AsyncSessionStore) -> AsyncIterator[httpx.AsyncClient]:
    """A client of an app in this process."""
    transport = httpx.ASGITransport(create_app(inner), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as opened:
        yield opened


@pytest.mark.fault("F31")
async def test_a_full_disk_is_503_with_retry_after_and_nothing_is_kept(
    inner: sessionstore.AsyncSessionStore, client: httpx.AsyncClient
) -> None:
    writer = inner._database.writer._db.driver
    pages = writer.execute("PRAGMA page_count").fetchall()[0][0]
    writer.execute(f"PRAGMA max_page_count = {pages}").fetchall()
    events = [event("conversation_start", started(f"s-{n}", metadata={"x": "y" * 2000})) for n in range(50)]
    answer = await client.post("/events/batch", json={"events": events})
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "30")
    assert answer.json()["error"]["code"] == "disk_full"
    assert (await client.get("/healthz")).status_code == 503
    assert await inner.count() == 0
    writer.execute("PRAGMA max_page_count = 1000000").fetchall()
    again = await client.post("/events/batch", json={"events": events})
    assert {each["status"] for each in again.json()["results"]} == {"stored"}


async def test_health_tells_of_a_file_that_cannot_be_written(
    inner: sessionstore.AsyncSessionStore, client: httpx.AsyncClient
) -> None:
    inner._database.writer._db.driver.execute("PRAGMA query_only = 1")
    answer = await client.get("/healthz")
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "storage_failed")


async def test_a_closed_store_is_503(inner: sessionstore.AsyncSessionStore, client: httpx.AsyncClient) -> None:
    await inner.close()
    for answer in (await client.get("/conversations/active"), await client.post("/conversations/start", json=started())):
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")


async def test_a_key_that_is_being_stored_is_409(inner: sessionstore.AsyncSessionStore, client: httpx.AsyncClient) -> None:
    writing, gate = threading.Event(), threading.Event()

    def hold(_: Any) -> None:
        writing.set()
        assert gate.wait(20)

    first: list[httpx.Response] = []

    async def post() -> None:
        first.append(await client.post("/conversations/start", json=started(), headers=HEADERS))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(inner._write, hold)
        await anyio.to_thread.run_sync(writing.wait)
        tasks.start_soon(post)
        while not inner._database.writer._pending:  # noqa: ASYNC110 - no event tells of it
            await anyio.sleep(0.001)
        second = await client.post("/conversations/start", json=started(), headers=HEADERS)
        gate.set()
    assert (second.status_code, second.json()["error"]["code"], second.headers["retry-after"]) == (409, "in_progress", "1")
    assert [each.status_code for each in first] == [200]
    assert (await client.post("/conversations/start", json=started(), headers=HEADERS)).status_code == 200


async def test_what_the_file_refuses_is_rejected_alone(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch, inner: sessionstore.AsyncSessionStore
) -> None:
    """As if a check of the API had let it through."""
    good = collecting._Intake.measure

    def measure(intake: Any, namespace: str, told: Any) -> None:
        good(intake, namespace, told)
        name, *rest = intake._metrics[-1][1:]
        if name == "poison":
            intake._metrics[-1] = (namespace, None, *rest)

    monkeypatch.setitem(collecting._STORING, collecting.Measured, measure)  # type: ignore[arg-type]
    poison = {"name": "poison", "value": 1.0, "timestamp": started()["start_time"]}
    events = [event("conversation_start", started()), event("metric", poison), event("metric", answered(1, 10.0)),
              event("conversation_end", ended())]  # fmt: skip
    answer = await client.post("/events/batch", json={"events": events})
    assert [each["status"] for each in answer.json()["results"]] == ["stored", "rejected", "stored", "stored"]
    found = (await client.get("/conversations/user-alice")).json()
    assert (found["status"], found["message_count"]) == ("completed", 1)
    assert [each.session_id for each in await inner.in_namespace("default//").list()] == ["user-alice"]


async def test_an_unexpected_failure_is_500_in_the_one_shape(client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise RuntimeError("a secret of ours")

    monkeypatch.setattr(collecting, "receive", fail)
    answer = await client.post("/conversations/start", json=started())
    assert answer.status_code == 500
    assert answer.json() == {"error": {"code": "internal_error", "message": "the collector failed; its log says more"}}


async def test_concurrent_clients_of_one_key_store_it_once(
    client: httpx.AsyncClient, inner: sessionstore.AsyncSessionStore
) -> None:
    told = event("metric", answered(1, 10.0))
    statuses: list[str] = []

    async def post() -> None:
        answer = await client.post("/events/batch", json={"events": [told]})
        statuses.append(answer.json()["results"][0]["status"])

    async with anyio.create_task_group() as tasks:
        for _ in range(20):
            tasks.start_soon(post)
    assert sorted(statuses) == ["duplicate"] * 19 + ["stored"]


async def test_the_app_says_which_extra_it_needs(inner: sessionstore.AsyncSessionStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fastapi", None)
    with pytest.raises(MissingExtraError, match=r"sessionstore\[collector\]"):
        create_app(inner)


# -- the verb


def serve(folder: Path, *options: str, before: str = "pass") -> subprocess.CompletedProcess[str]:
    program = f"import sys; {before}; from sessionstore.cli import main; sys.exit(main(['serve', *sys.argv[1:]]))"
    command = [sys.executable, "-W", "error", "-c", program, "--db", str(folder / "c.db"), "--port", "0", *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """uvicorn runs on asyncio, and so do these tests."""
    return "asyncio"


def refused(done: subprocess.CompletedProcess[str]) -> str:
    """The one line of an error."""
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    return line


@pytest.mark.fault("F37")
@pytest.mark.parametrize(
    ("text", "mode", "complaint"),
    [
        (f"{'k' * 32}\n", 0o644, "chmod 600"),
        ("# none\n", 0o600, "no API key"),
        ("short\n", 0o600, "at least 16"),
        (f"a/b {'k' * 32}\n", 0o600, "line 1"),
        (f"red {'k' * 32} more\n", 0o600, "line 1"),
    ],
)
@pytest.mark.skipif(os.name != "posix", reason="modes are those of POSIX")
def test_a_file_of_keys_that_is_wrong_or_open_to_others_is_refused(tmp_path: Path, text: str, mode: int, complaint: str) -> None:
    from sessionstore.collector.access import read_keys

    keys = tmp_path / "keys"
    keys.write_text(text)
    keys.chmod(mode)
    with pytest.raises(sessionstore.ConfigError, match=complaint) as refusal:
        read_keys(keys)
    assert "k" * 32 not in str(refusal.value)


@pytest.mark.fault("F37")
def test_without_keys_only_this_machine_is_served(tmp_path: Path) -> None:
    assert "without API keys" in refused(serve(tmp_path, "--host", "0.0.0.0"))
    assert not (tmp_path / "c.db").exists()


def test_a_store_with_a_remote_is_no_collector_s(tmp_path: Path) -> None:
    with sessionstore.open(tmp_path / "c.db") as store:
        store._write(lambda db: queries.subscription.set_remote(db, Remote("http://127.0.0.1:9"), replace=False))
    assert "a store of its own" in refused(serve(tmp_path))


@pytest.mark.parametrize("missing", ["fastapi", "uvicorn"])
def test_without_the_extra_it_says_how_to_get_it(tmp_path: Path, missing: str) -> None:
    line = refused(serve(tmp_path, before=f"sys.modules[{missing!r}] = None"))
    assert line.endswith('pip install "sessionstore[cli,collector]"')
