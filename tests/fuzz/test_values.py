"""Every accepted value reads back equal, from the file; filters and pages choose what a plain scan of the same values chooses."""

from __future__ import annotations

import base64
import io
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from fuzz_store import Stores, judged, tried, watching, works
from fuzz_targets import same
from fuzz_values import (
    anything,
    instants,
    json_values,
    letters,
    message_dicts,
    new_messages,
    objects,
    odd_instants,
    odd_new_messages,
    odd_objects,
    odd_seconds,
    seconds,
    texts,
)
from hypothesis import strategies as st
from trials import Trial

import sessionstore
from sessionstore import InvalidInputError, NewMessage, SessionStore, SessionStoreError

NEVER = datetime(1970, 1, 1, tzinfo=UTC)
OWNERS = ("a", "b", None)
KEYS = ("k", "K", "a.b", "x-y")
PLAIN = st.sampled_from([0, 1, 1.0, -0.0, 0.5, True, False, None, "", "1", "x", 2**63 - 1, -(2**63), "é"])


@pytest.mark.fault("G26")
def test_every_accepted_value_reads_back_equal_and_no_refused_one_is_written(trial: Trial, stores: Stores) -> None:
    kept = refused = 0

    def check(messages: list[Any], state: dict[str, Any], about: Any, title: str, tags: list[str], at: datetime) -> None:
        nonlocal kept, refused
        with stores.fresh() as (store, path), watching(path) as watch:
            made = judged(lambda: store.create("new", title=title, tags=tags, metadata=about), watch)
            if isinstance(made, SessionStoreError):
                refused += 1
                made = store.create("new", title=title, tags=tags, metadata=None)
                about = {}
            accepted: list[Any] = []
            for message in messages:
                answer = judged(lambda message=message: store.append_many("new", [message]), watch)
                accepted += [] if isinstance(answer, SessionStoreError) else [message]
            kept, refused = kept + len(accepted), refused + len(messages) - len(accepted)
            store.append("new", "user", "timed", created_at=at)
            has_state = not isinstance(judged(lambda: store.set_state("new", state), watch), SessionStoreError)
            store.log_activity("who", "did", state if has_state else None)
            store.close()
            again = sessionstore.open(path)
            info = again.get("new")
            assert info is not None
            assert (info.title, info.tags) == (title, tuple(sorted(set(tags))))
            assert same(info.metadata, about or {})
            *found, last = again.messages("new")
            assert last.created_at == at
            for message, given in zip(found, accepted, strict=True):
                wanted = given.message if isinstance(given, NewMessage) else given
                assert same(message.to_dict(), wanted)
                for name, value in given.details.items() if isinstance(given, NewMessage) else ():
                    assert same(getattr(message, name), value) or value is None or isinstance(value, datetime | float)
            if has_state:
                assert same(again.state("new", scope="session"), state)
                assert same(again.activity(agent_id="who")[0].details, state)
            works(again)
            again.close()

    examples = tried(
        trial,
        check,
        push=20,
        nightly=1_500,
        release=15_000,
        messages=st.lists(new_messages | odd_new_messages.filter(has_no_time), max_size=6),
        state=st.dictionaries(letters, json_values, max_size=3) | odd_objects,
        about=st.none() | objects | odd_objects,
        title=texts,
        tags=st.lists(letters, max_size=4),
        at=instants,
    )
    trial.report(
        f"{kept:,} messages of {examples:,} stores read back equal, {refused:,} values refused, 0 of them written", kept=kept
    )


def has_no_time(message: Any) -> bool:
    return not (isinstance(message, NewMessage) and "created_at" in message.details)


@pytest.mark.fault("G25")
def test_filters_choose_what_a_plain_scan_chooses(trial: Trial, stores: Stores) -> None:
    """Each filter alone and all together, in list, count and delete, whatever stands in them."""
    compared = 0
    attributes = st.fixed_dictionaries(
        {
            "agent_id": st.sampled_from(OWNERS),
            "user_id": st.sampled_from(OWNERS),
            "tags": st.lists(st.sampled_from(["x", "X", "%", "_", "a'b", "é"]), max_size=3),
            "metadata": st.dictionaries(st.sampled_from(KEYS), PLAIN, max_size=3),
            "pinned": st.booleans(),
            "title": st.none() | st.sampled_from(["Plain", "100%", "a_b", "back\\slash", "É", "a\0b"]),
        }
    )
    filters = st.fixed_dictionaries(
        {},
        optional={
            "agent_id": st.sampled_from(OWNERS),
            "user_id": st.sampled_from(OWNERS),
            "tag": st.sampled_from(["x", "X", "%", "_", "a'b", "é"])
            | st.lists(st.sampled_from(["x", "X", "%"]), min_size=1, max_size=2),
            "metadata": st.dictionaries(st.sampled_from(KEYS), PLAIN, min_size=1, max_size=2),
            "pinned": st.booleans(),
            "text": st.sampled_from(["plain", "%", "_", "\\", "a_", "É", "0%", "b\\"]),
        },
    )

    def check(sessions: list[dict[str, Any]], asked: list[dict[str, Any]]) -> None:
        nonlocal compared
        with stores.empty() as (store, _):
            known = {f"s{number}": given for number, given in enumerate(sessions)}
            for name, given in known.items():
                store.create(name, **given)
            for wanted in asked:
                expected = {name for name, given in known.items() if fits(given, wanted)}
                page = store.list(limit=1_000, **wanted)
                assert {info.session_id for info in page.items} == expected, wanted
                assert store.count(**wanted) == len(expected)
                if wanted:
                    assert set(store.delete(dry_run=True, **wanted).session_ids) == expected
                compared += 1

    tried(
        trial,
        check,
        push=8,
        nightly=800,
        release=8_000,
        sessions=st.lists(attributes, max_size=8),
        asked=st.lists(filters, min_size=3, max_size=8),
    )
    trial.report(f"{compared:,} random filters: list, count and delete chose what a scan chooses, 0 differences", compared=compared)


def fits(session: dict[str, Any], wanted: dict[str, Any]) -> bool:
    """What the documentation says of each filter, in plain words."""
    tags = wanted.get("tag", [])
    return (
        all(session[name] == wanted[name] for name in ("agent_id", "user_id", "pinned") if name in wanted)
        and set([tags] if isinstance(tags, str) else tags) <= set(session["tags"])
        and all(
            name in session["metadata"] and alike(session["metadata"][name], value)
            for name, value in wanted.get("metadata", {}).items()
        )
        and ("text" not in wanted or lowered(wanted["text"]) in lowered(session["title"] or ""))
    )


def alike(stored: Any, wanted: Any) -> bool:
    """Equal as JSON has it: numbers by their value, and nothing else is a number."""
    kinds = [
        bool if isinstance(value, bool) else float if isinstance(value, int | float) else type(value) for value in (stored, wanted)
    ]
    return kinds[0] is kinds[1] and stored == wanted


def lowered(text: str) -> str:
    """ASCII letters in lower case."""
    return "".join(character.lower() if character.isascii() else character for character in text)


@pytest.mark.fault("G25")
def test_pages_hold_all_and_a_changed_cursor_is_refused(trial: Trial, stores: Stores) -> None:
    tampered = 0

    def check(count: int, limit: int, place: int, byte: int) -> None:
        nonlocal tampered
        with stores.empty() as (store, _):
            for number in range(count):
                store.create(f"s{number}", agent_id="a")
                store.append(f"s{number}", "user", "word")
                store.end(f"s{number}", "failed", error="e")
            for ask in (store.list, lambda **more: store.search("word", **more)):
                found: list[str] = []
                cursor = None
                while True:
                    page = ask(limit=limit, cursor=cursor)
                    found += [each.session_id for each in page.items]
                    cursor = page.next_cursor
                    if cursor is None:
                        break
                    changed = cursor[: place % len(cursor)] + chr(byte) + cursor[place % len(cursor) + 1 :]
                    answer = judged(lambda ask=ask, changed=changed: ask(limit=limit, cursor=changed))
                    assert isinstance(answer, InvalidInputError) or means_the_same(changed, cursor)
                    tampered += 1
                assert sorted(found) == sorted(f"s{number}" for number in range(count))

    whole = {"count": st.integers(0, 6), "limit": st.integers(1, 3), "place": st.integers(0, 200), "byte": st.integers(0, 0xD7FF)}
    tried(trial, check, push=6, nightly=300, release=3_000, **whole)
    trial.report(f"{tampered:,} changed cursors refused, all pages whole", tampered=tampered)


def means_the_same(one: str, other: str) -> bool:
    """Whether two cursors are the same bytes: base64 skips what it does not know."""
    try:
        return base64.urlsafe_b64decode(one.encode("ascii")) == base64.urlsafe_b64decode(other)
    except ValueError:
        return False


@pytest.mark.fault("G26")
def test_what_is_exported_and_imported_is_the_same_store(trial: Trial, stores: Stores) -> None:
    def check(sessions: list[list[Any]], about: dict[str, Any], compress: int | None) -> None:
        with stores.empty() as (store, _), sessionstore.open(in_memory=True, compress_over=compress) as second:
            for number, messages in enumerate(sessions):
                store.session(f"s{number}", metadata=about).append_many(messages)
                if messages:
                    store.fork(f"s{number}", f"fork{number}", at=1)
            written = exported(store)
            second.import_file(io.BytesIO(written), format="sessionstore")
            assert exported(second) == written

    examples = tried(
        trial,
        check,
        push=8,
        nightly=400,
        release=4_000,
        sessions=st.lists(st.lists(new_messages, max_size=5), max_size=3),
        about=objects,
        compress=st.sampled_from([None, 10, 1_000]),
    )
    trial.report(f"{examples:,} stores written out, read into others and written out again: 0 differences")


def exported(store: SessionStore) -> bytes:
    target = io.BytesIO()
    store.export_file(target, all_namespaces=True)
    return target.getvalue()


@pytest.mark.fault("G26")
def test_a_memory_backend_keeps_any_conversation_or_refuses_it(trial: Trial, stores: Stores) -> None:
    outcomes = [0, 0]

    def check(name: Any, messages: list[Any]) -> None:
        with stores.fresh() as (store, path), watching(path) as watch:
            memories = (store.as_memory_backend(), sessionstore.FileBackend(path.parent / "files"))
            for memory, look in zip(memories, (watch, None), strict=True):
                answer = judged(lambda memory=memory: memory.save(name, messages), look)
                refused = isinstance(answer, SessionStoreError)
                outcomes[refused] += 1
                if not refused:
                    assert same(memory.load(name), list(messages))
                    assert name in memory.list()
                    memory.delete(name)
                    assert memory.load(name) is None
            inside = [file for file in path.parent.rglob("*") if not file.name.startswith("agent.db")]
            assert {file.parent for file in inside} <= {path.parent, path.parent / "files"}

    tried(
        trial,
        check,
        push=15,
        nightly=1_000,
        release=10_000,
        name=letters | anything,
        messages=st.lists(message_dicts, max_size=4) | st.lists(odd_objects, max_size=3),
    )
    trial.report(f"{outcomes[0]:,} conversations kept and read back equal by two backends, {outcomes[1]:,} refused")


@pytest.mark.fault("G26")
def test_lives_and_instants_of_any_kind_are_kept_or_refused(trial: Trial, stores: Stores) -> None:
    def check(ttl: Any, max_age: Any, at: Any) -> None:
        with stores.fresh() as (store, path), watching(path) as watch:
            made = judged(lambda: store.create("new", ttl=ttl, max_age=max_age), watch)
            if not isinstance(made, SessionStoreError):
                assert made.ttl == in_seconds(ttl)
                assert made.max_age == in_seconds(max_age)
                assert (made.expires_at is None) == (ttl is None and max_age is None)
            said = judged(lambda: store.append("s", "user", "x", created_at=at), watch)
            if not isinstance(said, SessionStoreError):
                assert at is None or store.messages("s", last=1)[0].created_at == at
            works(store)

    lives = st.none() | seconds | odd_seconds
    examples = tried(trial, check, push=20, nightly=1_500, release=15_000, ttl=lives, max_age=lives, at=st.none() | odd_instants)
    trial.report(f"{examples:,} pairs of lives and instants: kept exactly or refused, nothing written by a refused one")


def in_seconds(life: Any) -> float | None:
    return life.total_seconds() if isinstance(life, timedelta) else life
