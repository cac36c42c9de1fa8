"""A program that talks to a remote that goes wrong in many ways, with a canary key, and shows all that could show it.

Everything goes to stderr: the logs of all libraries at DEBUG, reprs, and tracebacks of errors with the variables of their frames.
It is started by the test with the addresses of its remotes, as JSON.
"""

from __future__ import annotations

import json
import logging
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio

import sessionstore
from sessionstore import AgentPerformanceTracker, SessionStore
from sessionstore.aio import AsyncSessionStore
from sessionstore.remote.settings import Remote


def show(label: str, what: object) -> None:
    """A repr."""
    print(f"-- {label}: {what!r} {what}", file=sys.stderr)


def show_errors(label: str, call: Callable[[], Any]) -> None:
    """Make a call, and show what it raised, with all causes and the variables of our frames."""
    try:
        show(label, call())
    except BaseException as error:
        print(f"-- {label} raised", file=sys.stderr)
        for line in traceback.TracebackException.from_exception(error, capture_locals=True).format():
            print(line, end="", file=sys.stderr)


def scenario(store: SessionStore, name: str, remote: Remote, text: str) -> None:
    """Tell a remote what happened, in every way of sending."""
    store.set_remote(remote, replace=True)
    store.session(name, agent_id="agent", metadata={"said": text}).append("user", text)
    with AgentPerformanceTracker(None, store=store, background=False) as tracker:
        tracker.record_failed_session(tracker.start_conversation("agent", metadata={"said": text}), text)
    show_errors(f"{name}: drain", lambda: store.drain(timeout=2))
    show_errors(f"{name}: flush", lambda: store.flush(0.2))
    show_errors(f"{name}: awaited drain", lambda: anyio.run(awaited_drain, store))
    with store.background():
        show(f"{name}: flush beside the background", store.flush(0.2))
    for each in (store, remote, remote.api_key, store.outbox, store.outbox.stats(), store.outbox.list(), store.status()):
        show(name, each)


async def awaited_drain(store: SessionStore) -> Any:
    """As the async face makes it."""
    return await AsyncSessionStore(store).drain(timeout=0.5)


def interrupted(store: SessionStore) -> None:
    """A drain that an error of the program's own breaks off, in its innermost frame."""
    from sessionstore.delivery import courier

    def broken(*_: object) -> Any:
        raise ZeroDivisionError("in the innermost frame")

    usual = courier._bounded_body
    courier._bounded_body = broken
    try:
        show_errors("broken off", store.drain)
    finally:
        courier._bounded_body = usual


def main(path: str, remotes: dict[str, str], ca_file: str, canary: str, text: str) -> None:
    """Everything, one after the other."""
    logging.basicConfig(level=logging.DEBUG, stream=sys.stderr)
    logging.getLogger().handlers[0].setFormatter(WholeRecords("%(name)s %(message)s"))
    store = sessionstore.open(path, durability="normal")
    for name, url in remotes.items():
        scenario(store, name, Remote(url, canary, timeout=1, max_retries=1, retry_delay=0.01, ca_file=ca_file), text)
    scenario(store, "asked key", Remote(remotes["refused key"], lambda: canary, timeout=1, max_retries=0), text)
    scenario(store, "failing key", Remote(remotes["good"], lambda: failing(canary), timeout=1, max_retries=0), text)
    store.set_remote(Remote(remotes["good"], canary, timeout=1), replace=True)
    store.session("left", agent_id="agent")
    interrupted(store)
    for wrong in (
        lambda: Remote("https://user@host", canary),
        lambda: Remote("ftp://host", canary),
        lambda: store.set_remote("https://another", canary),
        lambda: sessionstore.open(path, remote="nowhere", api_key=canary),
        lambda: Remote(remotes["good"], f"Bearer {canary}"),
        lambda: store.set_remote(remotes["good"], f"Bearer {canary}"),
        lambda: sessionstore.open(path, remote=remotes["good"], api_key=f"Bearer {canary}"),
        lambda: AgentPerformanceTracker(remotes["good"], f"Bearer {canary}"),
    ):
        show_errors("refused", wrong)
    show("log", Path(path).name)
    store.close()


def failing(canary: str) -> str:
    """A keyring that says too much."""
    raise LookupError(f"no {canary} here")


class WholeRecords(logging.Formatter):
    """Every attribute of a record, as a formatter for JSON writes it."""

    def format(self, record: logging.LogRecord) -> str:
        """All of it."""
        return f"LOG {super().format(record)} { ({name: value for name, value in record.__dict__.items() if name != 'args'})!r}"


if __name__ == "__main__":
    main(**json.loads(sys.argv[1]))
