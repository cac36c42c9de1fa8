"""Looking over many sessions: filters, keyset pages and counts. No message content is loaded."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Sequence
from dataclasses import astuple
from datetime import datetime
from typing import Any, Final

import sqlalchemy as sa

from .. import clock
from ..arguments import SessionFilter
from ..database.transaction import Transaction
from ..errors import InvalidInputError
from ..values import MAX_SEQ, SEQ_BITS, Page, SessionInfo
from . import sessions
from .dialect import as_stored, contains_text, json_equals, parts_contain_text
from .statements import IS_LIVE, MESSAGES, SESSION_COLUMNS, SESSIONS, TAGS

_CURSOR_VERSION: Final = 1
_STORED_COLUMNS: Final = tuple(as_stored(column) for column in SESSION_COLUMNS)


def page(db: Transaction, wanted: SessionFilter, *, limit: int, cursor: str | None) -> Page[SessionInfo]:
    """Sessions, last changed first.

    Raises:
        InvalidInputError: The cursor is damaged or belongs to another filter.
    """
    found = sa.select(*_STORED_COLUMNS).where(*_conditions(wanted))
    if cursor is not None:
        updated_at, key = _read_cursor(cursor, wanted)
        found = found.where(
            SESSIONS.c.updated_at <= updated_at, sa.or_(SESSIONS.c.updated_at < updated_at, SESSIONS.c.session_key < key)
        )
    ordered = found.order_by(SESSIONS.c.updated_at.desc(), SESSIONS.c.session_key.desc()).limit(limit + 1)
    rows = db.core.execute(ordered).fetchall()
    shown = rows[:limit]
    return Page(_infos(db, shown), _cursor(shown[-1], wanted) if len(rows) > limit else None)


def count(db: Transaction, wanted: SessionFilter) -> int:
    """How many sessions there are."""
    return int(db.core.execute(sa.select(sa.func.count()).select_from(SESSIONS).where(*_conditions(wanted))).scalar_one())


def keys(db: Transaction, wanted: SessionFilter) -> list[tuple[int, str]]:
    """The keys and ids of sessions, oldest first."""
    found = sa.select(SESSIONS.c.session_key, SESSIONS.c.session_id).where(*_conditions(wanted)).order_by(SESSIONS.c.session_key)
    return [(key, session_id) for key, session_id in db.core.execute(found)]


def namespaces(db: Transaction) -> tuple[str, ...]:
    """The namespaces that have live sessions, sorted."""
    found = sa.select(SESSIONS.c.namespace).where(IS_LIVE).distinct().order_by(SESSIONS.c.namespace)
    return tuple(db.core.execute(found).scalars())


def tag_counts(db: Transaction, namespace: str) -> dict[str, int]:
    """How many live sessions have each tag."""
    found = (
        sa.select(TAGS.c.tag, sa.func.count().label("sessions"))
        .join(SESSIONS, SESSIONS.c.session_key == TAGS.c.session_key)
        .where(SESSIONS.c.namespace == namespace, IS_LIVE)
        .group_by(TAGS.c.tag)
        .order_by(TAGS.c.tag)
    )
    return {row.tag: row.sessions for row in db.core.execute(found)}


def _conditions(wanted: SessionFilter) -> list[sa.ColumnElement[bool]]:
    conditions = [SESSIONS.c.status == wanted.status if wanted.status is not None else IS_LIVE]
    for column, value in ((SESSIONS.c.namespace, wanted.namespace), (SESSIONS.c.agent_id, wanted.agent_id),
                          (SESSIONS.c.user_id, wanted.user_id), (SESSIONS.c.pinned, wanted.pinned)):  # fmt: skip
        if value is not None:
            conditions.append(column == value)
    if wanted.archived is not None:
        conditions.append(SESSIONS.c.archived_at.is_not(None) if wanted.archived else SESSIONS.c.archived_at.is_(None))
    if wanted.since is not None:
        conditions.append(SESSIONS.c.updated_at >= wanted.since)
    if wanted.until is not None:
        conditions.append(SESSIONS.c.updated_at < wanted.until)
    conditions += [_has_tag(tag) for tag in wanted.tags]
    conditions += [json_equals(SESSIONS.c.metadata, key, value) for key, value in wanted.metadata.items()]
    if wanted.text is not None:
        conditions.append(sa.or_(contains_text(SESSIONS.c.title, wanted.text), _has_message_with(wanted.text)))
    return conditions


def _has_tag(tag: str) -> sa.ColumnElement[bool]:
    return sa.exists().where(TAGS.c.session_key == SESSIONS.c.session_key, TAGS.c.tag == tag)


def _has_message_with(words: str) -> sa.ColumnElement[bool]:
    first = SESSIONS.c.session_key.op("<<")(sa.literal_column(str(SEQ_BITS)))
    in_session = sa.and_(MESSAGES.c.id > first, MESSAGES.c.id <= first.op("|")(sa.literal_column(str(MAX_SEQ))))
    return sa.exists().where(in_session, sa.or_(contains_text(MESSAGES.c.text, words), parts_contain_text(MESSAGES.c.extra, words)))


def _infos(db: Transaction, rows: Sequence[sa.Row[Any]]) -> tuple[SessionInfo, ...]:
    tags: dict[int, list[str]] = {row[0]: [] for row in rows}
    found = (
        sa.select(TAGS.c.session_key, TAGS.c.tag).where(TAGS.c.session_key.in_(list(tags))).order_by(TAGS.c.session_key, TAGS.c.tag)
    )
    for key, tag in db.core.execute(found):
        tags[key].append(tag)
    return tuple(sessions.info(row, tuple(tags[row[0]])) for row in rows)


def _cursor(row: sa.Row[Any], wanted: SessionFilter) -> str:
    place = [_CURSOR_VERSION, row.updated_at, row.session_key]
    return base64.urlsafe_b64encode(json.dumps([place, _seal(place, wanted)]).encode()).decode()


def _read_cursor(cursor: str, wanted: SessionFilter) -> tuple[datetime, int]:
    refused = InvalidInputError("cursor", "must be the next_cursor of a page with the same filters")
    try:
        place, seal = json.loads(base64.urlsafe_b64decode(cursor.encode("ascii")))
    except (ValueError, TypeError, AttributeError, binascii.Error) as error:
        raise refused from error
    if seal != _seal(place, wanted):
        raise refused
    updated_at, key = place[1:]
    return clock.from_text(updated_at), key


def _seal(place: list[Any], wanted: SessionFilter) -> str:
    """Ties a cursor to its filter and finds changed ones."""
    return hashlib.sha256(repr((place, astuple(wanted))).encode()).hexdigest()[:16]
