"""Trials: tests that inject faults say which, take their size from the tier, and report their figure.

    @pytest.mark.fault("F1")
    def test_a_killed_writer_loses_no_acknowledged_message(trial: Trial) -> None:
        cycles = trial.size(push=50, nightly=300, release=1_000)
        ...
        trial.report(f"{cycles:,} cycles: {acked:,} acknowledged, 0 lost", skipped="3 of 474 points: no file was open")

`pytest --tier nightly -m fault --figures FILE` runs them at the length of a tier (push by default) and writes what they
reported; every run prints it at its end. SESSIONSTORE_SEED repeats a run. Reports travel as user properties, so they come
through pytest-xdist as well.
"""

from __future__ import annotations

import json
import os
import platform
import random
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

import pytest

from sessionstore.database import filesystem

Tier = Literal["push", "nightly", "release"]
Size = TypeVar("Size")

TIERS: Final = ("push", "nightly", "release")
SEED_VARIABLE: Final = "SESSIONSTORE_SEED"
PROPERTY: Final = "trial"
FILE_SYSTEM: Final = pytest.StashKey[str]()

FAULTS: Final = {
    "F1": "kill -9 while writing",
    "F2": "kill at every system call",
    "F3": "power loss",
    "F4": "senders are killed in mid-delivery",
    "F5": "the holder of a lease stalls",
    "F6": "shutdown while offline, in mid-request, with a full queue",
    "F7": "a write or a sync fails",
    "F8": "many writers at once",
    "F9": "a reader pins a snapshot",
    "F10": "a fork with an open store",
    "F11": "a call is cancelled",
    "F12": "an upgrade dies",
    "F13": "many processes open a new store",
    "F14": "permissions, links, owners",
    "F15": "an engine with known faults",
    "F16": "a file system without shared memory",
    "F17": "flipped bits, cut files",
    "F18": "foreign files beside the store",
    "F19": "backup under load, restore",
    "F20": "no connection",
    "F21": "a week offline",
    "F22": "an answer is lost",
    "F23": "the remote asks to wait",
    "F24": "the remote refuses the key",
    "F25": "a poisoned event",
    "F26": "a batch is too large",
    "F27": "an answer that is none",
    "F28": "a redirect",
    "F29": "a bad certificate",
    "F30": "a remote that is slow or never ends",
    "F31": "a quota is reached, the disk is full",
    "F32": "the clock jumps",
    "F33": "much expires at once",
    "F34": "erased text in the file",
    "F35": "secrets in logs and errors",
    "F36": "an encrypted file is read, damaged, rekeyed",
    "F37": "requests from elsewhere to a local server",
    "F38": "random operations",
    "F39": "a simulation of writers and senders",
    "F40": "a long mixed load",
    "F41": "PostgreSQL",
    "G25": "input that means to be a query or a path",
    "G26": "input of every kind",
}


@dataclass(frozen=True)
class Trial:
    """What a test that injects faults is told, and where it reports."""

    tier: Tier
    seed: int
    reports: list[dict[str, Any]] = field(default_factory=list)

    def size(self, *, push: Size, nightly: Size, release: Size) -> Size:
        """The one of three lengths that belongs to the tier."""
        return {"push": push, "nightly": nightly, "release": release}[self.tier]

    def report(
        self,
        figure: str,
        *,
        journal_mode: str | None = "wal",
        skipped: str | None = None,
        engine: str | None = None,
        file_system: str | None = None,
        **facts: Any,
    ) -> None:
        """Say what was seen, in one line.

        Args:
            figure: How much was tried, and what came of it.
            journal_mode: Of the files that were tried; None if there were none.
            skipped: What was left out, and why.
            engine: The version of SQLite, if it is not that of `sqlite3`.
            file_system: Its type, if the files were not in `tmp_path`.
            facts: Further figures, for the JSON; what JSON cannot hold is written as text.
        """
        told = {"figure": figure, "journal_mode": journal_mode, "skipped": skipped, "engine": engine, "file_system": file_system}
        self.reports.append({name: value for name, value in told.items() if value is not None} | {"facts": plain(facts)})


def plain(facts: dict[str, Any]) -> dict[str, Any]:
    """Facts as JSON holds them: so they pass between processes too."""
    held: dict[str, Any] = json.loads(json.dumps(facts, default=str))
    return held


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("trials", "fault trials")
    group.addoption("--tier", choices=TIERS, default="push", help="how long the trials are: push (the default), nightly or release")
    group.addoption("--figures", metavar="FILE", help="write what the trials reported into this JSON file")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "fault(*ids): which faults a test injects, by their numbers in FAULTS of tests/trials.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if faults := faults_of(item):
            item.user_properties.append((PROPERTY, {"faults": faults}))


def faults_of(item: pytest.Item) -> list[str]:
    """The numbers that a test's marks name, in their order."""
    named = {fault for mark in item.iter_markers("fault") for fault in mark.args}
    if unknown := named - FAULTS.keys():
        raise pytest.UsageError(f"{item.nodeid} names faults that are not in tests/trials.py: {', '.join(sorted(unknown))}")
    return sorted(named, key=list(FAULTS).index)


@pytest.fixture
def trial(request: pytest.FixtureRequest) -> Trial:
    """The tier, a seed that is printed so that a failure can be repeated, and `report`."""
    given = os.environ.get(SEED_VARIABLE)
    told = Trial(tier=request.config.getoption("--tier"), seed=int(given) if given else random.randrange(2**32))
    print(f"{SEED_VARIABLE}={told.seed}")
    request.node.user_properties.append((PROPERTY, {"seed": told.seed, "reports": told.reports}))
    return told


@pytest.fixture(scope="session", autouse=True)
def _file_system_of_trials(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> None:
    kind = filesystem.kind_of(tmp_path_factory.getbasetemp().resolve())
    request.config.stash[FILE_SYSTEM] = kind or "unknown"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Any:
    report: pytest.TestReport = yield
    if any(name == PROPERTY for name, _ in report.user_properties):
        where = item.config.stash.get(FILE_SYSTEM, "unknown")
        report.user_properties = [*report.user_properties, (PROPERTY, {"machine_file_system": where})]
    return report


def results(reports: dict[str, list[Any]], tier: str) -> list[dict[str, Any]]:
    """One entry for each figure, and one for each test with a fault mark that reported none; failed and skipped ones too."""
    found: dict[str, dict[str, Any]] = {}
    for outcome in ("passed", "skipped", "failed", "error"):
        for report in reports.get(outcome, []):
            told = told_by(report)
            if told and (outcome != "passed" or report.when == "call"):
                found[report.nodeid] = told | {"outcome": "failed" if outcome == "error" else outcome, "report": report}
    entries = [entry for told in found.values() for entry in entries_of(told, tier)]
    order = list(FAULTS)
    return sorted(entries, key=lambda entry: (order.index(entry["faults"][0]), entry["test"]))


def told_by(report: Any) -> dict[str, Any]:
    """What a test said of its faults; nothing if it has no mark."""
    told: dict[str, Any] = {}
    for name, value in getattr(report, "user_properties", ()):
        if name == PROPERTY:
            told |= value
    return told if "faults" in told else {}


def entries_of(told: dict[str, Any], tier: str) -> Iterator[dict[str, Any]]:
    report = told["report"]
    reason = skip_reason(report) if told["outcome"] == "skipped" else None
    for figure in told.get("reports") or [{}]:
        yield {
            "faults": told["faults"],
            "test": report.nodeid,
            "outcome": told["outcome"],
            "figure": figure.get("figure"),
            "seed": told.get("seed"),
            "engine": figure.get("engine", sqlite3.sqlite_version),
            "journal_mode": figure.get("journal_mode"),
            "file_system": figure.get("file_system", told["machine_file_system"]),
            "tier": tier,
            "skipped": figure.get("skipped", reason),
            "seconds": round(report.duration, 2),
            "facts": figure.get("facts", {}),
        }


def skip_reason(report: pytest.TestReport) -> str:
    """Why pytest skipped a test."""
    said = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    return said.removeprefix("Skipped: ")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    tier = config.getoption("--tier")
    entries = results(terminalreporter.stats, tier)
    if entries:
        terminalreporter.section(f"trials, tier {tier}")
        for line in lines(entries):
            terminalreporter.write_line(line)
    if file := config.getoption("--figures"):
        write_figures(Path(file), tier, entries)
        terminalreporter.write_line(f"figures: {file}")


def lines(entries: list[dict[str, Any]]) -> Iterator[str]:
    """A line for each figure, skip and failure; tests that passed without a figure are counted by their faults."""
    silent: dict[str, list[float]] = {}
    for entry in entries:
        faults = " ".join(entry["faults"])
        if entry["outcome"] == "passed" and entry["figure"] is None:
            silent.setdefault(faults, []).append(entry["seconds"])
        else:
            yield f"{faults:8} {line_of(entry)}"
    for faults, seconds in silent.items():
        yield f"{faults:8} {len(seconds)} more passed ({sum(seconds):.1f} s)"


def line_of(entry: dict[str, Any]) -> str:
    said = [entry["figure"] or entry["test"]]
    if entry["outcome"] != "passed":
        said.insert(0, entry["outcome"].upper())
    if entry["skipped"]:
        said.append(f"(skipped: {entry['skipped']})")
    around = [f"seed {entry['seed']}"] if entry["seed"] is not None else []
    around += [
        f"SQLite {entry['engine']}",
        *filter(None, [entry["journal_mode"]]),
        entry["file_system"],
        f"{entry['seconds']:.1f} s",
    ]
    return f"{' '.join(said)} [{', '.join(around)}]"


def write_figures(file: Path, tier: str, entries: list[dict[str, Any]]) -> None:
    told = {
        "tier": tier,
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "system": platform.platform(),
        "processors": os.cpu_count(),
        "trials": entries,
    }
    file.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
