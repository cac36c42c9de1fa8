"""The table of docs/reliability.md: each guarantee, the faults that it is tried with, where, and the figures of the last run.

python tests/reliability_table.py faults-release.json                             prints it
python tests/reliability_table.py faults-release.json --into docs/reliability.md  writes it between its two marks there

Of several files the later ones win: faults-nightly.json faults-release.json takes from the night what the release run left out.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from trials import FAULTS

BEGIN: Final = "<!-- figures: begin -->"
END: Final = "<!-- figures: end -->"
# A cell holds so many figures; the JSON has all.
MOST: Final = 6


class Guarantee(NamedTuple):
    """A promise, by its number in the contract."""

    number: str
    promise: str
    faults: tuple[str, ...]
    tested: str


GUARANTEES: Final = (
    Guarantee(
        "G1",
        "A call that returned is on disk through `kill -9`",
        ("F1", "F2"),
        "`faults/test_kill.py`, `test_copy_kill.py`, `test_restore_kill.py`: at random moments, and at each system call; a third "
        "process looks",
    ),
    Guarantee(
        "G2",
        'With `durability="full"` also through a power loss; with `"normal"` a state that the file had, never damage',
        ("F3",),
        "`faults/test_kill.py`: recorded writes, replayed as the disks that a cut could leave; torn at 512 bytes",
    ),
    Guarantee(
        "G3",
        "A message and its event exist both or neither",
        ("F1", "F2", "F3"),
        "the same: sweeps and deliveries are among what is killed; whole files are compared",
    ),
    Guarantee(
        "G4",
        "Never a half upgrade; started at once, one upgrades",
        ("F12", "F13"),
        "`faults/test_upgrade_deaths.py`: at every statement of every revision; `integration/test_migrations.py`, "
        "`test_concurrency.py`",
    ),
    Guarantee(
        "G5",
        "A write-ahead log only where it is safe",
        ("F15", "F16"),
        "`unit/test_engine.py`, `test_filesystem.py`: versions and mount tables that are made up",
    ),
    Guarantee(
        "G6",
        "Damage is an error, never an empty or wrong answer; the file is kept",
        ("F17", "F18"),
        "`faults/test_disk_faults.py`, `integration/test_open_paths.py`",
    ),
    Guarantee(
        "G7",
        "A backup is one moment; a restore completes or leaves the old store",
        ("F19",),
        "`integration/test_backup.py`, `faults/test_restore_kill.py`",
    ),
    Guarantee(
        "G8",
        "Reads see own writes; writers wait at most `busy_timeout`",
        ("F8",),
        "`faults/test_many_writers.py`, `integration/test_concurrency.py`",
    ),
    Guarantee("G9", "A slow reader cannot grow the log unseen", ("F9",), "`integration/test_concurrency.py`"),
    Guarantee(
        "G10",
        "A cancelled call is done or not begun, and leaves no transaction open",
        ("F11",),
        "`faults/test_cancellations.py`: at every await of 14 calls, on asyncio and trio; `faults/test_interrupts.py`: Ctrl-C",
    ),
    Guarantee("G11", "A forked child cannot use its parent's store", ("F10",), "`integration/test_fork_and_exit.py`"),
    Guarantee("G12", "Closing ends in time and loses nothing", ("F6",), "`faults/test_sync_shutdown.py`"),
    Guarantee(
        "G13",
        "Every event ends sent, dead, erased or pending; counts add up",
        ("F4", "F20", "F21", "F22", "F23", "F24", "F25", "F26", "F27", "F28", "F29", "F30", "F39"),
        "`faults/test_sync_kill.py`, `test_sync_faults.py`; `integration/test_outbox.py`; `simulation/`",
    ),
    Guarantee(
        "G14",
        "No duplicates at a receiver that looks at keys",
        ("F4", "F22", "F39"),
        "`faults/test_sync_kill.py`, `test_sync_faults.py`",
    ),
    Guarantee("G15", "In order within a session", ("F4", "F39"), "`faults/test_sync_kill.py`"),
    Guarantee(
        "G16",
        "Two processes never hold one lease; a late one marks nothing",
        ("F4", "F5", "F39"),
        "`faults/test_sync_shutdown.py`: stopped processes",
    ),
    Guarantee(
        "G17",
        "Offline costs disk only, up to a quota; messages are never dropped",
        ("F7", "F21", "F31"),
        "`faults/test_disk_faults.py`, `test_full_disk.py`, `integration/test_outbox.py`, `test_offline_day.py`",
    ),
    Guarantee("G18", "Retry-After is honoured; a dead server is asked seldom", ("F23",), "`faults/test_sync_faults.py`"),
    Guarantee("G19", "A poisoned event holds up its session only, then it is dead", ("F25", "F26"), "`faults/test_sync_faults.py`"),
    Guarantee("G20", "401 and 403 pause all at once and cost no attempt", ("F24",), "`faults/test_sync_faults.py`"),
    Guarantee(
        "G21",
        "A clock that jumps loses nothing and holds nothing for long",
        ("F32",),
        "`integration/test_sweep.py`, `test_background.py`, `test_deliveries.py`",
    ),
    Guarantee(
        "G22", "Expired data is invisible at once; sweeps go in batches", ("F33",), "`integration/test_sweep.py`, `test_ttl.py`"
    ),
    Guarantee("G23", "Erased text stands in no byte", ("F34",), "`faults/test_erase_bytes.py`"),
    Guarantee(
        "G24",
        "Keys are in no log, error, repr or file",
        ("F28", "F35"),
        "`faults/test_sync_secrets.py`, `test_encryption_secrets.py`, `integration/test_logging.py`",
    ),
    Guarantee(
        "G25",
        "No input changes a query or reaches a path",
        ("F14", "G25"),
        "`integration/test_bad_input.py`, `test_open_paths.py`, `fuzz/`",
    ),
    Guarantee(
        "G26",
        "What is accepted reads back equal; what is refused is not written",
        ("F38", "G26"),
        "`integration/test_model.py`, `test_forks.py`, `test_replace_range.py`, `unit/test_content.py`, `fuzz/`",
    ),
    Guarantee("G27", "Files are 0600, links are refused", ("F14",), "`integration/test_open_paths.py`"),
    Guarantee(
        "G28",
        "Of an encrypted store nothing is readable; a flipped bit is found",
        ("F36",),
        "`faults/test_encryption_secrets.py`, `test_encryption_kill.py`",
    ),
    Guarantee(
        "G29",
        "The collector answers this machine only, or those with a key",
        ("F37",),
        "`integration/test_collector.py`, `test_collector_trouble.py`",
    ),
    Guarantee(
        "G30",
        "What was dropped, died or was put off is counted; long use stays flat",
        ("F38", "F40"),
        "`integration/test_outbox.py`; `soak/`",
    ),
)


def table(trials: list[dict[str, Any]]) -> str:
    """The guarantees, and below them the figures of each fault."""
    rows = ["| | guarantee | tried with | in `tests/` |", "|---|---|---|---|"]
    rows += [f"| {each.number} | {each.promise} | {', '.join(each.faults)} | {each.tested} |" for each in GUARANTEES]
    rows += ["", "| | fault | last figure |", "|---|---|---|"]
    rows += [f"| {fault} | {name} | {figures_of(fault, trials)} |" for fault, name in FAULTS.items()]
    return "\n".join(rows) + "\n"


def figures_of(fault: str, trials: list[dict[str, Any]]) -> str:
    """What the tests of a fault reported; the others are counted."""
    of_fault = [trial for trial in trials if fault in trial["faults"]]
    # Asked on both event loops, or in several ways, a figure is told once.
    told = list(dict.fromkeys(said(trial) for trial in of_fault if trial["figure"] or trial["outcome"] != "passed"))
    if len(told) > MOST:
        told[MOST:] = [f"{len(told) - MOST} more figures"]
    silent = sum(trial["outcome"] == "passed" and not trial["figure"] for trial in of_fault)
    if silent:
        told.append(f"{silent} {'further ' if told else ''}tests passed")
    return "; ".join(told).replace("|", "\\|") or "not in this run"


def said(trial: dict[str, Any]) -> str:
    """The figure of a test, its tier if it was a shorter one than the release's, and what it left out."""
    figure = trial["figure"] or f"{trial['test'].rpartition('::')[2]}"
    outcome = "" if trial["outcome"] == "passed" else f"{trial['outcome']}: "
    shorter = trial["tier"] if trial["figure"] and trial["tier"] != "release" else ""
    notes = [note for note in (shorter, trial["skipped"]) if note]
    return outcome + figure + (f" ({'; '.join(notes)})" if notes else "")


def merged(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What the tests reported in the last of the runs that they were in."""
    last: dict[str, list[dict[str, Any]]] = {}
    for run in runs:
        of_run: dict[str, list[dict[str, Any]]] = {}
        for trial in run["trials"]:
            of_run.setdefault(trial["test"], []).append(trial)
        last.update(of_run)
    return [trial for trials in last.values() for trial in trials]


def page(runs: list[dict[str, Any]]) -> str:
    """On what the figures were taken, and the table."""
    trials = merged(runs)
    engines = ", ".join(sorted({trial["engine"] for trial in trials}))
    systems = ", ".join(sorted({trial["file_system"] for trial in trials}))
    newest = max(runs, key=lambda run: run["at"])
    tiers = " and ".join(dict.fromkeys(run["tier"] for run in runs))
    machine = f"SQLite {engines}, {systems}, Python {newest['python']}, {newest['processors']} processors"
    return f"Tier {tiers}, {newest['at'][:10]}, {machine}.\n\n{table(trials)}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table, or put it into a document."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("figures", nargs="+", type=Path, help="what pytest wrote for --figures")
    parser.add_argument("--into", type=Path, metavar="DOCUMENT", help="a document with the two marks")
    options = parser.parse_args(arguments)
    text = page([json.loads(path.read_text(encoding="utf-8")) for path in options.figures])
    if options.into is None:
        print(text, end="")
        return
    before, _, rest = options.into.read_text(encoding="utf-8").partition(BEGIN)
    _, found, after = rest.partition(END)
    if not found:
        raise SystemExit(f"{options.into} has no {BEGIN} and {END}")
    options.into.write_text(f"{before}{BEGIN}\n{text}{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
