"""The command line: `python -m benchmarks.peers`."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from .. import machine
from ..__main__ import at_least_one, folder_for
from . import catalog, environments, report, work
from .run import TRIAL, WHOLE, Run, Scale
from .shapes import Processes

_ROOT = Path(__file__).parent.parent.parent


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what the command line asks for; the exit code is 0 whoever is ahead."""
    options = _parser().parse_args(arguments)
    try:
        items, peers = work.chosen(options.only), catalog.chosen(options.peers)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    scale = _scale(options)
    interpreters = environments.always(options.python) if options.python else environments.in_folder(options.venvs)
    with tempfile.TemporaryDirectory(prefix=".benchmarks-", dir=folder_for(options.dir)) as folder:
        found = _measure(Run(Path(folder), interpreters, scale, _complain), items, peers)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "peers.json").write_text(json.dumps(found.as_json(), indent=1) + "\n")
    (options.out / "peers.md").write_text(found.as_markdown())
    _draw(options.out)
    return 0


def _measure(run: Run, items: list[work.Item], peers: list[catalog.Peer]) -> report.Report:
    facts = machine.describe(run.folder)
    print(machine.line(facts), end="\n\n", flush=True)
    if report.is_busy(facts):
        print("The machine is busy: the rows at FULL will say nothing. Run this when nothing else does.", file=sys.stderr)
    started = time.monotonic()
    rows = []
    with closing(run):
        run.admit(peers, work.settings(items))
        for item in items:
            begun = time.monotonic()
            if not isinstance(item.shape, Processes):
                run.dismiss()
            row = report.Row(item, item.title(run.scale), tuple(item.shape.measure(run, item.sync)))
            rows.append(row)
            print(f"{report.line(row)} | {time.monotonic() - begun:.0f} s", flush=True)
    print(f"\n{time.monotonic() - started:.0f} s, {run.scale.rounds} rounds")
    return report.Report(facts, run.versions, run.standings, rows, run.scale)


def _draw(out: Path) -> None:
    from . import chart

    try:
        chart.draw(out / "peers.json", out)
    except ModuleNotFoundError as error:
        print(f"no charts, {error}: pip install --group bench, then python -m benchmarks.peers.chart {out}", file=sys.stderr)


def _complain(why: str) -> None:
    print(why, file=sys.stderr, flush=True)


def _scale(options: argparse.Namespace) -> Scale:
    scale = TRIAL if options.trial else WHOLE
    if options.rounds is None:
        return scale
    return replace(scale, rounds=options.rounds, heavy_rounds=min(options.rounds, scale.heavy_rounds))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=f"{__doc__} The store beside its peers.")
    parser.add_argument("--only", nargs="+", metavar="ITEM", help="these work items; an unknown name lists them")
    parser.add_argument(
        "--peers", nargs="+", metavar="NAME", help="these peers beside raw and the store; an unknown name lists them"
    )
    parser.add_argument("--rounds", type=at_least_one, metavar="N", help="how often the sides take turns")
    parser.add_argument("--trial", action="store_true", help="only see whether it runs; the figures mean nothing")
    parser.add_argument("--dir", type=Path, metavar="FOLDER", help="where the files are made; by default beside the repository")
    parser.add_argument("--venvs", type=Path, default=environments.default_folder(), metavar="FOLDER",
                        help="where the peers' environments are kept; by default %(default)s")  # fmt: skip
    parser.add_argument("--python", type=Path, metavar="FILE", help="use this interpreter for all peers, which has them installed")
    parser.add_argument("--out", type=Path, default=_ROOT / "docs" / "benchmarks", metavar="FOLDER",
                        help="where peers.md, peers.json and the charts go; by default docs/benchmarks")  # fmt: skip
    return parser


if __name__ == "__main__":
    sys.exit(main())
