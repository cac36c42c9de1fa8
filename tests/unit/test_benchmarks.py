"""The benchmarks run: every item prints its rows, whatever the figures are."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent.parent

Trial = tuple[str, dict[str, Any], Path]

ROWS = {
    "append": ("append a turn, FULL", "append a turn, NORMAL"),
    "append-one": ("append a message, FULL", "append a message, NORMAL"),
    "append-async": ("await append of a turn, FULL", "await append of a turn, NORMAL"),
    "growth": (
        "append a turn onto 4 messages, NORMAL", "append a turn onto 20 messages, NORMAL",
        "growth of append from 4 to 20 messages",
    ),
    "concurrent": ("5 concurrent saves by threads, FULL", "5 concurrent saves by asyncio tasks, FULL"),
    "processes": (
        "2 processes x 3 turns, own sessions, FULL", "worst call", "failed calls and lost messages",
        "2 processes x 3 turns, one session, FULL",
    ),
    "last": ("last 5 of 20 messages",),
    "load": ("load 10 messages",),
    "sessions": (
        "page of 2 by no filter, 400 sessions", "page of 2 by agent, 400 sessions", "page of 2 by user, 400 sessions",
        "page of 2 by tag, 400 sessions", "page of 2 by a tag that 60 have, 400 sessions", "page of 2 by metadata, 400 sessions",
        "page of 2 from the middle, 400 sessions", "growth from 200 to 400 sessions",
        "count of 400 sessions by no filter", "count of 400 sessions by agent",
    ),
    "conversations": (
        "start and end a conversation, FULL", "start and end a conversation, NORMAL",
        "start and end a conversation, with a remote, FULL", "start and end a conversation, with a remote, NORMAL",
    ),
    "record": (
        "record a figure with a remote, FULL", "record a figure with a remote, NORMAL",
        "record 100 figures with a remote, each, FULL", "record 100 figures with a remote, each, NORMAL",
    ),
    "nothing-to-drain": ("drain of an empty outbox",),
    "claims": ("claim and settle an event, batches of 100, FULL", "claim and settle an event, batches of 100, NORMAL"),
    "drain": ("deliver an event to a collector, in batches", "deliver an event to a collector, one at a time"),
    "ingest": ("an event taken in by a collector, in batches",),
    "latency": ("an answer of the collector to one of 50 clients",),
    "sweep": (
        "sweep 20 of 900 sessions, FULL", "sweep 20 of 900 sessions, NORMAL", "sweep 250 at once, with a remote, FULL",
        "worst append meanwhile", "worst append without a sweep, for as long", "p99 of the appends meanwhile",
        "p99 of the appends without a sweep",
    ),
    "nothing-due": ("sweep of 900 sessions, none due",),
    "percentiles": ("p50, p95, p99 of 90 messages of a day",),
    "export": ("resident memory at most, exporting 900 messages", "the export"),
    "start": (
        "python -c pass, spawn to end", "spawn to first append done, FULL", "import, open and first append",
        "resident memory after that",
    ),
    "layouts": (
        "append to a random session, packed key", "append to one of 10 live sessions, packed key",
        "last 50 of a random session, packed key", "fill 100 in random order, packed key", "file, packed key",
        "file, WITHOUT ROWID",
    ),
    "append-search": (
        "append a turn, search deferred, FULL", "append a turn, search on, FULL", "append a turn, search deferred, NORMAL",
        "append a turn, search on, NORMAL",
    ),
    "search": (
        "search of 900 messages, a rare word", "search of 900 messages, a word in 0.1 %",
        "search of 900 messages, a word in half, newest", "search of 900 messages, a word in half, one session",
    ),
}  # fmt: skip


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=110, check=False)


@pytest.fixture(scope="module")
def trial(tmp_path_factory: pytest.TempPathFactory) -> Trial:
    folder = tmp_path_factory.mktemp("benchmarks")
    output = folder / "figures.json"
    ended = run("--trial", "--dir", str(folder), "--json", str(output), "--only", *ROWS)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout, json.loads(output.read_text()), folder


@pytest.mark.parametrize("item", ROWS)
def test_every_item_prints_its_rows_and_what_raw_does(trial: Trial, item: str) -> None:
    printed, _, _ = trial
    works = [line.split("|")[1].strip() for line in printed.splitlines() if line.startswith("|")]
    assert set(ROWS[item]) <= set(works)
    assert f"\n- {item}: " in printed


def test_no_round_loses_a_message_or_fails_a_call(trial: Trial) -> None:
    _, figures, _ = trial
    lost = [row for row in figures["rows"] if row["work"] == "failed calls and lost messages"]
    assert [row["store"]["rounds"] for row in lost] == [[0.0], [0.0]]
    assert [row["raw"]["rounds"] for row in lost] == [[0.0], [0.0]]


def test_the_json_says_what_the_figures_were_taken_on(trial: Trial) -> None:
    _, figures, _ = trial
    facts = {"date", "commit", "cores", "python", "sqlite", "sqlalchemy", "file_system", "journal_mode", "sync_ms"}
    assert facts <= set(figures["machine"])
    assert figures["machine"]["journal_mode"] == "wal"


def test_a_run_leaves_nothing_but_its_figures(trial: Trial) -> None:
    _, _, folder = trial
    assert [path.name for path in folder.iterdir()] == ["figures.json"]


def test_an_unknown_item_is_refused_with_the_names_there_are(tmp_path: Path) -> None:
    ended = run("--dir", str(tmp_path), "--only", "everything")
    assert ended.returncode == 2
    assert all(name in ended.stderr for name in ROWS)


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(ROOT)
    return importlib.import_module("benchmarks.bench")


def test_sides_take_turns_in_blocks_and_each_round_begins_with_another_one(bench: ModuleType) -> None:
    order: list[str] = []

    def side(name: str) -> Any:
        def calls(count: int) -> list[float]:
            order.append(f"{name}{count}")
            return [0.001] * count

        return calls

    figures = bench.interleave({"a": side("a"), "b": side("b")}, rounds=2, calls=5, block=3)
    assert order == ["a3", "b3", "a3", "b3", "a2", "b2", "b3", "a3", "b2", "a2"]
    assert figures["a"].values == (1.0, 1.0)


def test_a_ratio_is_taken_round_by_round_and_judged_by_its_median(bench: ModuleType) -> None:
    raw, store = bench.Figure((1.0, 2.0, 4.0)), bench.Figure((3.0, 2.2, 4.0))
    row = bench.Row("work", "ms", raw, store, bench.Target(1.2))
    assert row.ratio.values == (3.0, 1.1, 1.0)
    assert row.met is True
    assert bench.Row("work", "ms", raw, store, bench.Target(1.05)).met is False


def test_a_target_of_the_store_is_judged_by_its_figure_and_one_of_every_round_by_the_worst(bench: ModuleType) -> None:
    figure = bench.Figure((0.0, 0.0, 3.0))
    assert bench.Row("work", "ms", None, figure, bench.Target(0, of="store")).met is True
    assert bench.Row("work", "ms", None, figure, bench.Target(0, of="store", every_round=True)).met is False
    assert bench.Row("work", "ms", None, figure).met is None


@pytest.mark.parametrize("subject", ["append", "read", "list", "open", "conversations", "sweep"])
def test_each_profile_shows_where_time_goes(tmp_path: Path, subject: str) -> None:
    ended = run("--trial", "--dir", str(tmp_path), "profile", subject)
    assert ended.returncode == 0, ended.stderr
    assert "Ordered by: internal time" in ended.stdout
    assert "due to restriction <25>" in ended.stdout
