"""The verbs backup, restore and vacuum."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from ..errors import NotADatabaseError
from .console import counted, plain, progress_bar, say, size, write_json

if TYPE_CHECKING:
    from ..values.receipts import BackupReceipt, RestoreReceipt, VacuumReceipt
    from .target import Target

BACKUP_EXAMPLES: Final = (
    "Examples:\n\n  sessionstore backup agent-backup.db\n\n  sessionstore --store agent.db backup nightly.db --overwrite --json"
)
RESTORE_EXAMPLES: Final = "Example:\n\n  sessionstore --store agent.db restore agent-backup.db"
VACUUM_EXAMPLES: Final = "Examples:\n\n  sessionstore vacuum\n\n  sessionstore --store agent.db vacuum --full"

Json = Annotated[bool, typer.Option("--json", help="Write the receipt as JSON.")]


def backup(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Where to.")],
    *,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a file that is there.")] = False,
    json: Json = False,
) -> None:
    """Copy the whole store to a file, as it is at one moment, while programs go on writing."""
    target: Target = context.obj
    if os.path.lexists(file) and not overwrite:
        raise typer.BadParameter(f"{file} is there already; --overwrite replaces it.", param_hint="FILE")
    with target.open() as store, progress_bar(f"copying to {file}") as report:
        receipt = store.backup(file, overwrite=overwrite, progress=report)
    if json:
        write_json(plain(receipt))
    else:
        say(f"{receipt.path}: {_held(receipt)}")


def restore(
    context: typer.Context,
    backup: Annotated[Path, typer.Argument(metavar="BACKUP", help="The file to restore; it stays as it is.")],
    *,
    json: Json = False,
) -> None:
    """Put a copy of a backup in the place of the store, which no program may have open. What was there is kept."""
    import sessionstore

    target: Target = context.obj
    target.path()
    if not os.path.lexists(backup):
        # Before anything is said about the store.
        raise NotADatabaseError(backup, "there is no such file")
    with progress_bar(f"restoring {backup}") as report:
        receipt = sessionstore.restore(backup, target.location, key=target.key, progress=report)
    if json:
        write_json(plain(receipt))
        return
    say(f"{receipt.path}: {_held(receipt)}")
    if receipt.previous is not None:
        say(f"what was there before: {receipt.previous}")


def vacuum(
    context: typer.Context,
    *,
    full: Annotated[
        bool, typer.Option("--full", help="Rebuild the whole file; nobody can write meanwhile, and it needs as much free room.")
    ] = False,
    json: Json = False,
) -> None:
    """Give the room of what was deleted back to the file system."""
    target: Target = context.obj
    with target.open(migrate=True) as store, progress_bar("vacuuming") as report:
        receipt = store.vacuum(full=full, progress=report)
    if json:
        write_json(plain(receipt))
        return
    say(_given_back(receipt))
    if not receipt.complete:
        say("a program is reading; the file gets smaller when it is done and the log is copied")


def _held(receipt: BackupReceipt | RestoreReceipt) -> str:
    held = f"{counted(receipt.sessions, 'conversation')}, {counted(receipt.messages, 'message')}"
    return f"{held}, {size(receipt.size_bytes)}"


def _given_back(receipt: VacuumReceipt) -> str:
    done = "rebuilt" if receipt.full else "vacuumed"
    return f"{done}: {size(receipt.bytes_before)} before, {size(receipt.bytes_after)} after"
