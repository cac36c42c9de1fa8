"""The SQL that only SQLite knows, in one place."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

_ESCAPE = "\\"


def json_equals(column: sa.Column[Any], key: str, value: str | int | float | bool | None) -> sa.ColumnElement[bool]:
    """Whether a top-level key of a JSON column has a plain value. The path is bound, never written into the text."""
    raw = sa.type_coerce(column, sa.String)
    path = f'$."{key}"'
    if value is None or isinstance(value, bool):
        kind = {None: "null", True: "true", False: "false"}[value]
        return sa.func.json_type(raw, path) == kind
    kinds = ("text",) if isinstance(value, str) else ("integer", "real")
    return sa.and_(sa.func.json_type(raw, path).in_(kinds), sa.func.json_extract(raw, path) == sa.literal(value))


def contains_text(column: sa.ColumnElement[str], words: str) -> sa.ColumnElement[bool]:
    """Whether a text holds some words, whatever the case of its ASCII letters."""
    escaped = words.replace(_ESCAPE, _ESCAPE * 2).replace("%", _ESCAPE + "%").replace("_", _ESCAPE + "_")
    return column.like(f"%{escaped}%", escape=_ESCAPE)


def parts_contain_text(extra: sa.Column[Any], words: str) -> sa.ColumnElement[bool]:
    """Whether a part of a message's content holds some words."""
    part = sa.func.json_each(sa.type_coerce(extra, sa.String), "$.content").table_valued("value", "type")
    # Without the CASE a part that is a bare text would be parsed as JSON.
    text = sa.case((part.c.type == "object", sa.func.json_extract(part.c.value, "$.text")))
    return sa.exists(sa.select(1).select_from(part).where(contains_text(text, words)))


def as_stored(column: sa.Column[Any]) -> sa.ColumnElement[Any]:
    """A column as the driver gives it, without SQLAlchemy's conversion of times and JSON."""
    if isinstance(column.type, sa.JSON | sa.DateTime) or isinstance(getattr(column.type, "impl", None), sa.DateTime):
        return sa.type_coerce(column, sa.String).label(column.name)
    return column
