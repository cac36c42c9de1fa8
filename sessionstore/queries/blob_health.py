"""Looking after blobs and packed messages: whether all is there and what was stored, and what they save. SQL of SQLite's own."""

# ruff: noqa: S608 - put together from constants only

from __future__ import annotations

from typing import Final

from .. import packing
from ..database.transaction import Transaction
from ..errors import StoreCorruptError
from ..values.health import Check, StorageSizes
from . import blobs

_SHOWN: Final = 5
_ALL_BLOBS: Final = "SELECT hash, size_bytes, encoding, data FROM blobs ORDER BY hash"
_ENTRIES: Final = "json_each(CASE WHEN json_valid(m.facts) THEN m.facts END, '$.blobs') e"
# An entry of damaged facts may be anything; a text is no JSON.
_HASH: Final = "CASE WHEN e.type = 'array' THEN json_extract(e.value, '$[1]') END"
_OWNERS: Final = (("messages", ""), ("superseded_messages", "-"))
_LOST: Final = tuple(
    f"SELECT count(*) FROM {table} m JOIN {_ENTRIES} WHERE NOT EXISTS ("
    f"SELECT 1 FROM blob_references r JOIN blobs b ON b.hash = r.hash WHERE r.message_id = {sign}m.id AND r.hash = {_HASH})"
    for table, sign in _OWNERS
)
_NEEDLESS: Final = "SELECT count(*) FROM blob_references r WHERE " + " AND ".join(
    f"NOT EXISTS (SELECT 1 FROM {table} m JOIN {_ENTRIES} WHERE m.id = {sign}r.message_id AND {_HASH} = r.hash)"
    for table, sign in _OWNERS
)
_PACKED: Final = f"SELECT substr(packed, 1, {packing.HEADER_BYTES}), length(packed) FROM messages WHERE packed IS NOT NULL"
_STORED: Final = "SELECT count(*), coalesce(sum(length(data)), 0) FROM blobs"
_REFERRED: Final = "SELECT coalesce(sum(b.size_bytes), 0) FROM blob_references r JOIN blobs b ON b.hash = r.hash"

_CHECKPOINTS: Final = "SELECT count(*) FROM checkpoints"
_CHECKPOINT_BYTES: Final = (
    "SELECT (SELECT coalesce(sum(length(checkpoint) + length(metadata)), 0) FROM checkpoints) "
    "+ (SELECT coalesce(sum(length(value)), 0) FROM checkpoint_values) "
    "+ (SELECT coalesce(sum(length(value)), 0) FROM checkpoint_writes)"
)


def check(db: Transaction) -> Check:
    """Blobs that are missing, damaged, or referred to by nobody who has them."""
    looked_at, damaged = look_at_all(db)
    lost = sum(_number(db, query) for query in _LOST)
    needless = _number(db, _NEEDLESS)
    if damaged:
        return Check("blobs", False, f"{len(damaged)} damaged: " + ", ".join(damaged[:_SHOWN]))
    if lost or needless:
        return Check("blobs", False, f"{lost} missing from their messages; {needless} references to blobs that no message has")
    return Check("blobs", True, f"{looked_at} blobs are what was stored")


def look_at_all(db: Transaction) -> tuple[int, list[str]]:
    """How many blobs there are, and the names of those that are not what was stored."""
    looked_at = 0
    damaged: list[str] = []
    for row in db.driver.execute(_ALL_BLOBS):
        looked_at += 1
        try:
            blobs.content(db, row)
        except StoreCorruptError:
            damaged.append(str(row[0])[:12])
    return looked_at, damaged


def sizes(db: Transaction) -> StorageSizes:
    """What compression and blobs save. It looks at every message."""
    packed = packed_bytes = unpacked_bytes = 0
    for header, length in db.driver.execute(_PACKED):
        packed += 1
        packed_bytes += length
        unpacked_bytes += packing.plain_size(header)
    ((stored, stored_bytes),) = db.driver.execute(_STORED).fetchall()
    return StorageSizes(
        packed_messages=packed,
        packed_bytes=packed_bytes,
        unpacked_bytes=unpacked_bytes,
        blobs=stored,
        blob_bytes=stored_bytes,
        referred_bytes=_number(db, _REFERRED),
        graph_checkpoints=_number(db, _CHECKPOINTS),
        graph_checkpoint_bytes=_number(db, _CHECKPOINT_BYTES),
    )


def _number(db: Transaction, query: str) -> int:
    return int(db.driver.execute(query).fetchall()[0][0])
