"""The statements about blobs and packed messages, for `statements.HOT`."""

from __future__ import annotations

from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.dialects import sqlite

from ..models import BlobReferenceRow, BlobRow, MessageRow, SessionRow, SupersededMessageRow

_BLOBS: Final[sa.Table] = BlobRow.__table__  # type: ignore[attr-defined]
_REFERENCES: Final[sa.Table] = BlobReferenceRow.__table__  # type: ignore[attr-defined]
_MESSAGES: Final[sa.Table] = MessageRow.__table__  # type: ignore[attr-defined]
_SESSIONS: Final[sa.Table] = SessionRow.__table__  # type: ignore[attr-defined]
_SUPERSEDED: Final[sa.Table] = SupersededMessageRow.__table__  # type: ignore[attr-defined]

_BLOB_COLUMNS: Final = tuple(column.name for column in _BLOBS.c)
_REFERENCE_COLUMNS: Final = tuple(column.name for column in _REFERENCES.c)
_ROW: Final = tuple(column for column in _MESSAGES.c if column.computed is None)
_NO_OFFSET: Final[sa.ColumnElement[int]] = sa.literal_column("0")
_NAMED_HASHES: Final = sa.select(sa.func.json_each(sa.bindparam("hashes")).table_valued("value").c.value)
_IS_UNREFERENCED: Final = sa.not_(sa.exists().where(_REFERENCES.c.hash == _BLOBS.c.hash))
# One that is there and is not the same was damaged, or compressed otherwise.
_NEW_BLOB: Final = sqlite.insert(_BLOBS).values({name: sa.bindparam(name) for name in _BLOB_COLUMNS})
_IN_RANGE: Final = sa.and_(_MESSAGES.c.id > sa.bindparam("after"), _MESSAGES.c.id < sa.bindparam("before"))
_NOTHING: Final[sa.ColumnElement[int]] = sa.literal_column("0")
_LENGTH: Final = sum(
    (sa.func.coalesce(sa.func.length(sa.type_coerce(part, sa.Text)), _NOTHING) for part in (_MESSAGES.c.text, _MESSAGES.c.extra)),
    start=_NOTHING,
)
_TO_ARCHIVE: Final = sa.and_(_SESSIONS.c.status == sa.literal_column("'expired'"), _SESSIONS.c.archived_at.is_(None))


def _rows(condition: sa.ColumnElement[bool]) -> sa.Select[Any]:
    found = sa.select(*_ROW).where(_IN_RANGE, condition).order_by(_MESSAGES.c.id)
    return found.limit(sa.bindparam("most")).offset(_NO_OFFSET)


HOT: Final[dict[str, tuple[Any, tuple[str, ...]]]] = {
    "KEEP_BLOB": (
        _NEW_BLOB.on_conflict_do_update(
            index_elements=[_BLOBS.c.hash],
            set_={name: _NEW_BLOB.excluded[name] for name in _BLOB_COLUMNS[1:]},
            where=sa.or_(*(_BLOBS.c[name].is_distinct_from(_NEW_BLOB.excluded[name]) for name in _BLOB_COLUMNS[1:])),
        ),
        _BLOB_COLUMNS,
    ),
    "REFER_TO_BLOB": (
        sa.insert(_REFERENCES).values({name: sa.bindparam(name) for name in _REFERENCE_COLUMNS}),
        _REFERENCE_COLUMNS,
    ),
    "REFER_ALIKE": (
        sa.insert(_REFERENCES).from_select(
            list(_REFERENCE_COLUMNS),
            sa.select(_REFERENCES.c.hash, sa.bindparam("new_id")).where(_REFERENCES.c.message_id == sa.bindparam("old_id")),
        ),
        ("new_id", "old_id"),
    ),
    "READ_BLOBS": (
        sa.select(_BLOBS.c.hash, _BLOBS.c.size_bytes, _BLOBS.c.encoding, _BLOBS.c.data).where(_BLOBS.c.hash.in_(_NAMED_HASHES)),
        ("hashes",),
    ),
    "FORGET_BLOBS": (
        sa.delete(_REFERENCES).where(
            _REFERENCES.c.message_id > sa.bindparam("after"), _REFERENCES.c.message_id < sa.bindparam("before")
        ),
        ("after", "before"),
    ),
    "FORGET_SUPERSEDED_BLOBS": (
        sa.delete(_REFERENCES).where(
            _REFERENCES.c.message_id.in_(sa.select(-_SUPERSEDED.c.id).where(_SUPERSEDED.c.session_key == sa.bindparam("key_")))
        ),
        ("key_",),
    ),
    "UNREFERENCED": (
        sa.select(_BLOBS.c.hash, sa.func.length(_BLOBS.c.data))
        .where(_BLOBS.c.hash > sa.bindparam("after"), _IS_UNREFERENCED)
        .order_by(_BLOBS.c.hash)
        .limit(sa.bindparam("most"))
        .offset(_NO_OFFSET),
        ("after", "most"),
    ),
    "DELETE_BLOB": (sa.delete(_BLOBS).where(_BLOBS.c.hash == sa.bindparam("hash_"), _IS_UNREFERENCED), ("hash_",)),
    "ROWS_TO_PACK": (
        _rows(sa.and_(_MESSAGES.c.packed.is_(None), sa.bindparam("length") < _LENGTH)),
        ("after", "before", "length", "most"),
    ),
    "ROWS_TO_UNPACK": (_rows(_MESSAGES.c.packed.is_not(None)), ("after", "before", "most")),
    "REPACK_MESSAGE": (
        sa.update(_MESSAGES)
        .values(text=sa.bindparam("text_"), extra=sa.bindparam("extra_"), packed=sa.bindparam("packed_"))
        .where(_MESSAGES.c.id == sa.bindparam("id_")),
        ("text_", "extra_", "packed_", "id_"),
    ),
    "FIND_TO_ARCHIVE": (
        sa.select(_SESSIONS.c.session_key).where(_TO_ARCHIVE).limit(sa.literal_column("1")).offset(_NO_OFFSET),
        (),
    ),
    "SET_ARCHIVED_AT": (
        sa.update(_SESSIONS).values(archived_at=sa.bindparam("at")).where(_SESSIONS.c.session_key == sa.bindparam("key_")),
        ("at", "key_"),
    ),
}
