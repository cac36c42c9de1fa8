"""The statements about blobs and packed messages, for `statements.HOT`."""

from __future__ import annotations

from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.dialects import sqlite

from .dialect import NO_OFFSET
from .tables import BLOB_REFERENCES, BLOBS, MESSAGES, SESSIONS, SUPERSEDED

_BLOB_COLUMNS: Final = tuple(column.name for column in BLOBS.c)
_REFERENCE_COLUMNS: Final = tuple(column.name for column in BLOB_REFERENCES.c)
_ROW: Final = tuple(column for column in MESSAGES.c if column.computed is None)
_NAMED_HASHES: Final = sa.select(sa.func.json_each(sa.bindparam("hashes")).table_valued("value").c.value)
_IS_UNREFERENCED: Final = sa.not_(sa.exists().where(BLOB_REFERENCES.c.hash == BLOBS.c.hash))
# One that is there and is not the same was damaged, or compressed otherwise.
_NEW_BLOB: Final = sqlite.insert(BLOBS).values({name: sa.bindparam(name) for name in _BLOB_COLUMNS})
_IN_RANGE: Final = sa.and_(MESSAGES.c.id > sa.bindparam("after"), MESSAGES.c.id < sa.bindparam("before"))
_NOTHING: Final[sa.ColumnElement[int]] = sa.literal_column("0")
_LENGTH: Final = sum(
    (sa.func.coalesce(sa.func.length(sa.type_coerce(part, sa.Text)), _NOTHING) for part in (MESSAGES.c.text, MESSAGES.c.extra)),
    start=_NOTHING,
)
_TO_ARCHIVE: Final = sa.and_(SESSIONS.c.status == sa.literal_column("'expired'"), SESSIONS.c.archived_at.is_(None))


def _rows(condition: sa.ColumnElement[bool]) -> sa.Select[Any]:
    found = sa.select(*_ROW).where(_IN_RANGE, condition).order_by(MESSAGES.c.id)
    return found.limit(sa.bindparam("most")).offset(NO_OFFSET)


HOT: Final[dict[str, tuple[Any, tuple[str, ...]]]] = {
    "KEEP_BLOB": (
        _NEW_BLOB.on_conflict_do_update(
            index_elements=[BLOBS.c.hash],
            set_={name: _NEW_BLOB.excluded[name] for name in _BLOB_COLUMNS[1:]},
            where=sa.or_(*(BLOBS.c[name].is_distinct_from(_NEW_BLOB.excluded[name]) for name in _BLOB_COLUMNS[1:])),
        ),
        _BLOB_COLUMNS,
    ),
    "REFER_TO_BLOB": (
        sa.insert(BLOB_REFERENCES).values({name: sa.bindparam(name) for name in _REFERENCE_COLUMNS}),
        _REFERENCE_COLUMNS,
    ),
    "REFER_ALIKE": (
        sa.insert(BLOB_REFERENCES).from_select(
            list(_REFERENCE_COLUMNS),
            sa.select(BLOB_REFERENCES.c.hash, sa.bindparam("new_id")).where(BLOB_REFERENCES.c.message_id == sa.bindparam("old_id")),
        ),
        ("new_id", "old_id"),
    ),
    "READ_BLOBS": (
        sa.select(BLOBS.c.hash, BLOBS.c.size_bytes, BLOBS.c.encoding, BLOBS.c.data).where(BLOBS.c.hash.in_(_NAMED_HASHES)),
        ("hashes",),
    ),
    "FORGET_BLOBS": (
        sa.delete(BLOB_REFERENCES).where(
            BLOB_REFERENCES.c.message_id > sa.bindparam("after"), BLOB_REFERENCES.c.message_id < sa.bindparam("before")
        ),
        ("after", "before"),
    ),
    "FORGET_SUPERSEDED_BLOBS": (
        sa.delete(BLOB_REFERENCES).where(
            BLOB_REFERENCES.c.message_id.in_(sa.select(-SUPERSEDED.c.id).where(SUPERSEDED.c.session_key == sa.bindparam("key_")))
        ),
        ("key_",),
    ),
    "UNREFERENCED": (
        sa.select(BLOBS.c.hash, sa.func.length(BLOBS.c.data))
        .where(BLOBS.c.hash > sa.bindparam("after"), _IS_UNREFERENCED)
        .order_by(BLOBS.c.hash)
        .limit(sa.bindparam("most"))
        .offset(NO_OFFSET),
        ("after", "most"),
    ),
    "DELETE_BLOB": (sa.delete(BLOBS).where(BLOBS.c.hash == sa.bindparam("hash_"), _IS_UNREFERENCED), ("hash_",)),
    "ROWS_TO_PACK": (
        _rows(sa.and_(MESSAGES.c.packed.is_(None), sa.bindparam("length") < _LENGTH)),
        ("after", "before", "length", "most"),
    ),
    "ROWS_TO_UNPACK": (_rows(MESSAGES.c.packed.is_not(None)), ("after", "before", "most")),
    "REPACK_MESSAGE": (
        sa.update(MESSAGES)
        .values(text=sa.bindparam("text_"), extra=sa.bindparam("extra_"), packed=sa.bindparam("packed_"))
        .where(MESSAGES.c.id == sa.bindparam("id_")),
        ("text_", "extra_", "packed_", "id_"),
    ),
    "FIND_TO_ARCHIVE": (
        sa.select(SESSIONS.c.session_key).where(_TO_ARCHIVE).limit(sa.literal_column("1")).offset(NO_OFFSET),
        (),
    ),
    "SET_ARCHIVED_AT": (
        sa.update(SESSIONS).values(archived_at=sa.bindparam("at")).where(SESSIONS.c.session_key == sa.bindparam("key_")),
        ("at", "key_"),
    ),
}
