"""What the tables are made of: a registry and MetaData of their own, and the columns and conditions that many have.

Nothing here touches `SQLModel.metadata`, so a host program's `create_all()` and Alembic never see these tables.
"""

from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.orm import registry
from sqlmodel import Field, SQLModel

from ..values import SEARCH_TABLES

SCHEMA_METADATA: Final = sa.MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)

# SQLite makes a rowid alias of INTEGER only.
Key: Final = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
Json: Final = sa.JSON(none_as_null=True)


class Base(SQLModel, registry=registry(metadata=SCHEMA_METADATA)):
    """The root of this library's tables."""


def one_of(column: str, words: tuple[str, ...]) -> str:
    """A condition: the column holds one of these words."""
    return f"{column} IN ({', '.join(repr(word) for word in words)})"


def key(**options: Any) -> Any:
    """A column that holds keys or ids."""
    return Field(sa_type=Key, **options)


def where(condition: str) -> dict[str, Any]:
    """The options of an index over a part of the rows, in both dialects."""
    return {"sqlite_where": sa.text(condition), "postgresql_where": sa.text(condition)}


def counter() -> Any:
    """A column that counts from 0."""
    return Field(default=0, sa_type=sa.BigInteger, sa_column_kwargs={"server_default": "0"})


def seq_from_zero() -> Any:
    """A seq that the database sets to 0 in new rows, so that no insert needs to name it."""
    return Field(default=0, sa_column=sa.Column(sa.BigInteger, nullable=False, server_default="0"))


def is_modelled(name: str | None, kind: str, _: object) -> bool:
    """Whether Alembic is to compare something with the models: the full-text tables and what SQLite keeps for them have none."""
    return kind != "table" or name is None or not name.startswith(SEARCH_TABLES)
