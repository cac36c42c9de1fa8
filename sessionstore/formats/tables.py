"""The views of a store as files for other programs: CSV and Parquet, written batch by batch."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from importlib import import_module
from pathlib import Path
from typing import Any, Final

from .. import clock, inputs
from ..database.transaction import Transaction
from ..errors import MissingExtraError
from ..queries import view_rows
from ..queries.views import VIEWS
from ..values.receipts import ExportReceipt
from . import CSV
from .exporting import Read
from .streams import LineWriter, Progress, open_target

_ROWS_A_BATCH: Final = 1_000
# What a writer holds before it puts it on disk.
_ROWS_A_GROUP: Final = 10_000
# What a spreadsheet would take for a formula.
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r", "\n")

_INTEGERS: Final = frozenset(
    {"id", "session_key",
     "owner_key", "pinned", "tracked", "quality_score", "message_count", "reported_message_count", "version", "seq",
     "input_tokens", "output_tokens", "cache_read_tokens", "reasoning_tokens", "total", "completed", "failed", "expired", "active",
     "count", "sessions", "messages", "attempts", "last_status", "size_bytes", "pending", "pending_bytes", "dead",
     "erased", "sent", "dropped", "failures"}
)  # fmt: skip
_REALS: Final = frozenset({"value", "success_rate"})
_REAL_ENDINGS: Final = ("_ms", "_seconds")
_INSTANT_ENDINGS: Final = ("_at", "_until", "_since")
_TEXT: Final = "text"
_INTEGER: Final = "integer"
_REAL: Final = "real"
_INSTANT: Final = "instant"
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


def export_view(
    target: object,
    read: Read,
    view: object,
    *,
    namespace: str | None,
    store_path: Path | None,
    file_format: str,
    progress: Progress | None,
) -> ExportReceipt:
    """Write a view to a file; `SessionStore.export_file` describes the arguments."""
    name = inputs.choice("view", view, tuple(VIEWS))
    write = _write_csv if file_format == CSV else _parquet_writer()

    def work(db: Transaction) -> ExportReceipt:
        columns = view_rows.columns_of(db, name)
        # Closed at once also after an error: a statement that is left in the middle of its rows keeps the snapshot open.
        with closing(view_rows.batches(db, name, namespace=namespace, size=_ROWS_A_BATCH)) as batches:
            rows = _Counted(batches, progress)
            with open_target(target, store_path=store_path) as writer:
                write(writer, columns, rows)
        return ExportReceipt(format=file_format, sessions=0, messages=0, size_bytes=writer.size_bytes, rows=rows.count)

    return read(work)


def type_of(column: str) -> str:
    """What a column holds. Views declare no types, and an empty one must have those that a full one has."""
    if column in _INTEGERS:
        return _INTEGER
    if column in _REALS or column.endswith(_REAL_ENDINGS):
        return _REAL
    return _INSTANT if column.endswith(_INSTANT_ENDINGS) else _TEXT


class _Counted:
    """Batches of rows, counted.

    Attributes:
        count: The rows so far.
    """

    def __init__(self, batches: Iterator[list[tuple[Any, ...]]], progress: Progress | None) -> None:
        self.count = 0
        self._batches = batches
        self._progress = progress

    def __iter__(self) -> Iterator[list[tuple[Any, ...]]]:
        for batch in self._batches:
            yield batch
            self.count += len(batch)
            if self._progress is not None:
                self._progress(self.count, None)


_Writer = Callable[[LineWriter, tuple[str, ...], _Counted], None]


def _write_csv(writer: LineWriter, columns: tuple[str, ...], batches: _Counted) -> None:
    """A line of names, then a line a row (RFC 4180); NULL is an empty field."""
    text = io.StringIO(newline="")
    lines = csv.writer(text)
    lines.writerow(columns)
    for batch in batches:
        lines.writerows([_field(value) for value in row] for row in batch)
        writer.write(text.getvalue())
        text.seek(0)
        text.truncate()
    writer.write(text.getvalue())


def _field(value: Any) -> Any:
    """A text that a spreadsheet would calculate begins with an apostrophe."""
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value


def _parquet_writer() -> _Writer:
    try:
        core, files = import_module("arro3.core"), import_module("arro3.io")
    except ImportError as error:
        raise MissingExtraError("Parquet", "parquet") from error
    of = core.DataType
    kinds = {_TEXT: of.utf8(), _INTEGER: of.int64(), _REAL: of.float64(), _INSTANT: of.timestamp("us", tz="UTC")}

    def write(writer: LineWriter, columns: tuple[str, ...], batches: _Counted) -> None:
        types = [type_of(column) for column in columns]
        schema = core.Schema([core.Field(name, kinds[kind]) for name, kind in zip(columns, types, strict=True)])

        def records() -> Iterator[Any]:
            for batch in batches:
                arrays = []
                for kind, column in zip(types, zip(*batch, strict=True), strict=True):
                    values = [None if value is None else _CONVERTED[kind](value) for value in column]
                    # It builds no instants, but makes them of numbers.
                    made = core.Array(values, kinds[_INTEGER if kind == _INSTANT else kind])
                    arrays.append(made.cast(kinds[kind]) if kind == _INSTANT else made)
                yield core.RecordBatch.from_arrays(arrays, schema=schema)

        with _Bridge(writer) as bridge:
            reader = core.RecordBatchReader.from_batches(schema, bridge.guarded(records()))
            files.write_parquet(reader, bridge, compression="zstd(3)", max_row_group_size=_ROWS_A_GROUP)

    return write


class _Bridge(io.RawIOBase):
    """A file for code that is not Python's, which would panic at an error or lose it: it is kept, and raised at the end."""

    def __init__(self, writer: LineWriter) -> None:
        self._writer = writer
        self._error: BaseException | None = None

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)  # type: ignore[arg-type]
        if self._error is not None:
            raise self._error

    def guarded(self, values: Iterator[Any]) -> Iterator[Any]:
        """The values up to the first error."""
        try:
            yield from values
        except BaseException as error:  # noqa: BLE001 - it is raised at the end
            self._error = self._error or error

    def writable(self) -> bool:
        """Yes."""
        return True

    def write(self, data: Any) -> int:
        """Write some bytes, unless something went wrong."""
        if self._error is None:
            try:
                self._writer.write_data(bytes(data))
            except BaseException as error:  # noqa: BLE001 - it is raised at the end
                self._error = error
        return len(data)


def _microseconds(text: str) -> int:
    return (clock.from_text(text) - _EPOCH) // _MICROSECOND


_CONVERTED: Final[dict[str, Callable[[Any], Any]]] = {_TEXT: str, _INTEGER: int, _REAL: float, _INSTANT: _microseconds}
