"""The verbs import, export and upgrade."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError
from .console import counted, progress_bar, say, size

if TYPE_CHECKING:
    from ..values.receipts import ExportReceipt, ImportReceipt
    from .app import Target
    from .looking import Choice

_STANDARD_STREAM = "-"


def import_files(target: Target, files: Sequence[str], **options: Any) -> None:
    """Store what the files hold, one after the other; the first error ends it."""
    for file in files:
        if file != _STANDARD_STREAM:
            # A mistyped name must not leave a new, empty store behind.
            Path(file).stat()
    with target.open(writing=True) as store:
        for file in files:
            source: Any = sys.stdin.buffer if file == _STANDARD_STREAM else Path(file)
            with progress_bar(f"importing {file}") as report:
                receipt = store.import_file(
                    source,
                    format=options["file_format"],
                    on_conflict=options["on_conflict"],
                    session_id=options["session_id"],
                    progress=report,
                )
            say(f"{file}: {_imported(receipt)}")


def export_sessions(
    target: Target, file: str, choice: Choice, session_ids: Sequence[str] | None, *, file_format: Any, all_namespaces: bool
) -> None:
    """Write sessions to a file or to stdout."""
    to_stdout = file == _STANDARD_STREAM
    place: Any = sys.stdout.buffer if to_stdout else Path(file)
    with target.open() as store, progress_bar("exporting", show=not (to_stdout and sys.stdout.isatty())) as report:
        receipt = store.export_file(
            place,
            format=file_format,
            session_ids=session_ids or None,
            all_namespaces=all_namespaces,
            progress=report,
            **choice.filters(),
        )
    say(f"{'' if to_stdout else file + ': '}{_exported(receipt)}")


def upgrade(target: Target) -> None:
    """Bring the file to this version's schema and say what was done."""
    try:
        with target.open() as store:
            status = store.status()
    except ConfigError:
        # The schema is older, or the location is wrong; then this raises the same again.
        with target.open(migrate=True) as store:
            status = store.status()
        say(f"{status.path}: upgraded to schema {status.schema_revision}")
        _tell_backup(Path(str(status.path)))
    else:
        say(f"{status.path}: has schema {status.schema_revision} already; nothing to do")


def _tell_backup(path: Path) -> None:
    from ..database.upgrade import BACKUP_INFIX

    for backup in sorted(path.parent.glob("*" + BACKUP_INFIX + "*.db")):
        if backup.name.startswith(path.name + BACKUP_INFIX):
            say(f"the file as it was before: {backup}")


def _imported(receipt: ImportReceipt) -> str:
    facts = [f"{counted(receipt.sessions, 'conversation')}, {counted(receipt.messages, 'message')} stored"]
    facts += [f"{receipt.replaced:,} of them replaced others"] if receipt.replaced else []
    facts += [f"{receipt.skipped:,} skipped, their ids are taken"] if receipt.skipped else []
    facts += [f"{old} is now {new}" for old, new in receipt.renamed]
    return "; ".join(facts)


def _exported(receipt: ExportReceipt) -> str:
    held = f"{counted(receipt.sessions, 'conversation')}, {counted(receipt.messages, 'message')}"
    return f"{held}, {size(receipt.size_bytes)} written"
