"""Fixtures that every layer of the tests shares: event loops, a fresh store, a look into its file, real conversations."""

from __future__ import annotations

import gc
import gzip
import json
import os
import signal
import sqlite3
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

import sessionstore

Dump = dict[str, list[tuple[Any, ...]]]

# The tests below import what lies here: `from trials import Trial`.
sys.path.append(str(Path(__file__).parent))
pytest_plugins = ("trials",)

# A shell that runs the tests in the background lets them ignore Ctrl-C, and so do the programs that they start.
signal.signal(signal.SIGINT, signal.default_int_handler)

DATA_VARIABLE = "SESSIONSTORE_TEST_DATA"
AIRLINE = "airline-conversations.jsonl.gz"


def pytest_collection_finish() -> None:
    """What was imported stays: the garbage collector need not look through all the frameworks again and again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    """Async tests run on both event loops."""
    return request.param


@pytest.fixture
def store_path(tmp_path: Path) -> Path:
    """Where `store` is."""
    return tmp_path / "agent.db"


@pytest.fixture
def store(store_path: Path) -> Iterator[sessionstore.SessionStore]:
    """A fresh store in a file of its own."""
    with sessionstore.open(store_path) as opened:
        yield opened


@pytest.fixture
def dump(store_path: Path) -> Callable[[], Dump]:
    """Call it for every row of every table, as another program sees them."""
    return lambda: logical_dump(store_path)


@pytest.fixture(scope="session")
def airline_conversations() -> list[dict[str, Any]]:
    """100 real conversations with tool calls; see the README beside the file."""
    named = os.environ.get(DATA_VARIABLE)
    folder = Path(named) if named else Path(__file__).parents[2] / "shared" / "data"
    if not (folder / AIRLINE).is_file():
        pytest.skip(f"{AIRLINE} is not there: put it into ../shared/data, or name its folder in {DATA_VARIABLE}")
    with gzip.open(folder / AIRLINE, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def logical_dump(path: Path) -> Dump:
    """Every row of every table. It reads through sqlite3, so it may run beside an open store."""
    with closing(sqlite3.connect(path)) as connection:
        tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name").fetchall()
        return {name: sorted(connection.execute(f"SELECT * FROM {name}").fetchall(), key=repr) for (name,) in tables}
