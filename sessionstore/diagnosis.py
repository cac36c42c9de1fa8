"""What `status` and `doctor` tell about a store."""

from __future__ import annotations

import functools
from collections.abc import Callable

from . import queries
from .config import StoreSettings
from .database import encryption, engine, paths, upgrade
from .database.database import Database
from .database.reserve import size_at
from .database.transaction import Transaction, own_error
from .errors import MissingExtraError, StoreCorruptError
from .values.health import Check, Diagnosis, StoreStatus


def status(db: Transaction, database: Database, settings: StoreSettings, *, storage: bool = False) -> StoreStatus:
    """The figures of a store, gathered in one snapshot; those of its storage cost a look at every message."""
    store_id, sessions, messages = queries.health.counts(db)
    path, writer = database.path, database.writer
    deliveries = queries.health.deliveries(db)
    return StoreStatus(
        path=None if path is None else str(path),
        store_id=store_id,
        schema_revision=upgrade.stored_revision(db.driver, database.name),
        encrypted=database.key is not None,
        sqlite_version=engine.written(database.sqlite_version),
        wal_reset_affected=engine.wal_reset_affected(database.sqlite_version),
        journal_mode=database.journal_mode,
        journal_reason=database.journal_reason,
        filesystem=database.filesystem,
        durability=settings.durability,
        read_only=database.read_only or settings.read_only,
        file_bytes=0 if path is None else paths.size_of(path),
        wal_bytes=0 if path is None else paths.size_of(paths.sidecar(path, paths.WAL_SUFFIX)),
        free_bytes=None if path is None else paths.free_bytes(path.parent),
        reserve_bytes=0 if path is None else size_at(paths.sidecar(path, paths.RESERVE_SUFFIX)),
        sessions=sessions,
        messages=messages,
        overdue=queries.health.due(db),
        last_sweep_at=queries.health.last_sweep(db),
        search=queries.search_index.mode(db),
        search_waiting=queries.search_index.waiting(db),
        remote=queries.subscription.remote(db),
        outbox_pending=deliveries.waiting,
        outbox_dead=deliveries.dead,
        outbox_dropped=deliveries.dropped,
        sync_paused=deliveries.paused,
        commits=writer.commits,
        writes=writer.writes,
        checkpoints=writer.checkpoints,
        busy_waits=writer.busy_waits,
        metrics_lost=database.tally.metrics_lost,
        sweeps=database.tally.sweeps,
        sweep_failures=database.tally.sweep_failures,
        sweeps_skipped=database.tally.sweeps_skipped,
        drain_failures=database.tally.drain_failures,
        warnings=tuple(database.warnings),
        storage=queries.blob_health.sizes(db) if storage else None,
    )


def diagnose(db: Transaction, database: Database, index_problem: str | None) -> Diagnosis:
    """Every check, in one snapshot; and what SQLite found in the search index, which it looks at as a writer only."""
    return Diagnosis(
        (
            _engine(database.sqlite_version),
            Check("journal", database.journal_mode in ("wal", "memory") or database.read_only,
                  f"{database.journal_mode}: {database.journal_reason}"),
            _place(database),
            *(() if database.key is None else (_looked_at("encryption", _encrypted_pages, db),)),
            _looked_at("structure", queries.health.structure, db),
            _looked_at("references", queries.health.references, db),
            _looked_at("counters", queries.health.counters, db),
            _looked_at("checksums", queries.health.checksums, db),
            _looked_at("json", queries.health.json, db),
            _looked_at("search index", functools.partial(queries.search_health.index, problem=index_problem), db),
            _looked_at("blobs", queries.blob_health.check, db),
            _looked_at("checkpoints", queries.health.checkpoints, db),
            Check("warnings", not database.warnings, "; ".join(database.warnings) or "none"),
        )
    )  # fmt: skip


def _encrypted_pages(db: Transaction) -> Check:
    damaged = encryption.damaged_pages(db.driver)
    detail = f"{damaged} pages are not what was encrypted" if damaged else "every page is what was encrypted"
    return Check("encryption", not damaged, detail)


def _looked_at(name: str, check: Callable[[Transaction], Check], db: Transaction) -> Check:
    """The outcome of a check; damage that keeps it from ending is one, too."""
    try:
        return check(db)
    except MissingExtraError as error:
        return Check(name, False, str(error))
    except Exception as error:
        mine = own_error(error, db.path)
        if not isinstance(mine, StoreCorruptError):
            raise
        return Check(name, False, str(mine))


def _engine(version: tuple[int, int, int]) -> Check:
    if engine.withdrawn(version):
        return Check("engine", False, f"SQLite {engine.written(version)} was withdrawn by its makers; update it")
    return Check("engine", True, f"SQLite {engine.written(version)}" + (
        ", which has the WAL-reset bug; the writer lock keeps it from striking" if engine.wal_reset_affected(version) else ""
    ))  # fmt: skip


def _place(database: Database) -> Check:
    if database.path is None:
        return Check("file", True, "in memory")
    try:
        found = database.path.stat()
    except FileNotFoundError:
        return Check("file", False, "the file was deleted while it is open; what is written now will be lost")
    if database.identity != (found.st_dev, found.st_ino):
        return Check("file", False, "another file has taken its place while it is open; close the store and open it again")
    return Check(
        "file", True, f"{found.st_size} bytes on {database.filesystem or 'an unknown file system'}, mode {found.st_mode & 0o777:o}"
    )
