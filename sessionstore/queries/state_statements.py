"""The statements about state and about superseded messages, for `statements.HOT`."""

from __future__ import annotations

from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.dialects import sqlite

from .tables import SESSIONS, STATE, SUPERSEDED

_OWNED: Final = sa.and_(
    STATE.c.namespace == sa.bindparam("namespace"),
    STATE.c.scope == sa.bindparam("scope"),
    STATE.c.owner == sa.bindparam("owner"),
)
_NAMESPACE: Final = sa.select(SESSIONS.c.namespace).where(SESSIONS.c.session_key == sa.bindparam("key_")).scalar_subquery()


def _of_session(key_text: str) -> sa.ColumnElement[bool]:
    """The values of the session whose key is given twice, the second time for its text."""
    return sa.and_(
        STATE.c.namespace == _NAMESPACE,
        STATE.c.scope == sa.literal_column("'session'"),
        STATE.c.owner == sa.cast(sa.bindparam(key_text), sa.Text),
    )


_OWNER: Final = ("namespace", "scope", "owner")
_KEY: Final = (*_OWNER, "name")
_COLUMNS: Final = tuple(column.name for column in STATE.c)
_UPDATED_AT: Final = sa.type_coerce(STATE.c.updated_at, sa.String)
# Whole rows but for their id, which is given when they are put.
SUPERSEDED_COLUMNS: Final = tuple(column.name for column in SUPERSEDED.c if column.name != "id")


def _put() -> sqlite.Insert:
    return sqlite.insert(STATE).values({name: sa.bindparam(name) for name in _COLUMNS})


def _add() -> Any:
    """One more to a whole number, or the number itself where there is none; nothing where the sum is none."""
    whole = sa.cast(STATE.c.value, sa.BigInteger)
    total = whole + sa.bindparam("by")
    put = _put()
    return put.on_conflict_do_update(
        index_elements=list(_KEY),
        set_={"value": sa.cast(total, sa.Text), "updated_at": put.excluded.updated_at},
        # Neither a text, a list nor a number with a fraction; and SQLite turns a sum beyond 64 bits into such a one.
        where=sa.and_(
            sa.cast(whole, sa.Text) == STATE.c.value, sa.func.typeof(whole + sa.bindparam("by_")) == sa.literal_column("'integer'")
        ),
    ).returning(STATE.c.value)


def _replace() -> Any:
    put = _put()
    return put.on_conflict_do_update(
        index_elements=list(_KEY), set_={"value": put.excluded.value, "updated_at": put.excluded.updated_at}
    )


def _merged() -> Any:
    """What a session sees: of values of one name the last one counts, the session's before the user's before the application's."""
    parts = []
    for rank, scope in enumerate(("app", "user", "session")):
        owned = sa.and_(
            STATE.c.namespace == sa.bindparam(f"namespace_{scope}"),
            STATE.c.scope == sa.literal_column(f"'{scope}'"),
            STATE.c.owner == sa.bindparam(f"owner_{scope}"),
        )
        parts.append(sa.select(STATE.c.name, STATE.c.value, sa.literal_column(str(rank)).label("rank")).where(owned))
    every = sa.union_all(*parts).subquery("every")
    return sa.select(every.c.name, every.c.value).order_by(every.c.rank, every.c.name)


def _size() -> Any:
    name, value = (sa.func.length(sa.cast(column, sa.LargeBinary)) for column in (STATE.c.name, STATE.c.value))
    return sa.select(sa.func.coalesce(sa.func.sum(name + value), sa.literal_column("0"))).where(_OWNED)


_TO_COPY: Final = sa.select(
    STATE.c.namespace,
    STATE.c.scope,
    sa.cast(sa.bindparam("to_key"), sa.Text).label("owner"),
    STATE.c.name,
    STATE.c.value,
    STATE.c.updated_at,
).where(_of_session("from_key"))

# Name -> (statement, its parameters in the order in which the callers give them).
HOT: Final[dict[str, tuple[Any, tuple[str, ...]]]] = {
    "MERGED_STATE": (
        _merged(),
        ("namespace_app", "owner_app", "namespace_user", "owner_user", "namespace_session", "owner_session"),
    ),
    "STATE_OF": (sa.select(STATE.c.name, STATE.c.value, _UPDATED_AT).where(_OWNED).order_by(STATE.c.name), _OWNER),
    "STATE_VALUE": (sa.select(STATE.c.value).where(_OWNED, STATE.c.name == sa.bindparam("name")), _KEY),
    "STATE_SIZE": (_size(), _OWNER),
    "PUT_STATE": (_replace(), _COLUMNS),
    "ADD_TO_STATE": (_add(), (*_COLUMNS, "by", "by_")),
    "DELETE_STATE_VALUE": (sa.delete(STATE).where(_OWNED, STATE.c.name == sa.bindparam("name")), _KEY),
    "DELETE_STATE": (sa.delete(STATE).where(_OWNED), _OWNER),
    "DELETE_SESSION_STATE": (sa.delete(STATE).where(_of_session("key_text")), ("key_", "key_text")),
    "COPY_STATE": (
        sa.insert(STATE).from_select(list(_COLUMNS), _TO_COPY),
        ("to_key", "key_", "from_key"),
    ),
    "INSERT_SUPERSEDED": (
        sa.insert(SUPERSEDED).values({name: sa.bindparam(name) for name in SUPERSEDED_COLUMNS}),
        SUPERSEDED_COLUMNS,
    ),
    "SUPERSEDED": (
        sa.select(
            SUPERSEDED.c.id,
            *(
                sa.type_coerce(SUPERSEDED.c[name], sa.String) if name.endswith("_at") else SUPERSEDED.c[name]
                for name in SUPERSEDED_COLUMNS
            ),
        )
        .where(
            SUPERSEDED.c.session_key == sa.bindparam("key_"),
            SUPERSEDED.c.seq >= sa.bindparam("first"),
            SUPERSEDED.c.seq <= sa.bindparam("last"),
        )
        .order_by(SUPERSEDED.c.seq, SUPERSEDED.c.id),
        ("key_", "first", "last"),
    ),
    "DELETE_SUPERSEDED": (sa.delete(SUPERSEDED).where(SUPERSEDED.c.session_key == sa.bindparam("key_")), ("key_",)),
}
