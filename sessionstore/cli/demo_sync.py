"""The second half of the demo: what was recorded offline is delivered to a collector, and both sides know the same."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from .console import counted, print_trimmed

if TYPE_CHECKING:
    from rich.console import Console

    from ..store import SessionStore

COLLECTOR_FILE: Final = "collector.db"
_NEEDED: Final = ("fastapi", "uvicorn")
_MOST_SECONDS_TO_STOP: Final = 10.0
_FLUSH_SECONDS: Final = 30.0

Figures = dict[str, str]


def offline_url() -> str:
    """The address of a collector that nobody has started yet."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"http://127.0.0.1:{listener.getsockname()[1]}"


def has_collector() -> bool:
    """Whether the extra `collector` is installed."""
    return all(find_spec(name) is not None for name in _NEEDED)


def come_online(path: Path, url: str, console: Console) -> int:
    """Start the collector, deliver to it, and compare; the exit code is 1 if the two do not agree."""
    import sessionstore

    with (
        sessionstore.open(path, must_exist=True, remote=sessionstore.Remote(url)) as store,
        collector(path.with_name(COLLECTOR_FILE), url) as command,
    ):
        console.print("  " + command, soft_wrap=True)
        waiting = store.outbox.stats().pending
        is_done = store.flush(_FLUSH_SECONDS)
        stats = store.outbox.stats()
        if not is_done or stats.dead:
            console.print(f"  FAILED: {stats.last_error or 'the events were not delivered'}", style="bold red", soft_wrap=True)
            return 1
        console.print(f"  {counted(waiting, 'event')} had waited, {stats.sent} delivered, none is left", style="green")
        here, there = _figures(_local(store)), _figures(_remote(url))
    _print_both(console, here, there)
    if here != there:
        console.print("  FAILED: the two sides do not agree", style="bold red")
        return 1
    console.print("  both sides agree", style="green")
    return 0


@contextmanager
def collector(path: Path, url: str) -> Iterator[str]:
    """A collector at this address, in a process of its own; gives the command that started it."""
    words = ["serve", "--db", str(path), "--port", url.rpartition(":")[2]]
    command = [sys.executable, "-m", "sessionstore", *words]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as child:  # noqa: S603 - this program itself
        assert child.stderr is not None  # noqa: S101 - it is a pipe
        try:
            line = child.stderr.readline()
            if not re.search(r"http://", line):
                raise OSError(f"the collector did not start: {line}{child.stderr.read()}".strip())
            yield " ".join(["sessionstore", *words])
        finally:
            child.terminate()
            child.wait(_MOST_SECONDS_TO_STOP)


def _local(store: SessionStore) -> Mapping[str, Any]:
    # As JSON has it, for that is how the other side answers.
    answer: Mapping[str, Any] = json.loads(json.dumps(store.overview()))
    return answer


def _remote(url: str) -> Mapping[str, Any]:
    import httpx

    answer: Mapping[str, Any] = httpx.get(f"{url}/metrics/overview", trust_env=False).raise_for_status().json()
    return answer


def _figures(overview: Mapping[str, Any]) -> Figures:
    """The figures of an overview that fit into a small table."""
    rates, times = overview["success_rates"]["overall"], overview["response_times"]["overall"]
    quality, tokens = overview["quality"]["overall"], overview["tokens"]["overall"]
    return {
        "conversations": f"{rates['total']}",
        "completed": f"{rates['completed']}",
        "quality, mean": f"{quality['mean']}",
        "answers timed": f"{times['count']}",
        "answer time, p95": f"{times['p95_ms']} ms",
        "tokens, out": f"{tokens['output_tokens']}",
    }


def _print_both(console: Console, here: Figures, there: Figures) -> None:
    from rich.table import Table

    table = Table("", "this file", "the collector", box=None, padding=(0, 2))
    for name, figure in here.items():
        table.add_row(name, figure, there[name])
    print_trimmed(console, table)
