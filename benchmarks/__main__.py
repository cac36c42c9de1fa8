"""The command line: `python -m benchmarks`, and after it `profile append` or `check`."""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from . import profiling
from .scale import QUICK, TRIAL, WHOLE, Scale

if TYPE_CHECKING:
    from .bench import Bench, Item
    from .report import Measured

_ROOT = Path(__file__).parent.parent
LANDED: Final = _ROOT / "docs" / "benchmarks" / "store.json"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the command line asks for.

    Returns:
        0 whether targets are met or not; 1 if `check` found something slower; 2 if what was asked for cannot be done.
    """
    options = _parser().parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix=".benchmarks-", dir=folder_for(options.dir)) as name:
        folder = Path(name)
        if options.command == "profile":
            profiling.profile(options.subject, folder)
            return 0
        try:
            return _check(options, folder) if options.command == "check" else _measure(options, folder)
        except _ImpossibleError as error:
            print(error, file=sys.stderr)
            return 2


class _ImpossibleError(Exception):
    """Why what was asked for is not done."""


def _measure(options: argparse.Namespace, folder: Path) -> int:
    _figures(options, _items(options.only), folder, output=options.json)
    return 0


def _check(options: argparse.Namespace, folder: Path) -> int:
    """Measure again what was landed, and once more what seems to have got slower: noise does not come twice."""
    from . import checking

    landed = _landed(options.against)
    try:
        checking.require_same_work(landed, _amounts(options))
    except checking.OtherWorkError as error:
        raise _ImpossibleError(error) from error
    items = _items(options.only or sorted({row["item"] for row in landed["rows"]}))
    figures = _figures(options, items, folder, output=options.json)
    found = checking.compare(landed, figures, {item.name for item in items})
    if found.slower:
        print("\nOnce more, what seems to have got slower:\n")
        suspects = _items(sorted({row.name[0] for row in found.slower}))
        found = found.confirmed_by(checking.compare(landed, _figures(options, suspects, folder, output=None)))
    print("\n" + "\n".join(checking.report(found)))
    return 1 if found.slower else 0


def _items(names: list[str] | None) -> list[Item]:
    from .items import chosen

    try:
        return chosen(names)
    except ValueError as error:
        raise _ImpossibleError(error) from error


def _landed(path: Path) -> dict[str, Any]:
    try:
        landed: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise _ImpossibleError(f"{path}: there are no landed figures: {error}") from error
    return landed


def _amounts(options: argparse.Namespace) -> dict[str, int]:
    from . import report

    return report.amounts(_scale(options))


def _figures(options: argparse.Namespace, items: Sequence[Item], folder: Path, *, output: Path | None) -> dict[str, Any]:
    """Measure and print; all figures, as they go into a file."""
    from . import machine, report
    from .bench import Bench

    scale = _scale(options)
    facts = machine.describe(folder)
    print(machine.line(facts), end="\n\n")
    print(report.headings(), flush=True)
    started = time.monotonic()
    measured = list(_rows(items, Bench(folder, scale)))
    print(f"\n{time.monotonic() - started:.0f} s, {scale.rounds} rounds. {report.closing(measured, items)}")
    figures = report.as_json(facts, scale, measured)
    if output is not None:
        output.write_text(json.dumps(figures, indent=1) + "\n")
    return figures


def _rows(items: Sequence[Item], bench: Bench) -> Iterable[Measured]:
    from . import report

    for item in items:
        for row in item.rows(bench):
            print(report.line(row), flush=True)
            yield report.Measured(item.name, row)


def _scale(options: argparse.Namespace) -> Scale:
    scale = TRIAL if options.trial else QUICK if options.quick else WHOLE
    return scale if options.rounds is None else replace(scale, rounds=options.rounds)


def folder_for(given: Path | None) -> Path:
    """Beside the repository by default: the usual place for temporary files is in memory on many systems."""
    if given is not None:
        return given
    return _ROOT.parent if os.access(_ROOT.parent, os.W_OK) else _ROOT


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="The store beside plain sqlite3, in turns.")
    parser.add_argument("--quick", action="store_true", help="fewer rounds and calls, under half a minute")
    parser.add_argument("--trial", action="store_true", help="only see whether it runs; the figures mean nothing")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these work items; an unknown name lists them")
    parser.add_argument("--rounds", type=at_least_one, metavar="N", help="how often the sides take turns")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there, too")
    parser.add_argument("--dir", type=Path, metavar="FOLDER", help="where the files are made; by default beside the repository")
    commands = parser.add_subparsers(dest="command", metavar="profile | check")
    profile = commands.add_parser("profile", help="run one work item under cProfile")
    profile.add_argument("subject", choices=sorted(profiling.SUBJECTS))
    check = commands.add_parser("check", help="measure again, and say what got slower than the landed figures")
    check.add_argument(
        "--against", type=Path, metavar="FILE", default=LANDED, help="what --json wrote; by default the landed figures"
    )
    # Also after the command, where --only does not take the command for a name.
    check.add_argument("--only", nargs="+", metavar="NAME", default=argparse.SUPPRESS, help="these work items")
    check.add_argument("--rounds", type=at_least_one, metavar="N", default=argparse.SUPPRESS, help="how often the sides take turns")
    return parser


def at_least_one(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


if __name__ == "__main__":
    sys.exit(main())
