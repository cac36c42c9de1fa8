"""The verbs import, export and upgrade."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError, ConflictError
from ..formats import TABLE_FORMATS
from .console import counted, progress_bar, say, size

if TYPE_CHECKING:
    from ..values.receipts import ExportReceipt, ImportReceipt
    from .looking import Choice
    from .target import Target

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
            with _advising_on_conflict(options["on_conflict"]), progress_bar(f"importing {file}") as report:
                receipt = store.import_file(
                    source,
                    format=options["file_format"],
                    on_conflict=options["on_conflict"],
                    session_id=options["session_id"],
                    progress=report,
                )
            say(f"{file}: {_imported(receipt)}")


def export_sessions(target: Target, file: str, choice: Choice, session_ids: Sequence[str] | None, options: dict[str, Any]) -> None:
    """Write sessions, or a view, to a file or to stdout."""
    to_stdout = file == _STANDARD_STREAM
    place: Any = sys.stdout.buffer if to_stdout else Path(file)
    with target.open() as store, progress_bar("exporting", show=not (to_stdout and sys.stdout.isatty())) as report:
        receipt = store.export_file(
            place,
            session_ids=session_ids or None,
            progress=report,
            **options,
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


@contextmanager
def _advising_on_conflict(chosen: str) -> Iterator[None]:
    """Let a conflict say which options let the import go on."""
    try:
        yield
    except ConflictError as error:
        others = "|".join(way for way in ("skip", "replace", "new-id", "merge") if way != chosen)
        raise ConflictError(error.session_id, f"{error}; go on with --on-conflict {others}") from error


def _tell_backup(path: Path) -> None:
    from ..database.upgrade import BACKUP_INFIX

    for backup in sorted(path.parent.glob("*" + BACKUP_INFIX + "*.db")):
        if backup.name.startswith(path.name + BACKUP_INFIX):
            say(f"the file as it was before: {backup}")


def _imported(receipt: ImportReceipt) -> str:
    facts = [f"{counted(receipt.sessions, 'conversation')}, {counted(receipt.messages, 'message')} stored"]
    facts += [f"{receipt.replaced:,} of them replaced others"] if receipt.replaced else []
    facts += [f"{receipt.skipped:,} skipped, their ids are taken"] if receipt.skipped else []
    facts += [f"{receipt.merged:,} that were there got what they lacked"] if receipt.merged else []
    facts += [f"{old} is now {new}" for old, new in receipt.renamed]
    return "; ".join(facts)


def _exported(receipt: ExportReceipt) -> str:
    if receipt.format in TABLE_FORMATS:
        return f"{counted(receipt.rows, 'row')}, {size(receipt.size_bytes)} written"
    held = f"{counted(receipt.sessions, 'conversation')}, {counted(receipt.messages, 'message')}"
    missing = (
        f"; {counted(receipt.left_out, 'message')} left out, {receipt.format} has no place for them" if receipt.left_out else ""
    )
    return f"{held}, {size(receipt.size_bytes)} written{missing}"
