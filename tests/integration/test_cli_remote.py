"""The verb remote, and what the command line says where the file, the environment and an option name different remotes."""

from __future__ import annotations

import json
import re
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
import trustme
from backends import Backend, BatchBackend, Reply
from clocks import FrozenClock
from collecting import running, started

import sessionstore
from sessionstore import queries
from sessionstore.cli import main
from sessionstore.config import KEY_VARIABLE, REMOTE_VARIABLE
from sessionstore.remote.settlement import Trouble

HERE = "http://127.0.0.1:9"
OTHER = "https://other.example/v1"


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
def run(store_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., Run]:
    """Call it with a verb and its options."""

    def call(*arguments: str) -> Run:
        code = main(["--store", str(store_path), *arguments])
        return Run(code, *capsys.readouterr())

    return call


def fill(path: Path, remote: sessionstore.Remote | str | None) -> None:
    """A store with a session, whose beginning waits if there is a remote."""
    with sessionstore.open(path, remote=remote) as store:
        store.session("user-alice", agent_id="helper")
        store.close(drain_timeout=0)


def remote_of(path: Path) -> str | None:
    with sessionstore.open(path, remote=None) as store:
        return store.outbox.stats().remote


# -- the verb


def test_the_remote_is_shown(run: Callable[..., Run], store_path: Path) -> None:
    fill(store_path, sessionstore.Remote(HERE, sync_messages=True, max_outbox_bytes=1 << 20, on_full="raise"))
    assert run("remote").out.splitlines() == [
        f"remote            {HERE}",
        "sync messages     yes",
        "max outbox bytes  1.0 MiB",
        "on full           raise",
        "pending           1",
    ]
    assert json.loads(run("remote", "--json").out) == {
        "remote": HERE, "sync_messages": True, "max_outbox_bytes": 1 << 20, "on_full": "raise", "pending": 1
    }  # fmt: skip


def test_a_store_without_a_remote_says_so(run: Callable[..., Run], store_path: Path) -> None:
    fill(store_path, None)
    assert set(json.loads(run("remote", "--json").out).values()) == {None, 0}
    assert run("remote").out.splitlines()[0] == "remote            -"


def test_a_remote_is_set_and_nothing_is_sent(run: Callable[..., Run], store_path: Path) -> None:
    fill(store_path, None)
    with BatchBackend() as backend:
        assert run("remote", backend.url + "/") == Run(0, "", f"events are told to {backend.url}\n")
        assert run("remote", backend.url).code == 0
        fill(store_path, None)
        with sessionstore.open(store_path, remote=None) as store:
            store.record("x", 1)
        assert run("remote", backend.url).err == f"events are told to {backend.url}; 1 event waits for it: sessionstore drain\n"
        assert backend.received == []


def test_another_remote_takes_replace_and_gets_what_waits(run: Callable[..., Run], store_path: Path) -> None:
    fill(store_path, HERE)
    refused = run("remote", OTHER)
    assert (refused.code, refused.out, refused.err.count("\n")) == (1, "", 1)
    assert HERE in refused.err
    assert "--replace" in refused.err
    assert remote_of(store_path) == HERE
    with BatchBackend() as backend:
        done = run("remote", backend.url, "--replace")
        assert done == Run(0, "", f"events are told to {backend.url}; 1 event waits for it: sessionstore drain\n")
        assert run("drain").code == 0
        assert len(backend.stored) == 1


def test_the_settings_of_the_same_remote_stay(run: Callable[..., Run], store_path: Path) -> None:
    fill(store_path, sessionstore.Remote(HERE, sync_messages=True))
    assert run("remote", HERE).code == 0
    assert json.loads(run("remote", "--json").out)["sync_messages"] is True


def test_none_takes_the_remote_away_and_keeps_what_waits(run: Callable[..., Run], store_path: Path) -> None:
    fill(store_path, HERE)
    done = run("remote", "--none")
    assert (done.code, done.out) == (0, "")
    assert done.err.startswith(f"no more events are told to {HERE}; 1 event waits for the next remote")
    assert remote_of(store_path) is None
    assert json.loads(run("remote", "--json").out)["pending"] == 1
    assert run("remote", "--none") == Run(0, "", "the store has no remote; 1 event waits for the next remote\n")


def test_plain_http_to_another_machine_is_permitted_where_it_is_set(run: Callable[..., Run], store_path: Path) -> None:
    fill(store_path, None)
    refused = run("remote", "http://collector.example")
    assert refused.code == 1
    assert refused.err.startswith("error: URL: must be https://")
    assert "--allow-http" in refused.err
    assert run("remote", "http://collector.example", "--allow-http").code == 0
    assert run("remote", "http://COLLECTOR.example/").code == 0
    assert remote_of(store_path) == "http://collector.example"


@pytest.mark.parametrize(
    "arguments", [["--replace"], ["--allow-http"], ["--none", HERE], ["--none", "--json"], [HERE, "--json"], [HERE, OTHER]]
)
def test_what_does_not_go_together_is_wrong_usage(run: Callable[..., Run], store_path: Path, arguments: list[str]) -> None:
    fill(store_path, HERE)
    assert run("remote", *arguments).code == 2
    assert remote_of(store_path) == HERE


@pytest.mark.parametrize("arguments", [[], [HERE], ["--none"]])
def test_the_verb_creates_no_store(run: Callable[..., Run], store_path: Path, arguments: list[str]) -> None:
    assert run("remote", *arguments).code == 1
    assert not store_path.exists()


# -- several names for the remote


def test_drain_names_the_way_to_another_remote(run: Callable[..., Run], store_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(store_path, HERE)
    by_option = run("drain", "--remote", OTHER)
    monkeypatch.setenv(REMOTE_VARIABLE, OTHER)
    by_environment = run("drain")
    for done, name in ((by_option, "--remote"), (by_environment, REMOTE_VARIABLE)):
        assert done.code == 1
        assert done.err.startswith(f"error: {name}: the store tells its events to {HERE}")
        assert "sessionstore remote URL --replace" in done.err


def test_a_url_that_is_none_is_told_by_the_name_it_was_given(
    run: Callable[..., Run], store_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(store_path, None)
    assert run("drain", "--remote", "htp:/x").err.startswith("error: --remote: must be https://")
    assert run("remote", "htp:/x").err.startswith("error: URL: must be https://")
    monkeypatch.setenv(REMOTE_VARIABLE, "htp:/x")
    assert run("drain").err.startswith(f"error: {REMOTE_VARIABLE}: must be https://")
    monkeypatch.setenv(REMOTE_VARIABLE, OTHER)
    monkeypatch.setenv(KEY_VARIABLE, "canary key")
    told = run("drain").err
    assert told.startswith(f"error: {KEY_VARIABLE}: must be")
    assert "canary" not in told


def test_open_names_the_variable_that_disagrees_with_the_file(store_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(store_path, HERE)
    monkeypatch.setenv(REMOTE_VARIABLE, OTHER)
    with pytest.raises(sessionstore.ConfigError, match=rf"^{REMOTE_VARIABLE}: names {OTHER}.*one remote.*--replace") as refused:
        sessionstore.open(store_path)
    assert refused.value.__suppress_context__
    assert remote_of(store_path) == HERE


def test_the_environment_leaves_the_settings_that_the_file_has(store_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(store_path, sessionstore.Remote(HERE, sync_messages=True, max_outbox_bytes=1 << 20))
    monkeypatch.setenv(REMOTE_VARIABLE, HERE)
    with sessionstore.open(store_path) as store:
        known = store._read(queries.subscription.current)
        store.close(drain_timeout=0)
    assert (known.sync_messages, known.max_bytes) == (True, 1 << 20)


def test_a_mistyped_url_is_told_without_a_chain_of_errors(tmp_path: Path) -> None:
    with pytest.raises(sessionstore.ConfigError, match=r"^base_url: must be") as refused:
        sessionstore.open(tmp_path / "agent.db", remote="htp:/x")
    assert refused.value.__cause__ is None
    assert refused.value.__suppress_context__


def test_a_collector_ignores_the_remote_of_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(REMOTE_VARIABLE, OTHER)
    with running(tmp_path / "collected.db") as collector:
        assert collector.post("/conversations/start", started()).status_code == 200
        assert collector.stop() == 0
    assert remote_of(tmp_path / "collected.db") is None


def test_a_collector_that_has_a_remote_is_told_how_to_lose_it(
    run: Callable[..., Run], store_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(store_path, HERE)
    assert main(["serve", "--db", str(store_path), "--port", "0"]) == 2
    assert "sessionstore remote --none" in capsys.readouterr().err


# -- certificates


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def test_drain_trusts_the_authority_that_it_is_given(run: Callable[..., Run], store_path: Path, authority: trustme.CA) -> None:
    ca_file = store_path.with_name("ca.pem")
    authority.cert_pem.write_to_path(ca_file)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    with BatchBackend() as backend:
        backend._server.socket = context.wrap_socket(backend._server.socket, server_side=True)
        url = backend.url.replace("http://127.0.0.1", "https://localhost")
        fill(store_path, url)
        refused = run("drain")
        assert refused.code == 1
        assert "--ca-file FILE" in refused.err
        assert run("drain", "--ca-file", str(ca_file)) == Run(0, "", f"{url}: 1 event sent; none left\n")


@pytest.mark.parametrize(("content", "complaint"), [(None, "No such file or directory"), (b"no pem\n", "holds no certificates")])
def test_a_file_without_certificates_is_one_line(
    run: Callable[..., Run], store_path: Path, content: bytes | None, complaint: str
) -> None:
    fill(store_path, OTHER)
    ca_file = store_path.with_name("ca.pem")
    if content is not None:
        ca_file.write_bytes(content)
    done = run("drain", "--ca-file", str(ca_file))
    assert (done.code, done.err.count("\n")) == (1, 1)
    assert done.err.startswith(f"error: {ca_file}: {complaint}")


# -- what is said of outages


def test_a_try_that_is_due_is_not_told_as_one_to_come(run: Callable[..., Run], store_path: Path, frozen: FrozenClock) -> None:
    fill(store_path, HERE)
    with sessionstore.open(store_path, remote=None) as store:
        store._note_trouble(Trouble("ConnectError"))
        due = store.outbox.stats().retry_at
    assert due is not None
    told = run("outbox")
    assert "most refusals  0" in told.out
    assert f"it is tried again from {due.astimezone():%Y-%m-%d %H:%M:%S} on" in told.err
    frozen.go(hours=1)
    told = run("outbox")
    assert "tried again" not in told.err
    assert f"the next try was due at {due.astimezone():%Y-%m-%d %H:%M:%S}, and no program has made it" in told.err
    assert "sessionstore drain" in told.err


def test_watch_tries_at_once_and_tells_when_the_next_try_is(run: Callable[..., Run], store_path: Path) -> None:
    with Backend(lambda _: Reply(503, {}, {"Retry-After": "600"})) as backend:
        fill(store_path, backend.url)
        assert run("drain").code == 1
        asked = len(backend.received)
        done = run("drain", "--watch", "--timeout", "1")
        assert len(backend.received) > asked
    with sessionstore.open(store_path, remote=None) as store:
        due = store.outbox.stats().retry_at
    assert due is not None
    assert re.search(rf"^the next try is at {due.astimezone():%H:%M:%S}$", done.err, re.MULTILINE)


def test_stats_of_an_empty_namespace_names_the_others(run: Callable[..., Run], store_path: Path) -> None:
    with sessionstore.open(store_path, remote=None) as store:
        store.in_namespace("default/desk-1/").session("user-alice", agent_id="helper")
        for number in range(25):
            store.in_namespace(f"other-{number:02}").session("user-alice")
    told = run("stats")
    assert (told.code, told.out) == (0, "")
    assert told.err.startswith("nothing was recorded here; other namespaces have some: default/desk-1/, other-00, ")
    assert told.err.endswith(" and 6 more; see --namespace\n")
    assert "in this period; other namespaces" in run("stats", "--since", "7d").err
    assert "1" in run("--namespace", "default/desk-1/", "stats").out
