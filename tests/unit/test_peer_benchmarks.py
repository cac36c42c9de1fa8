"""The comparison with peers runs: with those that the development environment has, in no time, whatever the figures are."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

# The sides import for a while where the machine is busy.
pytestmark = pytest.mark.timeout(300)
ROOT = Path(__file__).parent.parent.parent


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks.peers", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=280, check=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("peers")
    work, out = folder / "work", folder / "out"
    work.mkdir()
    ended = run(
        "--trial", "--python", sys.executable, "--peers", "langgraph", "llm", "--dir", str(work), "--out", str(out), "--only",
        "append-1000", "append-normal", "newest", "saves", "processes-shared", "put-many", "take-many-normal",
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    return folder


@pytest.fixture(scope="module")
def figures(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "out" / "peers.json").read_text())
    return found


def names(figures: dict[str, Any], item: str) -> set[str]:
    (row,) = [row for row in figures["rows"] if row["item"] == item]
    return {side["name"] for side in row["sides"]}


OURS = {"raw sqlite3", "store", "store, awaited"}
ADAPTER = "SessionStoreSaver"


@pytest.mark.parametrize(
    ("item", "sides"),
    [
        ("append-1000", {*OURS, ADAPTER, "SqliteSaver", "llm log_to_db"}),
        ("append-normal", {*OURS, ADAPTER, "SqliteSaver", "llm log_to_db"}),
        ("processes-shared", {*OURS, ADAPTER, "SqliteSaver", "llm log_to_db"}),
        # The log cannot read the newest messages alone, and belongs to one thread.
        ("newest", {*OURS, ADAPTER, "SqliteSaver"}),
        ("saves", {*OURS, ADAPTER, "SqliteSaver"}),
        ("put-many", {*OURS, "store, outbox alone"}),
        # The store syncs what is taken in any case, so it has no equals at NORMAL.
        ("take-many-normal", {"raw sqlite3"}),
    ],
)
def test_every_side_takes_part_in_what_it_can_do(figures: dict[str, Any], item: str, sides: set[str]) -> None:
    assert names(figures, item) == sides


def test_a_row_compares_sides_of_one_sync_setting_only(figures: dict[str, Any]) -> None:
    for row in figures["rows"]:
        assert {side["synchronous"] for side in row["sides"]} == {row["sync"]}, row["work"]


def test_what_is_forced_is_said(figures: dict[str, Any]) -> None:
    forced = {(row["item"], side["name"]) for row in figures["rows"] for side in row["sides"] if side["forced"]}
    assert forced == {("append-normal", "SqliteSaver"), ("append-normal", "llm log_to_db")}


def test_the_settings_of_a_peer_are_read_from_its_connections(figures: dict[str, Any]) -> None:
    found = {side["name"]: (side["synchronous"], side["journal_mode"]) for side in figures["sides"]}
    assert found["SqliteSaver"] == ("full", "wal")
    assert found["llm log_to_db"] == ("full", "delete")


def test_what_processes_lose_is_counted(figures: dict[str, Any]) -> None:
    (row,) = [row for row in figures["rows"] if row["item"] == "processes-shared"]
    counts = {side["name"]: side["counts"] for side in row["sides"]}
    for name in OURS:
        assert (counts[name]["failed calls"], counts[name]["lost messages"]) == (0, 0)
    # Each checkpoint has the history that its process knows of; the last one to write is the one that is read.
    assert counts["SqliteSaver"]["lost messages"] > 0


def test_the_report_names_the_versions_and_compares_with_the_fastest_peer(folder: Path, figures: dict[str, Any]) -> None:
    told = (folder / "out" / "peers.md").read_text()
    for peer, version in figures["versions"].items():
        assert f"| {peer} {version} |" in told
    (row,) = [row for row in figures["rows"] if row["item"] == "append-1000"]
    assert row["fastest_peer"] in {"SqliteSaver", "llm log_to_db"}
    assert f"| {row['work']} |" in told


def test_a_run_leaves_nothing_behind_but_what_it_found(folder: Path) -> None:
    assert list((folder / "work").iterdir()) == []
    assert {path.name for path in (folder / "out").iterdir()} - {"peers.png", "peers.svg"} == {"peers.json", "peers.md"}


@pytest.mark.parametrize(("option", "known"), [("--only", "append-1000"), ("--peers", "openai-agents")])
def test_an_unknown_name_is_refused_with_those_there_are(option: str, known: str) -> None:
    ended = run(option, "everything")
    assert ended.returncode == 2
    assert known in ended.stderr


def test_charts_are_drawn_from_the_figures(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="needs the dependency group bench")
    command = [sys.executable, "-m", "benchmarks.peers.chart", str(folder / "out"), str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, timeout=60)
    assert (tmp_path / "peers.png").read_bytes().startswith(b"\x89PNG")
    assert "<svg" in (tmp_path / "peers.svg").read_text()


def test_observing_tells_what_a_connection_is_set_to_at_its_last_call(tmp_path: Path) -> None:
    program = f"""
import sqlite3
from benchmarks.peers import settings
seen, stop = settings.observe()
one = sqlite3.connect({str(tmp_path / "one.db")!r}, isolation_level=None)
one.execute("PRAGMA journal_mode = WAL")
one.execute("CREATE TABLE t (a)")
one.execute("PRAGMA synchronous = NORMAL")
one.execute("INSERT INTO t VALUES (1)")
one.close()
reader = sqlite3.connect({str(tmp_path / "one.db")!r})
reader.execute("SELECT * FROM t").fetchall()
reader.close()
stop()
assert type(sqlite3.connect({str(tmp_path / "one.db")!r})) is sqlite3.Connection
print(sorted(seen.values()))
"""
    ended = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60)
    assert ended.stdout.strip() == "[('normal', 'wal')]"


def test_a_forced_setting_is_that_of_every_new_connection(tmp_path: Path) -> None:
    program = f"""
import sqlite3
from benchmarks.peers import settings
settings.force("normal")
print(sqlite3.connect({str(tmp_path / "one.db")!r}).execute("PRAGMA synchronous").fetchone()[0])
"""
    ended = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60)
    assert ended.stdout.strip() == "1"
    with closing(sqlite3.connect(tmp_path / "one.db")) as untouched:
        assert untouched.execute("PRAGMA synchronous").fetchone() == (2,)
