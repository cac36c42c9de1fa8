"""The compiled parts that lists and counts are joined from: they are what SQLAlchemy writes of the models."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
import sqlalchemy as sa

from sessionstore import SessionStore
from sessionstore.arguments import session_filter
from sessionstore.queries import catalog, catalog_statements, statements, tables

INSTANT = datetime(2024, 2, 29, 12, tzinfo=UTC)
FILTERS: list[dict[str, Any]] = [
    {},
    *({"status": status} for status in ("open", "completed", "failed", "expired")),
    {"agent_id": "a", "user_id": "u"},
    {"agent_id": None, "user_id": None},
    *({"archived": archived} for archived in (True, False)),
    {"pinned": True},
    {"since": INSTANT, "until": INSTANT},
    {"tag": ["s", "t"]},
    {"metadata": {"null": None, "true": True, "false": False, "whole": 1, "real": 1.5, "text": "1"}},
    {"text": "words"},
    {"status": "expired", "agent_id": "a", "tag": ["s", "t"], "metadata": {"n": 1, "t": "1"}, "text": "words", "pinned": False},
]


KEY = tables.SESSIONS.c.session_key


@pytest.mark.parametrize("namespace", ["", None])
@pytest.mark.parametrize("filters", FILTERS, ids=str)
def test_joined_conditions_are_those_that_are_compiled_together(
    store: SessionStore, filters: dict[str, Any], namespace: str | None
) -> None:
    """Their texts, and their values in the order of the question marks, also behind a cursor."""
    for session_id in ("one", "two"):
        store.create(session_id)
    cursor = store.list(limit=1).next_cursor
    assert cursor is not None
    after = catalog._read_cursor(cursor, session_filter("", archived=False))
    terms = [*store._read(lambda db: catalog._terms(db, session_filter(namespace, **filters))), after]
    shape = [(term.name, term.number) for term in terms]
    # Alone, a condition with an OR in it would be written without its brackets.
    whole = sa.select(KEY).where(KEY.is_not(None), *catalog_statements.conditions_of(shape))
    conditions, values = catalog._joined(terms)
    assert statements.text_of(whole).endswith(f" WHERE sessions.session_key IS NOT NULL AND {conditions}")
    pairs = [pair for term in terms for pair in term.values]
    assert tuple(name for name, _ in pairs) == statements.parameters_of(whole)
    assert values == [value for _, value in pairs]


@pytest.mark.parametrize("filters", [{}, {"status": "completed"}, {"agent_id": "a"}, {"user_id": None}], ids=str)
def test_a_page_by_a_tag_may_be_of_all_namespaces(
    store: SessionStore, monkeypatch: pytest.MonkeyPatch, filters: dict[str, Any]
) -> None:
    """Few are looked up by their tag; of many, those that changed last are met by going through all."""
    for namespace in ("", "other"):
        for number in range(12):
            space = store.in_namespace(namespace)
            space.create(f"s{number}", tags=["t"] * (number % 3 > 0), agent_id="a" if number % 2 else None)
            if number > 6:
                space.end(f"s{number}")
    wanted = session_filter(None, tag="t", **filters)

    def shown() -> list[tuple[str, str]]:
        page = store._read(lambda db: catalog.page(db, wanted, limit=100, cursor=None))
        return [(info.namespace, info.session_id) for info in page]

    looked_up = shown()
    assert len(looked_up) == store._read(lambda db: catalog.count(db, wanted))
    assert {namespace for namespace, _ in looked_up} == {"", "other"}
    monkeypatch.setattr(catalog, "_rare_tag", lambda *_: None)
    assert shown() == looked_up
