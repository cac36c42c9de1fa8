"""The SQL that only SQLite knows, in one place."""

from __future__ import annotations

from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler

_ESCAPE = "\\"

# Without one the dialect would bind a parameter for it.
NO_OFFSET: Final[sa.ColumnElement[int]] = sa.literal_column("0")


def json_equals(
    column: sa.Column[Any], path: sa.BindParameter[Any], value: sa.BindParameter[Any], kind: str
) -> sa.ColumnElement[bool]:
    """Whether a value of a JSON column is a plain value of a kind: number, text, null, true or false. The path is bound."""
    raw = sa.type_coerce(column, sa.String)
    kinds = ("integer", "real") if kind == "number" else (kind,)
    is_kind = sa.func.json_type(raw, path).in_([sa.literal_column(f"'{each}'") for each in kinds])
    if kind in ("null", "true", "false"):
        # The value is in the type; it is bound all the same, so that every kind takes the same parameters.
        return sa.and_(is_kind, sa.or_(value.is_(None), value.is_not(None)))
    # A JSON true extracts as 1: look at the type, but only of what matches.
    return sa.case((sa.func.json_extract(raw, path) == value, is_kind), else_=sa.false())


def json_array_of(values: sa.Select[Any]) -> sa.ColumnElement[str]:
    """The results of a one-column query as one JSON array, in their order."""
    found = values.subquery()
    return sa.select(sa.func.json_group_array(found.c[0])).scalar_subquery()


class CrossJoin(sa.Join):
    """A join that goes through its left side and looks up the right one, whatever the indexes of the right one promise."""

    inherit_cache = True


@compiles(CrossJoin, "sqlite")
def _cross_join(join: CrossJoin, compiler: SQLCompiler, **options: Any) -> str:
    condition = join.onclause
    if condition is None:
        raise TypeError("a cross join of this library has a condition")
    left, right = (compiler.process(side, **{**options, "asfrom": True}) for side in (join.left, join.right))
    return f"{left} CROSS JOIN {right} ON {compiler.process(condition, **options)}"


def in_json(column: sa.ColumnElement[Any], array: str) -> sa.ColumnElement[bool]:
    """Whether a column is in a JSON array, which is one parameter: SQLite takes a limited number of them."""
    return column.in_(sa.select(sa.func.json_each(array).table_valued("value").c.value))


def json_text(column: sa.Column[Any], path: str) -> sa.ColumnElement[Any]:
    """The plain value at a path of a column with JSON in it; null where there is none, or no JSON."""
    raw = sa.type_coerce(column, sa.Text)
    return sa.case((sa.func.json_valid(raw) == sa.literal_column("1"), sa.func.json_extract(raw, sa.literal_column(f"'{path}'"))))


def contains_text(column: sa.ColumnElement[Any], pattern: sa.BindParameter[str]) -> sa.ColumnElement[bool]:
    """Whether a text is like a pattern, whatever the case of its ASCII letters."""
    return column.like(pattern, escape=_ESCAPE)


def parts_contain_text(extra: sa.Column[Any], pattern: sa.BindParameter[str]) -> sa.ColumnElement[bool]:
    """Whether a part of a message's content holds some words."""
    part = sa.func.json_each(sa.type_coerce(extra, sa.String), sa.literal_column("'$.content'")).table_valued("value", "type")
    # Without the CASE a part that is a bare text would be parsed as JSON.
    text = sa.func.json_extract(part.c.value, sa.literal_column("'$.text'"))
    of_object = sa.case((part.c.type == sa.literal_column("'object'"), text))
    return sa.exists(sa.select(sa.literal_column("1")).select_from(part).where(contains_text(of_object, pattern)))


def as_stored(column: sa.Column[Any]) -> sa.ColumnElement[Any]:
    """A column as the driver gives it, without SQLAlchemy's conversion of times and JSON."""
    if isinstance(column.type, sa.JSON | sa.DateTime) or isinstance(getattr(column.type, "impl", None), sa.DateTime):
        return sa.type_coerce(column, sa.String).label(column.name)
    return column


def time_prefix(column: sa.Column[Any], chars: int) -> sa.ColumnElement[str]:
    """The first characters of a stored instant: its year and month, its day, its hour."""
    return sa.func.substr(sa.type_coerce(column, sa.String), sa.literal_column("1"), sa.literal_column(str(chars)))


def microseconds_since(column: sa.Column[Any]) -> sa.ColumnElement[int]:
    """The exact time from a stored instant to the present, which is bound as `at`. SQLite's own functions round to milliseconds."""
    return _microseconds(sa.bindparam("at", type_=sa.String)) - _microseconds(sa.type_coerce(column, sa.String))


def whole_microseconds(seconds: sa.Column[float]) -> sa.ColumnElement[int]:
    """Seconds as a whole number of microseconds."""
    return sa.cast(sa.func.round(seconds * sa.literal_column("1000000.0")), sa.Integer)


def _microseconds(instant: sa.ColumnElement[str]) -> sa.ColumnElement[int]:
    seconds = sa.func.strftime(sa.literal_column("'%s'"), _part(instant, "1, 19"), type_=sa.Integer)
    return seconds * sa.literal_column("1000000") + sa.type_coerce(_part(instant, "21"), sa.Integer)


def _part(instant: sa.ColumnElement[str], place: str) -> sa.ColumnElement[str]:
    return sa.func.substr(instant, sa.literal_column(place), type_=sa.String)


def whole_total(column: sa.Column[Any]) -> sa.ColumnElement[int]:
    """The sum of whole numbers, 0 if there are none. It cannot overflow and is exact below 2^53."""
    return sa.cast(sa.func.total(column), sa.Integer)


def sorted_part(rows: sa.Select[Any], *order: sa.ColumnElement[Any]) -> sa.Subquery:
    """A part of a query whose rows really come in an order. SQLite drops the order of a part that has no limit; -1 is none."""
    return rows.order_by(*order).limit(sa.literal_column("-1")).offset(sa.literal_column("0")).subquery()
