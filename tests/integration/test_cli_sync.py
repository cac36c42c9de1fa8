"""The verb drain: what waits is sent, what was sent and left is said, and the exit code tells whether the remote could be used."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from backends import Backend, BatchBackend, Reply

import sessionstore
from sessionstore.cli import main
from sessionstore.config import KEY_VARIABLE, REMOTE_VARIABLE

KEY = "a-key-of-the-remote-1"
PATIENCE = 10.0


class Run(NamedTuple):
    """How a verb ended and what it said."""

    code: int
    out: str
    err: str


@pytest.fixture(autouse=True)
def _bare(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(REMOTE_VARIABLE, raising=False)
    monkeypatch.delenv(KEY_VARIABLE, raising=False)


@pytest.fixture
def backend() -> Iterator[BatchBackend]:
    with BatchBackend() as running:
        yield running


@pytest.fixture
def run(store_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., Run]:
    """Call it with a verb and its options."""

    def call(*arguments: str) -> Run:
        code = main(["--store", str(store_path), *arguments])
        return Run(code, *capsys.readouterr())

    return call


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    path = tmp_path / "key.txt"
    path.write_text(KEY + "\n")
    path.chmod(0o600)
    return path


def fill(path: Path, url: str | None, sessions: int = 3) -> None:
    """Sessions whose beginnings wait."""
    with sessionstore.open(path, remote=url) as store:
        for number in range(sessions):
            store.session(f"s-{number}", agent_id="helper")
        store.close(drain_timeout=0)


def nobodys_url() -> str:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{taken.getsockname()[1]}"


def waiting(path: Path) -> int:
    with sessionstore.open(path, remote=None) as store:
        return store.outbox.stats().pending


def test_drain_sends_what_waits_and_says_so(
    run: Callable[..., Run], backend: BatchBackend, store_path: Path, key_file: Path
) -> None:
    fill(store_path, backend.url)
    done = run("drain", "--api-key-file", str(key_file))
    assert done == Run(0, "", f"{backend.url}: 3 events sent; none left\n")
    assert len(backend.stored) == 3
    assert {each.headers["authorization"] for each in backend.received} == {f"Bearer {KEY}"}
    assert run("drain", "--json").out == json.dumps(
        {"remote": backend.url, "sent": 0, "refused": 0, "dead": 0, "requests": 0, "left": False, "error": None, "paused": None,
         "retry_at": None, "pending": 0}
    ) + "\n"  # fmt: skip


def test_the_key_may_come_from_the_environment(
    run: Callable[..., Run], backend: BatchBackend, store_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(store_path, backend.url)
    monkeypatch.setenv(KEY_VARIABLE, KEY)
    assert run("drain").code == 0
    assert backend.received[-1].headers["authorization"] == f"Bearer {KEY}"


def test_the_remote_may_come_from_the_option_or_the_environment(
    run: Callable[..., Run], backend: BatchBackend, store_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(store_path, None)
    done = run("drain")
    assert (done.code, done.out) == (1, "")
    assert re.fullmatch(r"error: the store has no remote; give one: --remote URL, or SESSIONSTORE_SYNC_URL\n", done.err)
    assert run("drain", "--remote", backend.url + "/").err == f"{backend.url}: 0 events sent; none left\n"
    monkeypatch.setenv(REMOTE_VARIABLE, backend.url)
    fill(store_path, backend.url, sessions=5)
    assert run("drain").err == f"{backend.url}: 2 events sent; none left\n"
    elsewhere = run("drain", "--remote", "https://other.example")
    assert elsewhere.code == 1
    assert "one remote" in elsewhere.err


def test_the_settings_of_the_remote_stay(run: Callable[..., Run], backend: BatchBackend, store_path: Path) -> None:
    remote = sessionstore.Remote(backend.url, sync_messages=True, max_outbox_bytes=1 << 20)
    fill(store_path, remote)  # type: ignore[arg-type]
    assert run("drain", "--remote", backend.url).code == 0
    with sessionstore.open(store_path) as store:
        store.append("s-0", "user", "Hello")
        assert [event.kind for event in store.outbox.list()] == ["message"]
        assert store.outbox.stats().quota == 1 << 20


@pytest.mark.parametrize(
    ("reply", "advice"),
    [
        (Reply(401, {"detail": "no such key"}), "--api-key-file"),
        (Reply(302, b"", {"Location": "https://x.example/canary"}), "remote URL --replace"),
    ],
)
def test_what_pauses_deliveries_is_told_with_what_to_do(
    run: Callable[..., Run], store_path: Path, reply: Reply, advice: str
) -> None:
    with Backend(lambda _: reply) as backend:
        fill(store_path, backend.url)
        done = run("drain")
        assert (done.code, done.out) == (1, "")
        first, second = done.err.splitlines()
        assert first == f"{backend.url}: 0 events sent; 3 left"
        assert second.startswith(f"error: the remote could not be used: HTTP {reply.status}")
        assert advice in second
        told = run("drain", "--json")
        assert told.code == 1
        assert json.loads(told.out)["pending"] == 3
        assert "canary" not in done.err + told.out + told.err


def test_offline_all_stays_and_the_exit_code_is_1(run: Callable[..., Run], store_path: Path) -> None:
    fill(store_path, nobodys_url())
    done = run("drain", "--timeout", "0.3")
    assert done.code == 1
    assert "0 events sent; 3 left\n" in done.err
    assert "drain again later" in done.err
    assert waiting(store_path) == 3


def test_events_that_are_given_up_are_told(run: Callable[..., Run], store_path: Path) -> None:
    """A plain backend has no use for figures."""
    with Backend() as old:
        with sessionstore.open(store_path, remote=old.url) as store:
            store.register_agent("helper")
            for number in range(3):
                store.record("cache.hits", number)
            store.close(drain_timeout=0)
        done = run("drain")
    assert (done.code, done.err) == (0, f"{old.url}: 1 event sent; 3 given up: see outbox list --state dead; none left\n")


@pytest.mark.parametrize("content", [b"", b"\n", b"two\nlines", b"\xff\xfe", b"x" * 5_000, b"Bearer abc", b"a b"])
def test_a_file_without_a_key_is_refused_without_showing_it(
    run: Callable[..., Run], backend: BatchBackend, store_path: Path, key_file: Path, content: bytes
) -> None:
    fill(store_path, backend.url)
    key_file.write_bytes(content)
    done = run("drain", "--api-key-file", str(key_file))
    assert done.code == 1
    assert done.err.startswith("error: ")
    assert "Traceback" not in done.err
    assert "abc" not in done.err
    assert backend.received == []


def test_a_key_file_that_is_not_there_is_one_line(run: Callable[..., Run], store_path: Path, tmp_path: Path) -> None:
    fill(store_path, "https://api.example.com")
    done = run("drain", "--api-key-file", str(tmp_path / "no-such"))
    assert (done.code, done.err) == (1, f"error: {tmp_path / 'no-such'}: No such file or directory\n")


@pytest.mark.skipif(os.name != "posix", reason="other systems have other permissions")
def test_a_key_that_others_can_read_is_refused(
    run: Callable[..., Run], backend: BatchBackend, store_path: Path, key_file: Path
) -> None:
    fill(store_path, backend.url)
    key_file.chmod(0o644)
    done = run("drain", "--api-key-file", str(key_file))
    assert (done.code, done.err) == (1, f"error: {key_file}: other users can read the key; chmod 600 {key_file}\n")
    assert backend.received == []


def test_drain_creates_no_store(run: Callable[..., Run], store_path: Path) -> None:
    done = run("drain", "--remote", "https://api.example.com")
    assert (done.code, done.out) == (1, "")
    assert "there is no such file" in done.err
    assert not store_path.exists()


@pytest.mark.parametrize("arguments", [["--watch", "--json"], ["--timeout", "-1"], ["--timeout", "soon"], ["--api-key", "x"]])
def test_wrong_usage_is_exit_code_2(run: Callable[..., Run], store_path: Path, arguments: list[str]) -> None:
    fill(store_path, "https://api.example.com")
    assert run("drain", *arguments).code == 2


def when(holds: Callable[[], Any], then: Callable[[], None]) -> threading.Thread:
    """Do something in a thread once it holds, or after some seconds in any case."""

    def wait() -> None:
        end = time.monotonic() + PATIENCE
        while not holds() and time.monotonic() < end:
            time.sleep(0.01)
        then()

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_watch_goes_on_with_what_is_stored_later_until_a_signal(
    run: Callable[..., Run], backend: BatchBackend, store_path: Path, number: signal.Signals
) -> None:
    fill(store_path, backend.url)
    before = signal.getsignal(number)
    helpers = [
        when(lambda: len(backend.stored) == 3, lambda: fill(store_path, backend.url, sessions=5)),
        when(lambda: len(backend.stored) == 5 and not waiting(store_path), lambda: os.kill(os.getpid(), number)),
    ]
    done = run("drain", "--watch")
    for helper in helpers:
        helper.join()
    assert (done.code, done.out) == (0, "")
    assert done.err.splitlines()[0] == f"delivering to {backend.url}; Ctrl-C ends it"
    assert sum(map(int, re.findall(r"^(\d+) events? sent$", done.err, re.MULTILINE))) == 5
    assert signal.getsignal(number) == before


def test_watch_tells_trouble_and_ends_after_its_time(run: Callable[..., Run], store_path: Path) -> None:
    with Backend(lambda _: Reply(401, {})) as backend:
        fill(store_path, backend.url)
        done = run("drain", "--watch", "--timeout", "1.5")
    assert done.code == 0
    assert re.search(r"deliveries pause until somebody sets this right: HTTP 401.*; give the right key", done.err)


def test_only_writing_verbs_follow_the_environments_remote(
    run: Callable[..., Run], store_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, backend: BatchBackend
) -> None:
    fill(store_path, None)
    monkeypatch.setenv(REMOTE_VARIABLE, backend.url)
    for verb in (["status"], ["sessions"], ["show", "s-0"], ["stats"], ["doctor"], ["query", "SELECT 1"], ["upgrade"]):
        assert run(*verb).code == 0
    with sessionstore.open(store_path, remote=None) as store:
        assert store.outbox.stats().remote is None
    chat = tmp_path / "chat.jsonl"
    chat.write_text('{"messages": [{"role": "user", "content": "Hello"}]}\n')
    assert run("import", str(chat)).code == 0
    with sessionstore.open(store_path, remote=None) as store:
        assert store.outbox.stats().remote == backend.url
