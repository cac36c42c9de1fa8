"""Recorded without a network, delivered when a collector is there: run it and see that both sides know the same."""

import contextlib
import re
import subprocess
import sys
from collections.abc import Iterator

import sessionstore

path = sys.argv[1] if len(sys.argv) > 1 else "offline_sync.db"


@contextlib.contextmanager
def collector(file: str) -> Iterator[str]:
    """A collector with a file of its own, in a process of its own. It gives its address."""
    command = [sys.executable, "-m", "sessionstore", "serve", "--db", file, "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as child:
        line = child.stderr.readline()  # "listening on http://127.0.0.1:40123"
        try:
            yield re.search(r"http://\S+", line)[0]
        finally:
            child.terminate()


def figures(store: sessionstore.SessionStore) -> list[tuple[object, ...]]:
    """What both sides know of each agent: the texts of messages and what users said stay here, figures are told."""
    sessions = store.query("SELECT agent_id, count(*) FROM v_sessions GROUP BY agent_id")
    answers = store.query("SELECT count(*), sum(output_tokens), avg(response_time_ms) FROM v_messages WHERE role = 'assistant'")
    return [*sessions.rows, *answers.rows]


# Nobody listens there, and no call waits for it: what happens is kept in the file.
with sessionstore.open(path) as store:
    store.set_remote("http://127.0.0.1:9", replace=True)
    chat = store.session("trip-43", agent_id="helper")
    chat.append("user", "What's the capital of Portugal?")
    chat.append("assistant", "Lisbon.", output_tokens=3, response_time_ms=210)
    print(f"offline: {store.outbox.stats().pending} events wait in {path}")
    store.close(drain_timeout=0)

# Later, perhaps in another program, there is a network.
with collector(path + "-collected.db") as url, sessionstore.open(path) as store:
    store.set_remote(url, replace=True)  # the port is a new one each time; usually the address stays
    if not store.flush(timeout=30):
        sys.exit(f"not delivered: {store.outbox.stats().last_error}")
    print(f"online: {store.outbox.stats().pending} events wait")
    here = figures(store)

with sessionstore.open(path + "-collected.db", remote=None) as collected:
    there = figures(collected)
print(f"here  {here}\nthere {there}")
sys.exit(0 if here == there else "the two sides do not agree")
