"""The views as CSV and Parquet: every row and value of them, with types that do not depend on the rows."""

from __future__ import annotations

import csv
import io
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import sessionstore
from sessionstore import InvalidInputError, MissingExtraError, SessionStore
from sessionstore.formats import tables
from sessionstore.queries.views import VIEWS

RANDOM = settings(max_examples=40, deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow])


def fill(store: SessionStore) -> None:
    """Something in every view."""
    for namespace in ("", "team"):
        part = store.in_namespace(namespace)
        part.set_remote("http://127.0.0.1:9")
        part.register_agent("a", metadata={"k": 1})
        chat = part.session("s", agent_id="a", user_id="u", title="T", metadata={"k": "é"}, ttl=3600, max_age=7200)
        chat.append("user", 'hello\r\nthere, "you"')
        chat.append(
            "assistant",
            "",
            model="m",
            input_tokens=1,
            output_tokens=2,
            cache_read_tokens=3,
            reasoning_tokens=4,
            response_time_ms=5.5,
        )
        part.end("s", "failed", quality_score=2, error="boom")
        part.record("latency", 1.5, unit="ms", agent_id="a")


@pytest.fixture
def filled(store: SessionStore) -> SessionStore:
    fill(store)
    return store


def expected(store: SessionStore, view: str, namespace: str | None = "") -> list[dict[str, Any]]:
    result = store.query(f"SELECT * FROM {view}")
    rows = [dict(zip(result.columns, row, strict=True)) for row in result.rows]
    return [row for row in rows if namespace is None or row.get("namespace", namespace) == namespace]


def stable(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows without what the present changes, in one order: views promise none, and a filter may lead SQLite another way."""
    still = [{name: value for name, value in row.items() if name not in ("age_seconds", "oldest_age_seconds")} for row in rows]
    return sorted(still, key=repr)


def csv_rows(store: SessionStore, view: str, **options: Any) -> list[dict[str, str]]:
    stream = io.BytesIO()
    store.export_file(stream, format="csv", view=view, **options)
    return list(csv.DictReader(io.StringIO(stream.getvalue().decode(), newline="")))


@pytest.mark.parametrize("view", VIEWS)
def test_csv_has_every_row_of_a_view(filled: SessionStore, view: str) -> None:
    for namespace, options in (("", {}), (None, {"all_namespaces": True})):
        rows = expected(filled, view, namespace)
        texts = [{name: "" if value is None else str(value) for name, value in row.items()} for row in rows]
        assert stable(csv_rows(filled, view, **options)) == stable(texts)


def test_a_text_that_a_spreadsheet_would_calculate_is_guarded(store: SessionStore) -> None:
    texts = ["=1+1", "+1", "-1", "@x", "\tx", "\rx", "\nx", "plain", "a=1", "'quoted"]
    store.create("s")
    store.append_many("s", [{"role": "user", "content": text} for text in texts])
    found = [row["text"] for row in csv_rows(store, "v_messages")]
    assert found == [f"'{text}" for text in texts[:7]] + texts[7:]


def test_random_texts_come_back_from_csv() -> None:
    stored = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=20)
    with sessionstore.open(in_memory=True) as store:

        @RANDOM
        @given(st.lists(stored, max_size=5))
        def equal(texts: list[str]) -> None:
            store.create("s")
            store.append_many("s", [{"role": "user", "content": text} for text in texts])
            guarded = [f"'{text}" if text[:1] in set("=+-@\t\r\n") else text for text in texts]
            assert [row["text"] for row in csv_rows(store, "v_messages")] == guarded
            store.delete("s")

        equal()


class TestParquet:
    core: Any
    io: Any

    @pytest.fixture(autouse=True)
    def arro3(self) -> None:
        self.core = pytest.importorskip("arro3.core", reason="the extra `parquet` is not installed")
        self.io = pytest.importorskip("arro3.io")

    def rows(self, store: SessionStore, view: str, **options: Any) -> tuple[Any, list[dict[str, Any]]]:
        stream = io.BytesIO()
        store.export_file(stream, format="parquet", view=view, **options)
        table = self.io.read_parquet(io.BytesIO(stream.getvalue())).read_all()
        names = table.schema.names
        columns = [[scalar.as_py() for chunk in table.column(name).chunks for scalar in chunk] for name in names]
        return table.schema, [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]

    @pytest.mark.parametrize("view", VIEWS)
    def test_every_row_of_a_view_is_there_with_its_type(self, filled: SessionStore, view: str) -> None:
        schema, rows = self.rows(filled, view)
        wanted = expected(filled, view)
        for row in wanted:
            for name, value in row.items():
                if value is not None and tables.type_of(name) == "instant":
                    row[name] = datetime.fromisoformat(value + "+00:00")
        assert stable(rows) == stable(wanted)
        assert schema.names == list(filled.query(f"SELECT * FROM {view}").columns)

    @pytest.mark.parametrize("view", VIEWS)
    def test_an_empty_view_has_the_types_of_a_full_one(self, store: SessionStore, view: str) -> None:
        empty, rows = self.rows(store, view)
        fill(store)
        full, _ = self.rows(store, view, all_namespaces=True)
        assert [str(empty.field(name).type) for name in empty.names] == [str(full.field(name).type) for name in full.names]
        assert rows == [] or view == "v_sync"

    def test_many_rows_come_in_several_groups(self, store: SessionStore) -> None:
        store.create("s")
        count = 2 * tables._ROWS_A_GROUP + 17
        store.append_many("s", [{"role": "user", "content": f"message {number}"} for number in range(count)])
        seen: list[tuple[int, int | None]] = []
        _, rows = self.rows(store, "v_messages", progress=lambda done, total: seen.append((done, total)))
        assert [row["seq"] for row in rows] == list(range(1, count + 1))
        assert seen[-1] == (count, None)
        assert len(seen) == count // 1000 + 1

    def test_an_error_on_the_way_is_the_caller_s_and_leaves_no_file(self, filled: SessionStore, tmp_path: Path) -> None:
        """The writer of Parquet is not Python's: it would lose the one and panic at the other."""

        class FullDisk(io.BytesIO):
            def write(self, _: Any) -> int:
                raise OSError(28, "No space left on device")

        with pytest.raises(OSError, match="No space left"):
            filled.export_file(FullDisk(), format="parquet", view="v_messages")

        def stop(_: int, __: int | None) -> None:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            filled.export_file(tmp_path / "out.parquet", format="parquet", view="v_messages", progress=stop)
        assert sorted(path.name for path in tmp_path.iterdir() if "parquet" in path.name) == []

    def test_instants_are_exact(self, store: SessionStore) -> None:
        store.create("s")
        when = datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)
        store.append("s", {"role": "user", "content": "x"}, created_at=when)
        _, rows = self.rows(store, "v_messages")
        assert rows[0]["created_at"] == when


def test_without_the_extra_the_error_says_how_to_get_it(store: SessionStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "arro3.core", None)
    with pytest.raises(MissingExtraError, match=r"sessionstore\[parquet\]"):
        store.export_file(io.BytesIO(), format="parquet", view="v_messages")


def test_a_column_has_one_type_in_all_views(filled: SessionStore) -> None:
    """The type that is told by a column's name fits what is stored there."""
    kinds = {"text": {"text"}, "instant": {"text"}, "integer": {"integer"}, "real": {"real", "integer"}}
    for view in VIEWS:
        for name in filled.query(f"SELECT * FROM {view} LIMIT 0").columns:
            stored = {row[0] for row in filled.query(f"SELECT DISTINCT typeof({name}) FROM {view}").rows} - {"null"}
            assert stored <= kinds[tables.type_of(name)], (view, name)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"format": "csv"}, "view: goes with the formats csv and parquet, which need one"),
        ({"format": "openai", "view": "v_messages"}, "view: goes with"),
        ({"format": "csv", "view": "sessions"}, "view: must be one of"),
        ({"format": "csv", "view": "v_messages; DROP TABLE sessions"}, "view: must be one of"),
        ({"format": "csv", "view": "v_messages", "session_ids": "s"}, "the rows of a view are all written"),
        ({"format": "csv", "view": "v_messages", "tag": "x"}, "the rows of a view are all written"),
    ],
)
def test_a_view_goes_with_its_formats_alone(store: SessionStore, options: dict[str, Any], reason: str) -> None:
    with pytest.raises(InvalidInputError, match=reason):
        store.export_file(io.BytesIO(), **options)


def test_a_file_is_compressed_by_its_name(filled: SessionStore, tmp_path: Path) -> None:
    receipt = filled.export_file(tmp_path / "m.csv.gz", format="csv", view="v_messages")
    assert (tmp_path / "m.csv.gz").read_bytes()[:2] == b"\x1f\x8b"
    assert (receipt.format, receipt.rows, receipt.sessions) == ("csv", 2, 0)
