"""The command line: `python -m benchmarks`, or `python -m benchmarks profile append`."""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from . import profiling
from .scale import QUICK, TRIAL, WHOLE, Scale

_ROOT = Path(__file__).parent.parent


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the command line asks for; the exit code is 0 whether targets are met or not."""
    options = _parser().parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix=".benchmarks-", dir=_folder(options.dir)) as folder:
        if options.command == "profile":
            profiling.profile(options.subject, Path(folder))
            return 0
        return _measure(options, Path(folder))


def _measure(options: argparse.Namespace, folder: Path) -> int:
    from . import machine, report
    from .bench import Bench
    from .items import chosen

    try:
        items = chosen(options.only)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    facts = machine.describe(folder)
    print(machine.line(facts), end="\n\n")
    print(report.headings(), flush=True)
    bench = Bench(folder, _scale(options))
    measured = []
    started = time.monotonic()
    for item in items:
        for row in item.rows(bench):
            measured.append(report.Measured(item.name, row))
            print(report.line(row), flush=True)
    print(f"\n{time.monotonic() - started:.0f} s, {bench.scale.rounds} rounds. {report.closing(measured, items)}")
    if options.json is not None:
        options.json.write_text(json.dumps(report.as_json(facts, measured), indent=1) + "\n")
    return 0


def _scale(options: argparse.Namespace) -> Scale:
    scale = TRIAL if options.trial else QUICK if options.quick else WHOLE
    return scale if options.rounds is None else replace(scale, rounds=options.rounds)


def _folder(given: Path | None) -> Path:
    """Beside the repository by default: the usual place for temporary files is in memory on many systems."""
    if given is not None:
        return given
    return _ROOT.parent if os.access(_ROOT.parent, os.W_OK) else _ROOT


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="The store beside plain sqlite3, in turns.")
    parser.add_argument("--quick", action="store_true", help="fewer rounds and calls, under half a minute")
    parser.add_argument("--trial", action="store_true", help="only see whether it runs; the figures mean nothing")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these work items; an unknown name lists them")
    parser.add_argument("--rounds", type=_at_least_one, metavar="N", help="how often the sides take turns")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there, too")
    parser.add_argument("--dir", type=Path, metavar="FOLDER", help="where the files are made; by default beside the repository")
    commands = parser.add_subparsers(dest="command", metavar="profile")
    profile = commands.add_parser("profile", help="run one work item under cProfile")
    profile.add_argument("subject", choices=sorted(profiling.SUBJECTS))
    return parser


def _at_least_one(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


if __name__ == "__main__":
    sys.exit(main())
