"""How fault trials get their size and report their figures: in one process and through pytest-xdist."""

from __future__ import annotations

import json
import re
import sqlite3
from pathlib import Path
from typing import Any

import pytest
import reliability_table
from trials import FAULTS

pytest_plugins = ["pytester"]

TESTS = """
import pytest
from trials import Trial

@pytest.mark.fault("F2", "F1")
def test_killing(trial: Trial) -> None:
    cycles = trial.size(push=50, nightly=300, release=1_000)
    trial.report(f"{cycles:,} cycles: 0 lost", skipped="3 of 474 points: no file was open", cycles=cycles, folder=pytest)
    trial.report("in memory", journal_mode=None, engine="9.9.9", file_system="tmpfs")

@pytest.mark.fault("F20")
@pytest.mark.parametrize("number", [1, 2])
def test_offline(number: int) -> None:
    pass

@pytest.mark.fault("F41")
def test_server() -> None:
    pytest.skip("no server here")

@pytest.mark.fault("F41")
@pytest.mark.skipif(True, reason="never here")
def test_other_server() -> None:
    pass

@pytest.mark.fault("F3")
def test_failing(trial: Trial) -> None:
    trial.report("1 lost")
    assert False

@pytest.fixture
def broken() -> None:
    raise OSError

@pytest.mark.fault("F4")
def test_broken(broken: None) -> None:
    pass

def test_without_a_fault() -> None:
    pass
"""


@pytest.fixture
def folder(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    monkeypatch.setenv("SESSIONSTORE_SEED", "17")
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
    pytester.makeconftest('pytest_plugins = ("trials",)')
    pytester.makepyfile(TESTS)
    return pytester


def told(folder: pytest.Pytester, *options: str) -> tuple[pytest.RunResult, dict[str, Any]]:
    done = folder.runpytest_subprocess("-p", "no:cacheprovider", "--figures", "figures.json", *options)
    return done, json.loads((folder.path / "figures.json").read_text())


@pytest.mark.parametrize("options", [(), ("-p", "xdist.plugin", "-n", "2")], ids=["one process", "xdist"])
def test_figures_are_printed_and_written_with_what_they_were_taken_on(folder: pytest.Pytester, options: tuple[str, ...]) -> None:
    done, figures = told(folder, "--tier", "nightly", *options)
    done.assert_outcomes(passed=4, failed=1, skipped=2, errors=1)
    killing, memory, failed, broken, *offline, other_server, server = figures["trials"]
    assert figures["tier"] == "nightly"
    assert killing == {
        "faults": ["F1", "F2"],
        "test": killing["test"],
        "outcome": "passed",
        "figure": "300 cycles: 0 lost",
        "seed": 17,
        "engine": sqlite3.sqlite_version,
        "journal_mode": "wal",
        "file_system": killing["file_system"],
        "tier": "nightly",
        "skipped": "3 of 474 points: no file was open",
        "seconds": killing["seconds"],
        "facts": {"cycles": 300, "folder": killing["facts"]["folder"]},
    }
    assert killing["test"].endswith("::test_killing")
    assert (memory["figure"], memory["engine"], memory["journal_mode"], memory["file_system"]) == (
        "in memory",
        "9.9.9",
        None,
        "tmpfs",
    )
    assert (failed["outcome"], failed["figure"]) == ("failed", "1 lost")
    assert (broken["outcome"], broken["figure"]) == ("failed", None)
    assert [(entry["outcome"], entry["figure"], entry["seed"]) for entry in offline] == [("passed", None, None)] * 2
    assert (server["faults"], server["outcome"], server["skipped"]) == (["F41"], "skipped", "no server here")
    assert (other_server["outcome"], other_server["skipped"]) == ("skipped", "never here")
    done.stdout.fnmatch_lines(
        [
            "*trials, tier nightly*",
            "F1 F2    300 cycles: 0 lost (skipped: 3 of 474 points: no file was open) [[]seed 17, SQLite *, wal, * s[]]",
            "F1 F2    in memory [[]seed 17, SQLite 9.9.9, tmpfs, * s[]]",
            "F3       FAILED 1 lost *",
            "F4       FAILED *test_broken*",
            "F41      SKIPPED *(skipped: never here)*",
            "F41      SKIPPED *(skipped: no server here)*",
            "F20      2 more passed (*",
        ]
    )


@pytest.mark.parametrize(("options", "size"), [((), 50), (("--tier", "push"), 50), (("--tier", "release"), 1_000)])
def test_the_tier_chooses_the_size_and_push_is_the_default(folder: pytest.Pytester, options: tuple[str, ...], size: int) -> None:
    done, figures = told(folder, "-k", "killing", *options)
    done.assert_outcomes(passed=1, deselected=7)
    assert figures["trials"][0]["facts"]["cycles"] == size


def test_the_mark_chooses_the_trials(folder: pytest.Pytester) -> None:
    done, figures = told(folder, "-m", "fault")
    done.assert_outcomes(passed=3, failed=1, skipped=2, errors=1, deselected=1)
    assert len(figures["trials"]) == 8


def test_a_fault_that_nobody_knows_is_refused(folder: pytest.Pytester) -> None:
    folder.makepyfile(test_unknown="import pytest\n@pytest.mark.fault('F99')\ndef test_it(): pass\n")
    done = folder.runpytest_subprocess("-p", "no:cacheprovider", "test_unknown.py")
    assert done.ret == pytest.ExitCode.USAGE_ERROR
    done.stderr.fnmatch_lines(["*names faults that are not in tests/trials.py: F99*"])


def test_a_run_without_trials_says_nothing_of_them(folder: pytest.Pytester) -> None:
    done = folder.runpytest_subprocess("-p", "no:cacheprovider", "-k", "without_a_fault")
    done.stdout.no_fnmatch_line("*trials, tier*")


# -- the table of docs/reliability.md


def test_each_fault_belongs_to_a_guarantee_and_each_guarantee_is_tried() -> None:
    """But for PostgreSQL, which no store is kept on yet."""
    assert [each.number for each in reliability_table.GUARANTEES] == [f"G{number}" for number in range(1, 31)]
    tried = {fault for each in reliability_table.GUARANTEES for fault in each.faults}
    assert FAULTS.keys() - tried == {"F41"}
    assert tried <= FAULTS.keys()


def test_the_files_that_the_table_names_are_there() -> None:
    tests = Path(__file__).parents[1]
    for guarantee in reliability_table.GUARANTEES:
        folder = ""
        for name in re.findall(r"`([\w/]+(?:\.py|/))`", guarantee.tested):
            folder = name.rpartition("/")[0] or folder
            place = tests / name if "/" in name else tests / folder / name
            found = place if place.exists() else next(iter(tests.glob(f"*/{name}")), place)
            assert found.exists(), f"{guarantee.number} names {name}"


def test_the_table_is_written_between_its_marks_with_the_figures_of_a_run(folder: pytest.Pytester) -> None:
    told(folder)
    document = folder.path / "reliability.md"
    document.write_text(f"before\n{reliability_table.BEGIN}\nold\n{reliability_table.END}\nafter\n")
    for _ in range(2):
        reliability_table.main([str(folder.path / "figures.json"), "--into", str(document)])
    written = document.read_text()
    assert written.startswith("before\n")
    assert written.endswith("\nafter\n")
    assert (
        written.count(
            "| F1 | kill -9 while writing | 50 cycles: 0 lost (push; 3 of 474 points: no file was open); in memory (push) |"
        )
        == 1
    )
    assert "| F20 | no connection | 2 tests passed |" in written
    assert "| F41 | PostgreSQL | skipped: test_other_server (never here); skipped: test_server (no server here) |" in written
    assert "| F5 | the holder of a lease stalls | not in this run |" in written


def test_of_two_runs_the_later_one_tells_what_both_tried() -> None:
    def run(tier: str, **figures: str) -> dict[str, Any]:
        plain = {"faults": ["F1"], "outcome": "passed", "skipped": None, "engine": "3", "file_system": "ext4", "tier": tier}
        trials = [{**plain, "test": test, "figure": figure} for test, figure in figures.items()]
        return {"tier": tier, "at": f"2026-01-0{len(tier)}", "python": "3", "processors": 2, "trials": trials}

    page = reliability_table.page([run("nightly", one="10 cycles", two="20 cuts"), run("release", one="1,000 cycles")])
    assert page.startswith("Tier nightly and release, 2026-01-07, SQLite 3, ext4, Python 3, 2 processors.")
    assert "| F1 | kill -9 while writing | 1,000 cycles; 20 cuts (nightly) |" in page
