"""The statements of the hot path, built from the models, and the writer of `sessionstore/sql.py`, their compiled text.

The text is kept in the package, so that opening a store and appending to it loads neither the models nor pydantic, which
would double the start of a small program. `make sql` writes it again; a test compares.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.dialects import sqlite

from ..models import SCHEMA_METADATA, MessageRow, SessionRow, SessionTagRow, StoreInfoRow

SESSIONS: Final[sa.Table] = SessionRow.__table__  # type: ignore[attr-defined]
MESSAGES: Final[sa.Table] = MessageRow.__table__  # type: ignore[attr-defined]
TAGS: Final[sa.Table] = SessionTagRow.__table__  # type: ignore[attr-defined]
STORE_INFO: Final[sa.Table] = StoreInfoRow.__table__  # type: ignore[attr-defined]

IS_LIVE: Final = SESSIONS.c.status != sa.literal_column("'expired'")
SESSION_COLUMNS: Final = tuple(SESSIONS.c)
MESSAGE_COLUMNS: Final = tuple(column for column in MESSAGES.c if column.computed is None)

_DIALECT: Final = sqlite.dialect(paramstyle="qmark")
_OUTPUT: Final = Path(__file__).parent.parent / "sql.py"
_BY_NAME: Final = sa.and_(
    SESSIONS.c.namespace == sa.bindparam("namespace"), SESSIONS.c.session_id == sa.bindparam("session_id"), IS_LIVE
)
# Without one the dialect would bind a parameter for it.
NO_OFFSET: Final[sa.ColumnElement[int]] = sa.literal_column("0")
_IN_RANGE: Final = sa.and_(MESSAGES.c.id > sa.bindparam("after"), MESSAGES.c.id < sa.bindparam("before"))


def _insert(table: sa.Table, *names: str) -> sqlite.Insert:
    return sqlite.insert(table).values({name: sa.bindparam(name) for name in names})


_NEW_SESSION_COLUMNS: Final = ("namespace", "session_id", "user_id", "agent_id", "title", "status", "pinned", "metadata", "version",
                               "message_count", "next_seq", "created_at", "updated_at")  # fmt: skip

# Name -> (statement, its parameters in the order in which the callers give them).
HOT: Final[dict[str, tuple[Any, tuple[str, ...]]]] = {
    "FIND_SESSION": (sa.select(*SESSION_COLUMNS).where(_BY_NAME), ("namespace", "session_id")),
    "FIND_SESSION_KEY": (
        sa.select(SESSIONS.c.session_key, SESSIONS.c.message_count).where(_BY_NAME),
        ("namespace", "session_id"),
    ),
    "INSERT_SESSION": (
        _insert(SESSIONS, *_NEW_SESSION_COLUMNS)
        .on_conflict_do_nothing(index_elements=["namespace", "session_id"], index_where=IS_LIVE)
        .returning(*SESSION_COLUMNS),
        _NEW_SESSION_COLUMNS,
    ),
    "READ_STORE_ID": (sa.select(STORE_INFO.c.store_id), ()),
    "INSERT_TAG": (_insert(TAGS, "session_key", "tag"), ("session_key", "tag")),
    "TAGS_OF_SESSION": (
        sa.select(TAGS.c.tag).where(TAGS.c.session_key == sa.bindparam("session_key")).order_by(TAGS.c.tag),
        ("session_key",),
    ),
    "RESERVE_SEQS": (
        sa.update(SESSIONS)
        .values(
            message_count=SESSIONS.c.message_count + sa.bindparam("count_"),
            next_seq=SESSIONS.c.next_seq + sa.bindparam("seqs"),
            updated_at=sa.bindparam("now"),
        )
        .where(_BY_NAME)
        .returning(SESSIONS.c.session_key, SESSIONS.c.next_seq),
        ("count_", "seqs", "now", "namespace", "session_id"),
    ),
    "INSERT_MESSAGE": (
        _insert(MESSAGES, *(column.name for column in MESSAGE_COLUMNS)),
        tuple(column.name for column in MESSAGE_COLUMNS),
    ),
    "MESSAGES_FORWARD": (
        sa.select(*MESSAGE_COLUMNS).where(_IN_RANGE).order_by(MESSAGES.c.id).limit(sa.bindparam("most")).offset(NO_OFFSET),
        ("after", "before", "most"),
    ),
    "MESSAGES_BACKWARD": (
        sa.select(*MESSAGE_COLUMNS).where(_IN_RANGE).order_by(MESSAGES.c.id.desc()).limit(sa.bindparam("most")).offset(NO_OFFSET),
        ("after", "before", "most"),
    ),
    "MESSAGE_BY_DEDUPE_KEY": (
        sa.select(*MESSAGE_COLUMNS).where(
            MESSAGES.c.session_key == sa.bindparam("session_key"), MESSAGES.c.dedupe_key == sa.bindparam("dedupe_key")
        ),
        ("session_key", "dedupe_key"),
    ),
}


def text_of(statement: Any) -> str:
    """The text of a statement for the driver, with question marks for its parameters."""
    return " ".join(str(statement.compile(dialect=_DIALECT)).split())


def parameters_of(statement: Any) -> tuple[str, ...]:
    """The names of a statement's parameters, in the order of the question marks."""
    return tuple(statement.compile(dialect=_DIALECT).positiontup)


def compiled(statement: Any, parameters: tuple[str, ...]) -> str:
    """The text of a statement, whose question marks take `parameters` in this order."""
    if parameters_of(statement) != parameters:
        raise AssertionError(f"parameters are {parameters_of(statement)}, not {parameters}")
    return text_of(statement)


def render() -> str:
    """The whole of `sessionstore/sql.py`."""
    lines = [
        '"""The SQL text of the hot path, compiled from `queries/statements.py` by `make sql`; not edited by hand."""',
        "",
        "from __future__ import annotations",
        "",
        "from typing import Final",
        "",
    ]
    lines += [f"{name}: Final = {compiled(*entry)!r}" for name, entry in HOT.items()]
    lines += ["", "COLUMNS: Final = {"]
    for table in SCHEMA_METADATA.sorted_tables:
        lines.append(f"    {table.name!r}: {tuple(column.name for column in table.c)!r},")
    lines += ["}", ""]
    return "\n".join(lines)


if __name__ == "__main__":
    _OUTPUT.write_text(render())
