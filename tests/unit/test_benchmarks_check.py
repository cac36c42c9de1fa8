"""`make bench-check`: what it calls slower, and what it leaves alone."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent.parent
FACTS = {
    "date": "2026-11-22", "commit": "abc", "cpu": "a processor", "cores": 2, "file_system": "ext4", "sync_ms": 0.2,
    "calibration_ms": 2.0,
}  # fmt: skip


@pytest.fixture
def checking(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(ROOT)
    return importlib.import_module("benchmarks.checking")


def row(
    *ratios: float, work: str = "append a turn", unit: str = "ms", raw: bool = True, store: tuple[float, ...] = ()
) -> dict[str, Any]:
    figure = {"rounds": list(ratios)}
    return {
        "item": "append",
        "work": work,
        "unit": unit,
        "ratio": figure if raw else None,
        "store": {"rounds": list(store or ratios)},
    }


def run(*rows: dict[str, Any], **facts: Any) -> dict[str, Any]:
    return {"machine": FACTS | facts, "scale": {"calls": 300}, "rows": list(rows)}


def changes(checking: ModuleType, before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    return [compared.change for compared in checking.compare(before, now).rows]


def test_a_row_is_slower_if_its_ratio_grew_by_a_quarter_and_no_round_reaches_into_the_others(checking: ModuleType) -> None:
    assert changes(checking, run(row(1.1, 1.2, 1.3)), run(row(1.5, 1.6, 1.7))) == ["slower"]


@pytest.mark.parametrize(
    ("before", "now"),
    [
        ((1.20, 1.21, 1.22), (1.40, 1.41, 1.42)),  # no round in common, but less than a quarter
        ((1.1, 1.2, 1.8), (1.5, 1.6, 1.7)),  # a third more, but one round was there before
        ((1.2,), (2.3,)),  # one round has no spread
    ],
)
def test_what_lies_within_the_spread_is_level(checking: ModuleType, before: tuple[float, ...], now: tuple[float, ...]) -> None:
    assert changes(checking, run(row(*before)), run(row(*now))) == ["level"]
    assert changes(checking, run(row(*now)), run(row(*before))) == ["level"]


def test_what_got_faster_is_said_and_is_no_failure(checking: ModuleType) -> None:
    found = checking.compare(run(row(1.5, 1.6, 1.7)), run(row(1.1, 1.2, 1.3)))
    assert [compared.change for compared in found.rows] == ["faster"]
    assert found.slower == []
    lines = checking.report(found)
    assert "faster: append | append a turn: 1.6 -> 1.2 times raw, 0.75 times (rounds 1.5-1.7 -> 1.1-1.3)" in lines
    assert lines[-1] == "Nothing got slower beyond the spread: 1 rows are level with the landed ones or faster."


def test_a_slow_machine_is_no_slow_store(checking: ModuleType) -> None:
    """What has no raw side is divided by how long fixed work took in the same run."""
    before, now = row(10, 11, 12, raw=False), row(20, 22, 24, raw=False)
    assert changes(checking, run(before), run(now, calibration_ms=4.0)) == ["level"]
    assert changes(checking, run(before), run(now)) == ["slower"]


def test_bytes_and_counts_are_not_divided_by_the_speed_of_the_machine(checking: ModuleType) -> None:
    before, now = row(60, 61, 62, raw=False, unit="MB"), row(120, 121, 122, raw=False, unit="MB")
    assert changes(checking, run(before), run(now, calibration_ms=4.0)) == ["slower"]


def test_on_another_machine_only_ratios_are_compared_and_the_rest_is_named(checking: ModuleType) -> None:
    rows = row(1.1, 1.2, 1.3), row(10, 11, 12, raw=False, work="an answer")
    found = checking.compare(run(*rows), run(*rows, cpu="another one"))
    assert [compared.name for compared in found.rows] == [("append", "append a turn", 0)]
    assert "not comparable on another machine: append | an answer" in checking.report(found)


def test_a_failure_where_there_was_none_is_slower_than_anything(checking: ModuleType) -> None:
    before, now = (row(*rounds, raw=False, unit="") for rounds in ((0.0, 0.0, 0.0), (0.0, 0.0, 1.0)))
    assert changes(checking, run(before), run(now)) == ["slower"]
    assert changes(checking, run(before), run(before)) == ["level"]


def test_rows_of_the_same_words_are_told_apart_by_their_order(checking: ModuleType) -> None:
    first, second = row(1.0, 1.1, 1.2, work="worst call"), row(5.0, 5.1, 5.2, work="worst call")
    assert changes(checking, run(first, second), run(first, second)) == ["level", "level"]
    assert changes(checking, run(first, second), run(first, row(9.0, 9.1, 9.2, work="worst call"))) == ["level", "slower"]


def test_a_row_that_was_not_landed_is_named_and_fails_nothing(checking: ModuleType) -> None:
    found = checking.compare(run(row(1.0, 1.1)), run(row(1.0, 1.1), row(9.0, 9.1, work="a new one")))
    assert found.slower == []
    assert "not among the landed figures: append | a new one" in checking.report(found)


def test_a_landed_row_that_the_run_has_not_is_named_if_its_item_was_run(checking: ModuleType) -> None:
    landed = run(row(1.0, 1.1), row(1.0, 1.1, work="gone"), row(1.0, 1.1) | {"item": "fork"}, row(1.0, 1.1) | {"item": "sweep"})
    for items, missing in ((None, "append | gone"), ({"append", "fork"}, "append | gone; fork | append a turn")):
        found = checking.compare(landed, run(row(1.0, 1.1)), items)
        assert found.slower == []
        assert f"landed, but not in this run: {missing}" in checking.report(found.confirmed_by(found))
    assert not any("landed, but" in line for line in checking.report(checking.compare(landed, landed)))


def test_only_what_is_slower_twice_is_slower(checking: ModuleType) -> None:
    landed = run(row(1.0, 1.1), row(1.0, 1.1, work="another"))
    first = checking.compare(landed, run(row(2.0, 2.1), row(2.0, 2.1, work="another")))
    again = checking.compare(landed, run(row(1.0, 1.1), row(2.0, 2.1, work="another")))
    assert [compared.name[1] for compared in first.confirmed_by(again).slower] == ["another"]


def test_a_disk_that_syncs_at_another_speed_is_said(checking: ModuleType) -> None:
    lines = checking.report(checking.compare(run(row(1.0, 1.1)), run(row(1.0, 1.1), sync_ms=0.9)))
    assert any(line.startswith("the disk's sync of 4 kB took 0.20 ms then and takes 0.90 now") for line in lines)


def test_figures_of_another_amount_of_work_are_refused_before_anything_is_measured(checking: ModuleType) -> None:
    with pytest.raises(checking.OtherWorkError, match="another amount of work"):
        checking.require_same_work(run(), {"calls": 100})


@pytest.mark.parametrize(("ratio", "code"), [(1e9, 0), (1e-9, 1)])
def test_the_exit_code_says_whether_something_got_slower(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], ratio: float, code: int
) -> None:
    """Against landed ratios that nothing can reach, and against some that nobody can miss."""
    monkeypatch.syspath_prepend(ROOT)
    program = importlib.import_module("benchmarks.__main__")
    landed = tmp_path / "landed.json"
    common = ["--trial", "--rounds", "1", "--dir", str(tmp_path)]
    assert program.main([*common, "--json", str(landed), "--only", "nothing-to-drain"]) == 0
    figures = json.loads(landed.read_text())
    for each in figures["rows"]:
        each["ratio"]["rounds"] = [ratio]
    landed.write_text(json.dumps(figures))
    assert program.main([*common, "check", "--against", str(landed)]) == code
    assert capsys.readouterr().out.count("Once more") == code


@pytest.mark.parametrize("content", [None, "no figures"])
def test_without_landed_figures_there_is_nothing_to_check(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], content: str | None
) -> None:
    monkeypatch.syspath_prepend(ROOT)
    program = importlib.import_module("benchmarks.__main__")
    landed = tmp_path / "landed.json"
    if content is not None:
        landed.write_text(content)
    assert program.main(["--dir", str(tmp_path), "check", "--against", str(landed)]) == 2
    assert "there are no landed figures" in capsys.readouterr().err
