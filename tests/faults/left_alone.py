"""Finding 2 as an experiment: does a call leave SQLite's locks on the file alone?

A opens the store and makes the call. B opens the store, writes and closes it. A writes and is killed. If the call opened and
closed the file behind SQLite's back, A's locks are gone, B removes the log that A goes on writing to, and A's write is lost.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import anyio
import lab

import sessionstore

CHAT = "s"
FUNCTION = {"name": "f", "arguments": "{}"}
CALL = {"role": "assistant", "content": None, "tool_calls": [{"id": "c1", "type": "function", "function": FUNCTION}]}
CONVERSATION = b'{"messages": [{"role": "user", "content": "x"}]}\n'

Call = Callable[[sessionstore.SessionStore], object]


def time_a_block(store: sessionstore.SessionStore) -> None:
    """A timer records when its block ends."""
    with store.timer("x", strict=True):
        pass


def rekey(store: sessionstore.SessionStore) -> None:
    """A plain store has no key to be changed."""
    try:
        store.rekey(bytes(range(32)))
    except sessionstore.ConfigError:
        return


def tell_nobody(store: sessionstore.SessionStore) -> None:
    """An event waits for a remote at a port where nobody listens."""
    store.set_remote("http://127.0.0.1:9")
    store.session("told", agent_id="a")


def replace_the_last(store: sessionstore.SessionStore) -> None:
    """A message that was just appended is replaced."""
    seq = store.append(CHAT, "user", "x").seq
    store.replace_range(CHAT, seq, seq, [{"role": "user", "content": "y"}])


def keep_a_conversation(store: sessionstore.SessionStore) -> None:
    """A conversation is saved, grows, is read and deleted."""
    memory = store.as_memory_backend()
    memory.save("kept", [])
    memory.save("kept", [{"role": "user", "content": "x"}])
    if memory.load("kept") and "kept" in memory.list():
        memory.delete("kept")


# Every public name of SessionStore; the test fails for one that is not here.
CALLS: dict[str, Call] = {
    "activity": lambda store: store.activity(),
    "agent": lambda store: store.agent("a"),
    "agents": lambda store: store.agents(),
    "as_memory_backend": keep_a_conversation,
    "append": lambda store: store.append(CHAT, "user", "x"),
    "append_many": lambda store: store.append_many(CHAT, [{"role": "user", "content": "x"}]),
    "archive": lambda store: store.archive(CHAT),
    "background": lambda store: store.background(interval=60).__enter__().stop(),
    "backup": lambda store: store.backup(Path(store.status().path or "").with_name("backup.db"), overwrite=True),
    "branches": lambda store: store.branches(CHAT),
    "check": lambda store: store.check(CHAT),
    "clear": lambda store: store.clear(CHAT),
    "clear_superseded": lambda store: store.clear_superseded(CHAT),
    "close": lambda store: store.in_namespace("other").close(),
    "copy_to": lambda store: store.copy_to(Path(store.status().path or "").with_name("copy.db")),
    "count": lambda store: store.count(text="x"),
    "create": lambda store: store.create("new", tags=["t"]),
    "delete": lambda store: store.delete("other"),
    "delete_state": lambda store: store.delete_state(CHAT, "x"),
    "doctor": lambda store: store.doctor(),
    "drain": lambda store: (tell_nobody(store), store.drain(timeout=0.1)),
    "end": lambda store: store.end(CHAT),
    "erase": lambda store: store.erase("other"),
    "export_file": lambda store: store.export_file(io.BytesIO()),
    "failures": lambda store: store.failures(),
    "flush": lambda store: (tell_nobody(store), store.flush(timeout=0.1)),
    "fork": lambda store: store.fork(CHAT, "forked"),
    "get": lambda store: store.get(CHAT),
    "get_state": lambda store: store.get_state(CHAT, "x"),
    "import_file": lambda store: store.import_file(io.BytesIO(CONVERSATION), format="openai"),
    "in_namespace": lambda store: store.in_namespace("other").session("s"),
    "increment_state": lambda store: store.increment_state(CHAT, "n"),
    "iterate": lambda store: list(store.iterate(CHAT)),
    "list": lambda store: store.list(tag="t"),
    "log_activity": lambda store: store.log_activity("a", "x"),
    "messages": lambda store: store.messages(CHAT, last=3, keep_pairs=True),
    "namespace": lambda store: store.namespace,
    "namespaces": lambda store: store.namespaces(),
    "open_tool_calls": lambda store: store.open_tool_calls(CHAT),
    "operations_overview": lambda store: store.operations_overview(),
    "outbox": lambda store: (store.outbox.list(), store.outbox.requeue(), store.outbox.erase(CHAT)),
    "overview": lambda store: store.overview(bucket="day"),
    "pin": lambda store: store.pin(CHAT),
    "parent": lambda store: store.parent(CHAT),
    "pop": lambda store: store.pop(CHAT),
    "prune": lambda store: store.prune(max_sessions=100),
    "quality": lambda store: store.quality(),
    "query": lambda store: store.query("SELECT * FROM v_messages"),
    "rebuild_search": lambda store: store.rebuild_search(),
    "record": lambda store: store.record("x", 1),
    "record_many": lambda store: store.record_many([sessionstore.NewMetric("x", 1), sessionstore.NewMetric("y", 2)]),
    "register_agent": lambda store: store.register_agent("a"),
    "rekey": rekey,
    "remaining": lambda store: store.remaining(CHAT),
    "rename": lambda store: (store.session("old"), store.rename("old", "renamed")),
    "reopen": lambda store: store.reopen(CHAT),
    "repair": lambda store: store.repair(CHAT),
    "replace_range": replace_the_last,
    "response_times": lambda store: store.response_times(),
    "search": lambda store: store.search("x"),
    "search_raw": lambda store: store.search_raw("x"),
    "session": lambda store: store.session("another"),
    "set_remote": tell_nobody,
    "set_state": lambda store: store.set_state(CHAT, {"x": 1}),
    "set_search": lambda store: store.set_search("on"),
    "set_status": lambda store: store.set_status("a", "busy"),
    "set_ttl": lambda store: store.set_ttl(CHAT, 3600),
    "settings": lambda store: store.settings,
    "state": lambda store: store.state(CHAT),
    "status": lambda store: store.status(),
    "success_rates": lambda store: store.success_rates(),
    "superseded": lambda store: store.superseded(CHAT),
    "sweep": lambda store: (store.session("old", ttl=1e-6), store.sweep()),
    "tag": lambda store: store.tag(CHAT, "t"),
    "tags": lambda store: store.tags(),
    "timer": time_a_block,
    "tokens": lambda store: store.tokens(),
    "touch": lambda store: store.touch(CHAT),
    "track": lambda store: store.track("x")(len)("abc"),
    "truncate": lambda store: store.truncate(CHAT, after=1),
    "untag": lambda store: store.untag(CHAT, "t"),
    "update": lambda store: store.update(CHAT, title="x"),
    "vacuum": lambda store: (store.clear(CHAT), store.vacuum(), store.vacuum(full=True)),
}


def open_beside(store: sessionstore.SessionStore) -> None:
    """A second store on the file, another way of naming it, and a refused one: none may disturb the first."""
    path = Path(store.status().path or "")
    sessionstore.open(path, durability="normal").close()
    sessionstore.open(path.parent / ".." / path.parent.name / path.name, read_only=True).close()
    try:
        sessionstore.open(path.with_name("absent.db"), must_exist=True)
    except sessionstore.NotADatabaseError:
        return


def misuse(reach: Callable[[Path], Path], *, writing: bool, by_another: bool) -> Call:
    """A call that names a store's own file as the source of an import or the target of an export; it must be refused unopened."""

    def call(store: sessionstore.SessionStore) -> None:
        path = Path(store.status().path or "")
        user = sessionstore.open(path.with_name("other.db")) if by_another else store
        try:
            (user.export_file if writing else user.import_file)(reach(path))
        except (sessionstore.SessionStoreError, OSError):
            return
        raise AssertionError("it was not refused")

    return call


def refused(attempt: Callable[[Path], object]) -> Call:
    """A call that would need the file for itself."""

    def call(store: sessionstore.SessionStore) -> None:
        path = Path(store.status().path or "")
        store.backup(path.with_name("backup.db"), overwrite=True)
        try:
            attempt(path)
        except sessionstore.SessionStoreError:
            return
        raise AssertionError("it was not refused")

    return call


def link_to(path: Path) -> Path:
    """Another way to the file."""
    link = path.with_name(path.name + ".link")
    link.symlink_to(path)
    return link


def log_of(path: Path) -> Path:
    """The log beside the file."""
    return path.with_name(path.name + "-wal")


MISUSES: dict[str, Call] = {
    "(import the store)": misuse(Path, writing=False, by_another=False),
    "(import the store by a link)": misuse(link_to, writing=False, by_another=False),
    "(import another open store)": misuse(Path, writing=False, by_another=True),
    "(export onto the store)": misuse(Path, writing=True, by_another=False),
    "(export onto its log)": misuse(log_of, writing=True, by_another=False),
    "(export onto another open store)": misuse(Path, writing=True, by_another=True),
    "(restore onto the store)": refused(lambda path: sessionstore.restore(path.with_name("backup.db"), path, busy_timeout=0.1)),
    "(restore from the store)": refused(lambda path: sessionstore.restore(path, path.with_name("elsewhere.db"), busy_timeout=0.1)),
}


def sniff(store: sessionstore.SessionStore) -> None:
    """What no call may do; the experiment must notice it."""
    Path(store.status().path or "").open("rb").close()


def public_names() -> list[str]:
    """What users can reach on a store."""
    return sorted(name for name in dir(sessionstore.SessionStore) if not name.startswith("_"))


def call_then_write(wire: lab.Wire, path: Path, call: Call) -> None:
    """Child A."""
    store = sessionstore.open(path)
    store.session(CHAT).append_many([{"role": "user", "content": "x"}, CALL])
    store.session("other")
    call(store)
    wire.wait()
    store.session("witness").append("user", "kept?")
    wire.wait()


def write_and_close(wire: lab.Wire, path: Path) -> None:
    """Child B."""
    with sessionstore.open(path) as store:
        store.session("b").append("user", "x")


def kept(path: Path) -> bool:
    """The third process: is A's row there?"""
    with sessionstore.open(path) as store:
        return store.get("witness") is not None and len(store.messages("witness")) == 1


def experiment(path: Path, call: Call) -> dict[str, bool]:
    """Whether the log survived B, and A's row its death."""
    first = lab.Child(partial(call_then_write, path=path, call=call))
    try:
        first.ready()
    except AssertionError as error:
        first.end()
        return {str(error).strip().splitlines()[-1]: False}
    second = lab.Child(partial(write_and_close, path=path))
    said = second.rest()
    second.end()
    log = path.with_name(path.name + "-wal").exists()
    first.go()
    first.ready()
    first.kill()
    first.end()
    return {"log": log, "row": said == [] and lab.ask(partial(kept, path))}


def run_experiments(folder: Path) -> dict[str, Any]:
    """One experiment for each call, one for the making of the file, and one that tells whether the experiment works."""
    base = folder / "base.db"
    # Making a new file for each would take most of the time.
    lab.ask(lambda: sessionstore.open(base).close())
    experiments = {**CALLS, "(open beside)": open_beside, **MISUSES, "(sniff)": sniff}
    found = {"(make the file)": experiment(folder / "new.db", CALLS["status"])}
    for number, (name, call) in enumerate(experiments.items()):
        found[name] = experiment(lab.copy_store(base, folder / f"{number}.db"), call)
    return found


def watch(folder: Path) -> dict[str, Any]:
    """Python's own record of every file that is opened while the store's connections live."""
    path = folder / "watched.db"
    store_files = {str(path) + suffix for suffix in ("", "-wal", "-shm", "-journal")}
    events: list[tuple[str, str]] = []

    def hear(event: str, given: tuple[Any, ...]) -> None:
        if event in ("open", "sqlite3.connect") and isinstance(given[0], str | bytes | Path):
            name = given[0].decode() if isinstance(given[0], bytes) else str(given[0])
            if event == "sqlite3.connect":
                name = unquote(name.removeprefix("file:").partition("?")[0])
            if name in store_files:
                events.append((event, name.removeprefix(str(path))))

    sys.addaudithook(hear)
    opened: dict[str, list[str]] = {}

    def note(name: str) -> None:
        found = [suffix or "(file)" for event, suffix in events if event == "open"]
        if found:
            opened[name] = found
        events.clear()

    store = sessionstore.open(path)
    first = next(index for index, event in enumerate(events) if event[0] == "sqlite3.connect")
    del events[:first]
    note("open")
    store.session(CHAT).append_many([{"role": "user", "content": "x"}, CALL])
    store.session("other")
    for name, call in {**CALLS, "(open beside)": open_beside}.items():
        call(store)
        note(name)
    anyio.run(use_async_face, store)
    note("(async)")
    sniff(store)
    note("(sniff)")
    store.close()
    note("close")
    sessionstore.open(path).close()
    note("reopen")
    return {"opened": opened}


async def use_async_face(store: sessionstore.SessionStore) -> None:
    """A few awaited calls, on the store's threads."""
    shared = sessionstore.AsyncSessionStore(store)
    chat = await shared.session("async")
    await chat.append("user", "x")
    await chat.messages()
    await shared.doctor()


def main(folder: str, what: str) -> dict[str, Any]:
    """Run the experiments, or watch the calls in one process."""
    lab.warm_up()
    found = {"experiments": run_experiments, "watch": watch}[what](Path(folder))
    return {"names": public_names(), "listed": sorted(CALLS), "found": found}


if __name__ == "__main__":
    lab.report(main(**lab.arguments()))
