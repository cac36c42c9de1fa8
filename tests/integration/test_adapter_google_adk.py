"""Google ADK over a store: the service's contract beside ADK's own services, what the store makes of it, and real runs."""

from __future__ import annotations

import asyncio
import copy
import json
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import anyio
import hypothesis.strategies as st
import pytest
from adk_agent import APP, KILL, SESSION, USER, ScriptedLlm, ask, runner
from clocks import FrozenClock
from google.adk.errors import StaleSessionError
from google.adk.errors.already_exists_error import AlreadyExistsError
from google.adk.errors.session_not_found_error import SessionNotFoundError
from google.adk.events.event import Event
from google.adk.events.event_actions import EventActions
from google.adk.sessions.base_session_service import BaseSessionService, GetSessionConfig
from google.adk.sessions.database_session_service import DatabaseSessionService
from google.adk.sessions.in_memory_session_service import InMemorySessionService
from google.adk.sessions.session import Session
from google.adk.sessions.sqlite_session_service import SqliteSessionService
from google.genai import types
from hypothesis import given, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule, run_state_machine_as_test
from trials import Trial

import sessionstore
from sessionstore import ClosedStoreError, InvalidInputError, NewMessage, SessionStore
from sessionstore.adapters.google_adk import SessionStoreService, parts_of, stored_id
from sessionstore.adapters.google_adk.events import as_json, event_of, messages_of

pytestmark = pytest.mark.anyio
Dump = Callable[[], dict[str, Any]]
# For campaigns: how many random programs are compared, and how many lists of random events are stored.
PROGRAM = str(Path(__file__).with_name("adk_agent.py"))
STORED = stored_id(APP, USER, SESSION)
ADDRESSED = {"app_name": APP, "user_id": USER, "session_id": SESSION}


@pytest.fixture
def anyio_backend() -> str:
    """ADK runs on asyncio only."""
    return "asyncio"


@pytest.fixture
def service(store: SessionStore) -> SessionStoreService:
    """A service over a store that stays open."""
    return SessionStoreService(store)


def text_event(text: str, author: str = "user", **details: Any) -> Event:
    """An event of one text."""
    role = "user" if author == "user" else "model"
    return Event(author=author, invocation_id="i", content=types.Content(role=role, parts=[types.Part(text=text)]), **details)


def changing(**state: Any) -> Event:
    """An event that only changes state; `__` in a name stands for the colon."""
    return Event(
        author="guide",
        invocation_id="i",
        actions=EventActions(state_delta={name.replace("__", ":"): value for name, value in state.items()}),
    )


def calling(*ids: str) -> Event:
    """A model's event that calls a function once for each id."""
    parts = [types.Part(function_call=types.FunctionCall(id=each, name="weather", args={"city": each})) for each in ids]
    return Event(author="guide", invocation_id="i", content=types.Content(role="model", parts=parts))


def answering(*ids: str) -> Event:
    """The event of the functions' results."""
    parts = [types.Part(function_response=types.FunctionResponse(id=each, name="weather", response={"ok": each})) for each in ids]
    return Event(author="guide", invocation_id="i", content=types.Content(role="user", parts=parts))


def texts_of(session: Session | None) -> list[str]:
    """What was said, by event."""
    assert session is not None
    return ["".join(part.text or "" for part in (event.content.parts or ())) if event.content else "" for event in session.events]


# -- the contract


async def test_a_session_comes_back_with_its_events_and_state(service: SessionStoreService) -> None:
    assert isinstance(service, BaseSessionService)
    made = await service.create_session(**ADDRESSED, state={"n": 1, "user:lang": "it", "app:x": [1], "temp:t": 1})
    assert made.state == {"n": 1, "user:lang": "it", "app:x": [1]}
    event = text_event("Hi", actions=EventActions(state_delta={"n": 2, "user:lang": None, "temp:t": 5}))
    assert await service.append_event(made, event) is event
    assert made.state == {"n": 2, "user:lang": None, "app:x": [1], "temp:t": 5}
    assert event.actions.state_delta == {"n": 2, "user:lang": None}
    found = await service.get_session(**ADDRESSED)
    assert found is not None
    assert found.events == [event] == made.events
    assert found.state == {"n": 2, "user:lang": None, "app:x": [1]}
    assert found.last_update_time == pytest.approx(event.timestamp, abs=1e-6)
    assert await service.get_user_state(app_name=APP, user_id=USER) == {"lang": None}


async def test_ids_are_stripped_made_up_and_refused_twice(service: SessionStoreService) -> None:
    made = await service.create_session(app_name=APP, user_id=USER, session_id=" a b\n")
    assert made.id == "a b"
    assert await service.get_session(app_name=APP, user_id=USER, session_id="a b ") is not None
    with pytest.raises(AlreadyExistsError):
        await service.create_session(app_name=APP, user_id=USER, session_id="a b")
    others = {(await service.create_session(app_name=APP, user_id=USER, session_id=each)).id for each in (None, "", "  ")}
    assert len(others) == 3
    assert all(others)


async def test_unknown_sessions_are_none_gone_or_not_found(service: SessionStoreService) -> None:
    assert await service.get_session(**ADDRESSED) is None
    await service.delete_session(**ADDRESSED)
    with pytest.raises(SessionNotFoundError):
        await service.append_event(Session(id=SESSION, app_name=APP, user_id=USER), text_event("Hi"))
    assert (await service.list_sessions(app_name=APP)).sessions == []
    assert await service.get_user_state(app_name=APP, user_id=USER) == {}
    await service.flush()


async def test_a_deleted_session_leaves_the_state_of_its_user(service: SessionStoreService) -> None:
    session = await service.create_session(**ADDRESSED, state={"n": 1, "user:lang": "it"})
    await service.append_event(session, text_event("Hi"))
    await service.delete_session(**ADDRESSED)
    assert await service.get_session(**ADDRESSED) is None
    again = await service.create_session(**ADDRESSED)
    assert again.state == {"user:lang": "it"}
    with pytest.raises(StaleSessionError):
        await service.append_event(session, text_event("to the session that is gone"))


async def test_partial_events_are_not_stored(service: SessionStoreService) -> None:
    session = await service.create_session(**ADDRESSED)
    partial = text_event("H", "guide", partial=True, actions=EventActions(state_delta={"n": 1}))
    assert await service.append_event(session, partial) is partial
    assert session.events == []
    assert (await service.get_session(**ADDRESSED)).events == []  # type: ignore[union-attr]


@pytest.mark.parametrize("many", [3, 450])
async def test_the_newest_events_and_those_since_an_instant(service: SessionStoreService, many: int) -> None:
    """More than a page of events are read in a thread."""
    session = await service.create_session(**ADDRESSED)
    names = [stored for number in range(many) for stored in service.store._all_prepared(messages_of(as_json(numbered(number))))]
    service.store._write(lambda db: sessionstore.queries.messages.append(db, "", STORED, names))
    assert texts_of(await service.get_session(**ADDRESSED)) == [str(number) for number in range(many)]

    async def got(**config: Any) -> list[str]:
        return texts_of(await service.get_session(**ADDRESSED, config=GetSessionConfig(**config)))

    assert await got(num_recent_events=0) == []
    assert await got(num_recent_events=2) == [str(many - 2), str(many - 1)]
    assert len(await got(num_recent_events=many + 1)) == many
    assert await got(after_timestamp=1_000.5 + many - 2) == [str(many - 2), str(many - 1)]
    assert await got(after_timestamp=1_000.6 + many - 2) == [str(many - 1)]
    assert await got(after_timestamp=1_000.5, num_recent_events=1) == [str(many - 1)]
    assert await got(after_timestamp=1e9) == []
    none = await service.get_session(**ADDRESSED, config=GetSessionConfig(num_recent_events=0))
    assert none is not None
    assert none.last_update_time == 1_000.5 + many - 1
    assert session.last_update_time > none.last_update_time
    await service.append_event(none, text_event("goes on without its events"))


def numbered(number: int) -> Event:
    """An event that happened so many seconds after another."""
    return text_event(str(number), timestamp=1_000.5 + number)


async def test_limits_count_events_and_not_the_messages_of_their_results(service: SessionStoreService) -> None:
    session = await service.create_session(**ADDRESSED)
    events = [text_event("Hi"), calling("a", "b", "c"), answering("a", "b", "c"), calling("d", "e"), answering("d", "e")]
    for event in events:
        await service.append_event(session, event)
    assert service.store.get(STORED).message_count == 8  # type: ignore[union-attr]
    for most in range(1, 6):
        got = await service.get_session(**ADDRESSED, config=GetSessionConfig(num_recent_events=most))
        assert got is not None
        assert got.events == events[-most:]


async def test_sessions_are_listed_with_state_and_the_last_used_last(service: SessionStoreService) -> None:
    made = {}
    for user, name in (("bob", "z"), ("alice", "a"), ("alice", "b"), ("bob", "y")):
        made[name] = await service.create_session(app_name=APP, user_id=user, session_id=name, state={"name": name})
    await service.create_session(app_name="other", user_id="alice", session_id="o")
    await service.append_event(
        made["a"], text_event("x", timestamp=5e9, actions=EventActions(state_delta={"user:u": 1, "app:p": 2}))
    )
    await service.append_event(made["y"], text_event("x", timestamp=4e9))
    service.store.archive(stored_id(APP, "bob", "z"))
    service.store.session("not-adk's", agent_id=APP, user_id="alice")
    listed = (await service.list_sessions(app_name=APP)).sessions
    assert [(each.user_id, each.id) for each in listed] == [("bob", "z"), ("alice", "b"), ("bob", "y"), ("alice", "a")]
    assert [each.events for each in listed] == [[]] * 4
    assert listed[1].state == {"name": "b", "app:p": 2, "user:u": 1}
    assert listed[2].state == {"name": "y", "app:p": 2}
    assert [listed[2].last_update_time, listed[3].last_update_time] == [4e9, 5e9]
    of_alice = (await service.list_sessions(app_name=APP, user_id="alice")).sessions
    assert of_alice == [listed[1], listed[3]]
    assert (await service.list_sessions(app_name=APP, user_id="nobody")).sessions == []
    await service.append_event(of_alice[1], text_event("a listed session can be appended to", timestamp=6e9))


async def test_a_stale_session_is_refused_as_by_adks_own(service: SessionStoreService, tmp_path: Path) -> None:
    await refuses_stale(service)
    for theirs in (
        SqliteSessionService(str(tmp_path / "sqlite.db")),
        DatabaseSessionService(f"sqlite+aiosqlite:///{tmp_path}/database.db"),
    ):
        await refuses_stale(theirs)
        await theirs.close()


async def refuses_stale(service: BaseSessionService) -> None:
    """Two programs have a session; one appends, then the other."""
    first = await service.create_session(**ADDRESSED)
    second = await service.get_session(**ADDRESSED)
    assert second is not None
    later = first.last_update_time + 10
    await service.append_event(first, text_event("one", timestamp=later))
    before = copy.deepcopy(second)
    with pytest.raises(StaleSessionError):
        await service.append_event(second, text_event("two", timestamp=later + 1))
    assert second == before
    plain = Session(**ADDRESSED_AS_ID, last_update_time=later - 1)
    with pytest.raises(StaleSessionError):
        await service.append_event(plain, text_event("three", timestamp=later + 1))
    plain.last_update_time = later
    await service.append_event(plain, text_event("four", timestamp=later + 2))
    assert texts_of(await service.get_session(**ADDRESSED)) == ["one", "four"]


ADDRESSED_AS_ID = {"app_name": APP, "user_id": USER, "id": SESSION}


async def test_a_session_that_was_not_loaded_is_fresh_if_it_has_the_last_event(service: SessionStoreService) -> None:
    """As in ADK's DatabaseSessionService: clocks may be behind."""
    made = await service.create_session(**ADDRESSED)
    await service.append_event(made, text_event("one", timestamp=5e9))
    carried = Session.model_validate_json(made.model_dump_json())
    carried.last_update_time = 1.0
    await service.append_event(carried, text_event("two", timestamp=5e9 + 1))
    carried = Session.model_validate_json(made.model_dump_json())
    with pytest.raises(StaleSessionError):
        await service.append_event(carried, text_event("three"))


async def test_a_session_whose_last_message_was_taken_out_is_stale(service: SessionStoreService) -> None:
    session = await service.create_session(**ADDRESSED)
    await service.append_event(session, text_event("one"))
    service.store.pop(STORED)
    with pytest.raises(StaleSessionError):
        await service.append_event(session, text_event("two"))


async def test_a_title_or_a_tag_makes_no_session_stale(service: SessionStoreService) -> None:
    session = await service.create_session(**ADDRESSED)
    service.store.update(STORED, title="Rome")
    service.store.tag(STORED, "t")
    service.store.set_state(STORED, {"x": 1})
    await service.append_event(session, text_event("one"))


async def test_an_event_that_is_appended_again_changes_nothing(service: SessionStoreService, dump: Dump) -> None:
    session = await service.create_session(**ADDRESSED)
    event = answering("a", "b")
    event.actions.state_delta = {"n": 1}
    lost = copy.deepcopy(session)
    await service.append_event(session, event)
    await service.append_event(session, changing(n=2))
    before = dump()
    await service.append_event(session, event)
    assert len(session.events) == 2
    # A caller that never heard that its event was stored appends it again. What came behind it is news to it.
    await service.append_event(lost, event)
    assert lost.events == [event]
    assert dump() == before
    with pytest.raises(StaleSessionError):
        await service.append_event(lost, text_event("next"))
    with pytest.raises(AlreadyExistsError):
        await service.append_event(session, text_event("another one", id=event.id))
    assert dump() == before


REFUSED = {
    "state without a name": changing(**{"": 1}),
    "a whole number of 65 bits": changing(n=2**64),
    "a scope of more than 4 MiB": changing(**{f"app__{number}": "x" * 1_000_000 for number in range(5)}),
    "an unpaired surrogate": text_event("\ud800"),
    "a thousand calls and one": calling(*(str(number) for number in range(1_001))),
}


@pytest.mark.parametrize("event", REFUSED.values(), ids=REFUSED)
async def test_a_refused_event_stores_neither_message_nor_state(service: SessionStoreService, dump: Dump, event: Event) -> None:
    session = await service.create_session(**ADDRESSED)
    event = event.model_copy(deep=True)
    if event.content:
        event.actions.state_delta = {"n": 1}
    before = dump()
    with pytest.raises(sessionstore.SessionStoreError):
        await service.append_event(session, event)
    assert dump() == before
    assert session.events == []


@pytest.mark.parametrize("call", ["create_session", "get_session", "delete_session"])
@pytest.mark.parametrize("field", ["app_name", "user_id"])
async def test_names_that_no_store_has_are_refused(service: SessionStoreService, call: str, field: str) -> None:
    with pytest.raises(InvalidInputError, match=field):
        await getattr(service, call)(**{**ADDRESSED, field: ""})
    with pytest.raises(InvalidInputError, match="together"):
        await getattr(service, call)(**{**ADDRESSED, "session_id": "x" * 250})


async def test_a_closed_store_refuses_every_call(store: SessionStore) -> None:
    service = SessionStoreService(store)
    session = await service.create_session(**ADDRESSED)
    store.close()
    for refused in (
        service.create_session(**ADDRESSED),
        service.get_session(**ADDRESSED),
        service.list_sessions(app_name=APP),
        service.get_user_state(app_name=APP, user_id=USER),
        service.delete_session(**ADDRESSED),
        service.append_event(session, text_event("x")),
    ):
        with pytest.raises(ClosedStoreError):
            await refused


async def test_a_path_is_opened_and_closed_and_a_given_store_stays_open(store: SessionStore, tmp_path: Path) -> None:
    async with SessionStoreService(tmp_path / "own.db") as service:
        await service.create_session(**ADDRESSED)
    with pytest.raises(ClosedStoreError):
        await service.get_session(**ADDRESSED)
    async with SessionStoreService(str(tmp_path / "own.db")) as again:
        assert await again.get_session(**ADDRESSED) is not None
    async with SessionStoreService(store):
        pass
    store.session("still open")
    async with sessionstore.aopen(tmp_path / "own.db") as awaited:
        assert await SessionStoreService(awaited).get_session(**ADDRESSED) is not None


def test_it_also_works_on_trio(store: SessionStore) -> None:
    async def use() -> None:
        service = SessionStoreService(store)
        session = await service.create_session(**ADDRESSED)
        async with anyio.create_task_group() as group:
            for number in range(3):
                group.start_soon(service.append_event, session, text_event(str(number)))
        assert len((await service.get_session(**ADDRESSED)).events) == 3  # type: ignore[union-attr]

    anyio.run(use, backend="trio")


# -- names


ODD = ["a", "a/b", "a%2Fb", "%", "a:b", "ü", "日本", "a b", "app:a", "x" * 60]


async def test_one_id_under_several_users_and_applications_is_several_sessions(service: SessionStoreService) -> None:
    for app in ODD:
        for user in ODD[:5]:
            session = await service.create_session(
                app_name=app, user_id=user, session_id="s/1", state={"of": [app, user], "user:of": [app, user], "app:of": app}
            )
            await service.append_event(session, text_event(f"{app} {user}"))
    for app in ODD:
        assert len((await service.list_sessions(app_name=app)).sessions) == 5
        for user in ODD[:5]:
            found = await service.get_session(app_name=app, user_id=user, session_id="s/1")
            assert texts_of(found) == [f"{app} {user}"]
            assert found is not None
            assert found.state == {"of": [app, user], "user:of": [app, user], "app:of": app}
            assert await service.get_user_state(app_name=app, user_id=user) == {"of": [app, user]}


@settings(max_examples=100, deadline=None)
@given(*(st.text(min_size=1, max_size=12).filter(lambda text: text.strip() == text) for _ in range(3)))
def test_a_stored_id_leads_back_to_its_parts(app: str, user: str, session: str) -> None:
    try:
        stored = stored_id(app, user, session)
    except InvalidInputError:
        return
    assert parts_of(stored) == (app, user, session)


@pytest.mark.parametrize("stored", ["a/b", "a/b/c/d", "a/b/%zz", "a/b/%2f", "", "a/b/%61"])
def test_an_id_that_is_not_ours_has_no_parts(stored: str) -> None:
    assert parts_of(stored) is None


async def test_two_namespaces_with_equal_ids_never_see_each_other(store: SessionStore) -> None:
    services = {name: SessionStoreService(store.in_namespace(name)) for name in ("one", "two")}
    for name, service in services.items():
        session = await service.create_session(**ADDRESSED, state={"of": name, "user:of": name, "app:of": name})
        await service.append_event(session, text_event(name))
    for name, service in services.items():
        found = await service.get_session(**ADDRESSED)
        assert texts_of(found) == [name]
        assert found is not None
        assert found.state == {"of": name, "user:of": name, "app:of": name}
        assert [each.state["of"] for each in (await service.list_sessions(app_name=APP)).sessions] == [name]
        assert await service.get_user_state(app_name=APP, user_id=USER) == {"of": name}
    await services["one"].delete_session(**ADDRESSED)
    assert await services["two"].get_session(**ADDRESSED) is not None


# -- the same answers as ADK's own services


class AsAdk(RuleBasedStateMachine):
    """Random calls to our service, to InMemorySessionService and to SqliteSessionService."""

    users = st.sampled_from(["alice", "bob"])
    apps = st.sampled_from(["trips", "shop"])
    ids = st.sampled_from(["1", "2", " 1 ", "a/b"])
    keys = st.sampled_from(["k", "l", "user:k", "user:l", "app:k", "app:l", "temp:k", "usr:k"])
    values = st.none() | st.booleans() | st.integers(-5, 5) | st.floats(-1, 1) | st.text(max_size=3) | st.just({"a": [None, {}]})
    states = st.dictionaries(keys, values, max_size=4)

    @initialize()
    def begin(self) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.loop = asyncio.Runner()
        self.services: list[Any] = [
            SessionStoreService(self.folder / "ours.db"),
            InMemorySessionService(),
            SqliteSessionService(str(self.folder / "theirs.db")),
        ]
        self.held: dict[tuple[str, str, str], list[Session]] = {}
        self.clock = 2e9

    def all(self, call: str, *args: Any, **kwargs: Any) -> list[Any]:
        """What each service answers, or the name of its error."""

        async def answer(service: Any, own: tuple[Any, ...]) -> Any:
            try:
                return await getattr(service, call)(*own, **kwargs)
            except (ValueError, AlreadyExistsError) as error:
                return type(error).__name__

        own_args = list(zip(*args, strict=True)) if args else [()] * 3
        return [self.loop.run(answer(service, own)) for service, own in zip(self.services, own_args, strict=True)]

    def agreed(self, answers: list[Any]) -> Any:
        """The one answer that all give."""
        ours, *theirs = (answer if isinstance(answer, str | None) else shown(answer) for answer in answers)
        assert [ours] * 2 == theirs
        return ours

    @rule(app=apps, user=users, session_id=ids, state=st.none() | states)
    def create(self, app: str, user: str, session_id: str, state: dict[str, Any] | None) -> None:
        made = self.all("create_session", app_name=app, user_id=user, session_id=session_id, state=state)
        if not isinstance(self.agreed(made), str):
            self.held[app, user, session_id.strip()] = made

    @precondition(lambda self: self.held)
    @rule(data=st.data(), state=states, text=st.none() | st.text(max_size=5), author=st.sampled_from(["user", "guide"]))
    def append(self, data: st.DataObject, state: dict[str, Any], text: str | None, author: str) -> None:
        key = data.draw(st.sampled_from(sorted(self.held)))
        self.clock += 0.5
        event = text_event(text or "", author, timestamp=self.clock, actions=EventActions(state_delta=state))
        event.content = event.content if text is not None else None
        event.partial = data.draw(st.sampled_from([None, None, False, True]))
        sessions = self.held[key]
        answers = self.all("append_event", sessions, [event.model_copy(deep=True) for _ in range(3)])
        self.agreed(answers)
        self.agreed(sessions)

    @rule(
        app=apps,
        user=users,
        session_id=ids,
        last=st.none() | st.integers(0, 3),
        back=st.none() | st.integers(0, 4),
        hold=st.booleans(),
    )
    def get(self, app: str, user: str, session_id: str, last: int | None, back: int | None, hold: bool) -> None:
        config = GetSessionConfig(num_recent_events=last, after_timestamp=None if back is None else self.clock - back / 2)
        found = self.all("get_session", app_name=app, user_id=user, session_id=session_id, config=config)
        if self.agreed(found) is not None and hold:
            self.held[app, user, session_id.strip()] = found

    @rule(app=apps, user=users, session_id=ids)
    def delete(self, app: str, user: str, session_id: str) -> None:
        self.agreed(self.all("delete_session", app_name=app, user_id=user, session_id=session_id))
        self.held.pop((app, user, session_id.strip()), None)

    @rule(app=apps, user=st.none() | users)
    def list(self, app: str, user: str | None) -> None:
        answers = self.all("list_sessions", app_name=app, user_id=user)
        lists = [[shown(session) for session in answer.sessions] for answer in answers]
        assert lists[0] == lists[1] == lists[2]

    @rule(app=apps, user=users)
    def user_state(self, app: str, user: str) -> None:
        ours, *theirs = self.all("get_user_state", app_name=app, user_id=user)
        assert [ours] * 2 == theirs

    @rule()
    def restart(self) -> None:
        """A new program."""
        self.loop.run(self.services[0].close())
        self.services[0] = SessionStoreService(self.folder / "ours.db")

    @invariant()
    def nothing_is_damaged(self) -> None:
        assert self.services[0].store.status().schema_revision

    def teardown(self) -> None:
        if hasattr(self, "loop"):
            self.loop.run(self.services[0].close())
            self.loop.close()
            shutil.rmtree(self.folder)


def shown(answer: Session | Event) -> dict[str, Any]:
    """What is to be the same. Sessions are made at slightly different times."""
    told = answer.model_dump()
    if told.get("last_update_time", 2e9) < 2e9:
        del told["last_update_time"]
    return told


@pytest.mark.fault("F38")
def test_random_calls_are_answered_as_by_adks_own_services(trial: Trial) -> None:
    examples = trial.size(push=5, nightly=25, release=100)
    run_state_machine_as_test(AsAdk, settings=settings(max_examples=examples, stateful_step_count=25, deadline=None))
    trial.report(f"ADK's calls: {examples} x 25 steps, equal to its own services")


# -- events as messages


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=5,
)
ARGUMENTS = st.none() | st.dictionaries(st.text(max_size=4), JSON, max_size=3)
IDS = st.none() | st.sampled_from(["c1", "c2", "c3"])
PARTS = st.one_of(
    st.builds(
        lambda text, thought: types.Part(text=text, thought=thought), st.text(max_size=8), st.sampled_from([None, True, False])
    ),
    st.builds(lambda data: types.Part(inline_data=types.Blob(data=data, mime_type="image/png")), st.binary(max_size=8)),
    st.builds(lambda i, a: types.Part(function_call=types.FunctionCall(id=i, name="f", args=a)), IDS, ARGUMENTS),
    st.builds(lambda i, a: types.Part(function_response=types.FunctionResponse(id=i, name="f", response=a)), IDS, ARGUMENTS),
    st.builds(lambda s: types.Part(text="signed", thought_signature=s), st.binary(max_size=8)),
)
CONTENTS = st.builds(
    lambda role, parts: types.Content(role=role, parts=parts), st.sampled_from(["user", "model", None]), st.lists(PARTS, max_size=5)
)
TRANSCRIPTS = st.none() | st.builds(lambda text: types.Transcription(text=text, finished=True), st.none() | st.text(max_size=8))
EVENTS = st.builds(
    Event,
    author=st.sampled_from(["user", "guide", ""]),
    invocation_id=st.text(max_size=5),
    content=st.none() | CONTENTS,
    input_transcription=TRANSCRIPTS,
    output_transcription=TRANSCRIPTS,
    long_running_tool_ids=st.none() | st.just({"c1", "c2"}),
    custom_metadata=st.none() | st.just({"x": [1, None]}),
    timestamp=st.floats(0, 4e9) | st.sampled_from([-1.0, 1e30]),
    branch=st.none() | st.just("a.b"),
    error_code=st.none() | st.just("SAFETY"),
    output=st.none() | st.just({"done": None}),
)


@settings(max_examples=100, deadline=None)
@given(EVENTS)
def test_every_event_comes_back_from_its_messages(event: Event) -> None:
    first, *others = [json.loads(json.dumps(new.message)) for new in messages_of(as_json(event))]
    restored = Event.model_validate_json(json.dumps(event_of(copy.deepcopy(first), others)))
    assert restored == Event.model_validate_json(event.model_dump_json(by_alias=True, exclude_none=True))
    said = [part.text for part in (event.content.parts or ()) if part.text and not part.thought] if event.content else []
    if said:
        content = first["content"]
        shown = [content] if isinstance(content, str) else [part["text"] for part in content]
        assert [text for text in said if text not in shown] == []
        assert [part for part in first["event"]["content"]["parts"] if part.get("text") and not part.get("thought")] == []


@pytest.mark.fault("F38")
@pytest.mark.parametrize("compressed", [False, True])
def test_events_come_back_through_a_store_also_compressed(store: SessionStore, compressed: bool, trial: Trial) -> None:
    service = SessionStoreService(store)

    @settings(max_examples=trial.size(push=10, nightly=50, release=200), deadline=None)
    @given(st.lists(EVENTS, min_size=1, max_size=6), st.integers(1, 6))
    def come_back(events: list[Event], last: int) -> None:
        asyncio.run(there_and_back(service, events, last, compressed=compressed))

    come_back()


async def there_and_back(service: SessionStoreService, events: list[Event], last: int, *, compressed: bool) -> None:
    """Events come back from a session, and so do the newest of them."""
    session = await service.create_session(app_name=APP, user_id=USER)
    kept = []
    for event in events:
        try:
            await service.append_event(session, event)
        except InvalidInputError as error:
            assert "64 bits" in error.reason  # noqa: PT017 - of arguments whose call has no id
        else:
            kept.append(Event.model_validate_json(event.model_dump_json(by_alias=True, exclude_none=True)))
    if compressed:
        service.store.archive(stored_id(APP, USER, session.id))
    for config, wanted in ((None, kept), (GetSessionConfig(num_recent_events=last), kept[-last:])):
        found = await service.get_session(app_name=APP, user_id=USER, session_id=session.id, config=config)
        assert found is not None
        assert found.events == wanted


async def test_large_and_binary_events_come_back_after_a_restart(tmp_path: Path) -> None:
    picture = bytes(range(256)) * 1_000
    parts = [types.Part(text="x" * 200_000), types.Part(inline_data=types.Blob(data=picture, mime_type="image/png"))]
    event = Event(author="user", invocation_id="i", content=types.Content(role="user", parts=parts))
    result = answering("a")
    result.content.parts[0].function_response.response = {"rows": list(range(150_000))}  # type: ignore[union-attr,index]
    async with SessionStoreService(tmp_path / "agent.db") as service:
        session = await service.create_session(**ADDRESSED)
        await service.append_event(session, event)
        await service.append_event(session, result)
    async with SessionStoreService(tmp_path / "agent.db") as again:
        found = await again.get_session(**ADDRESSED)
    assert found is not None
    assert found.events == [event, result]


# -- what the store makes of it


async def test_messages_have_roles_words_calls_tokens_and_times(service: SessionStoreService) -> None:
    session = await service.create_session(**ADDRESSED)
    usage = types.GenerateContentResponseUsageMetadata(
        prompt_token_count=10,
        tool_use_prompt_token_count=1,
        candidates_token_count=5,
        thoughts_token_count=2,
        cached_content_token_count=4,
    )
    thinking = types.Content(
        role="model", parts=[types.Part(text="hmm", thought=True), types.Part(text="In Rome"), types.Part(text="it rains")]
    )
    answer = Event(
        author="guide",
        content=thinking,
        usage_metadata=usage,
        model_version="gemini",
        finish_reason=types.FinishReason.STOP,
        timestamp=103.5,
    )
    for event in (text_event("Weather?", timestamp=100.0), calling("a", "b"), answering("a"), answer, changing(n=1)):
        await service.append_event(session, event)
    asked, called, answered, said, changed = service.store.messages(STORED)
    assert [message.role for message in (asked, called, answered, said, changed)] == [
        "user",
        "assistant",
        "tool",
        "assistant",
        None,
    ]
    assert [message.text for message in (asked, called, answered, said, changed)] == [
        "Weather?", None, '{"ok":"a"}', "In Rome\nit rains", None
    ]  # fmt: skip
    assert called.tool_call_ids == ("a", "b")
    assert answered.tool_call_id == "a"
    assert said.figures() == {
        "model": "gemini", "finish_reason": "STOP", "input_tokens": 11, "output_tokens": 7, "cache_read_tokens": 4,
        "reasoning_tokens": 2, "elapsed_ms": 3500.0,
    }  # fmt: skip
    assert asked.created_at == datetime.fromtimestamp(100, UTC)
    (open_call,) = service.store.open_tool_calls(STORED)
    assert (open_call.call_id, open_call.name, open_call.arguments) == ("b", "weather", '{"city":"b"}')
    assert [hit.session_id for hit in service.store.search("rains", user_id=USER, agent_id=APP, role="assistant")] == [STORED]
    assert list(service.store.search("hmm")) == []
    assert [info.session_id for info in service.store.list(user_id=USER)] == [STORED]
    assert service.store.tokens(agent_id=APP)["overall"]["input_tokens"] == 11
    (row,) = service.store.query("SELECT count(*) FROM messages WHERE json_extract(extra, '$.event.author') = 'guide'").rows
    assert row == (4,)


async def test_the_scopes_of_state_are_those_of_the_store(service: SessionStoreService) -> None:
    session = await service.create_session(**ADDRESSED, state={"n": 1, "user:lang": "it", "app:x": 1})
    assert service.store.state(STORED, scope="session") == {"n": 1}
    assert service.store.state(STORED, scope="user") == {"trips:lang": "it"}
    assert service.store.state(STORED, scope="app") == {"x": 1}
    service.store.set_state(STORED, {"x": 2}, scope="app")
    assert session.state["app:x"] == 1
    assert (await service.get_session(**ADDRESSED)).state["app:x"] == 2  # type: ignore[union-attr]


async def test_a_failed_turn_is_a_figure_and_its_session_goes_on(service: SessionStoreService) -> None:
    session = await service.create_session(**ADDRESSED)
    await service.append_event(session, text_event("Hi", timestamp=100.0))
    failed = Event(author="guide", error_code="SAFETY", error_message="secret words", timestamp=101.5)
    lost = copy.deepcopy(session)
    await service.append_event(session, failed)
    await service.append_event(lost, failed)
    assert figures(service) == [("turn.failed", 1500.0, "ms", APP, STORED, '{"error":"SAFETY"}')]
    assert service.store.get(STORED).status == "open"  # type: ignore[union-attr]
    assert service.store.failures(agent_id=APP)["sessions"] == []
    assert [each.error_message for each in (await service.get_session(**ADDRESSED)).events] == [None, "secret words"]  # type: ignore[union-attr]
    service.store.end(STORED, "failed", error="the user says so")
    await service.append_event(session, text_event("And now?", "guide"))
    assert service.store.get(STORED).error == "the user says so"  # type: ignore[union-attr]


async def test_a_failed_turn_that_is_refused_is_no_figure(service: SessionStoreService, dump: Dump) -> None:
    session = await service.create_session(**ADDRESSED)
    stale = copy.deepcopy(session)
    await service.append_event(session, text_event("Hi"))
    before = dump()
    with pytest.raises(StaleSessionError):
        await service.append_event(stale, Event(author="guide", error_code="SAFETY"))
    failed = Event(author="guide", error_code="SAFETY", actions=EventActions(state_delta={"": 1}))
    with pytest.raises(InvalidInputError):
        await service.append_event(session, failed)
    assert dump() == before
    assert figures(service) == []


def figures(service: SessionStoreService) -> list[tuple[Any, ...]]:
    """The figures in the store, with what is known of them."""
    rows = service.store.query("SELECT name, value, unit, agent_id, session_id, attributes FROM metric_events ORDER BY id").rows
    return [tuple(row) for row in rows]


async def test_sessions_expire_as_the_store_says(store_path: Path, frozen: FrozenClock) -> None:
    with sessionstore.open(store_path, ttl=60) as store:
        service = SessionStoreService(store)
        session = await service.create_session(**ADDRESSED, state={"n": 1, "user:lang": "it"})
        frozen.go(40)
        await service.append_event(session, text_event("Hi", error_code="SAFETY"))
        frozen.go(40)
        assert texts_of(await service.get_session(**ADDRESSED)) == ["Hi"]
        frozen.go(40)
        assert await service.get_session(**ADDRESSED) is None
        assert (await service.list_sessions(app_name=APP)).sessions == []
        with pytest.raises(SessionNotFoundError):
            await service.append_event(session, text_event("too late"))
        again = await service.create_session(**ADDRESSED)
        assert again.state == {"user:lang": "it"}


async def test_erasing_a_user_takes_sessions_events_and_state_of_all_applications(store: SessionStore) -> None:
    service = SessionStoreService(store)
    for user in (USER, "bob"):
        session = await service.create_session(app_name=APP, user_id=user, session_id="1", state={"user:word": f"lang-{user}"})
        await service.append_event(session, text_event(f"secret-{user}", actions=EventActions(state_delta={"k": f"value-{user}"})))
    path = Path(store.status().path or "")
    store.erase(user_id=USER)
    assert await service.get_user_state(app_name=APP, user_id=USER) == {}
    assert await service.get_user_state(app_name=APP, user_id="bob") == {"word": "lang-bob"}
    store.close()
    left = b"".join(each.read_bytes() for each in path.parent.glob(path.name + "*"))
    assert b"secret-bob" in left
    assert [word for word in (b"secret-alice", b"value-alice", b"lang-alice") if word in left] == []


async def test_usage_is_told_to_the_remote(store: SessionStore) -> None:
    store.set_remote("http://127.0.0.1:9")
    service = SessionStoreService(store)
    session = await service.create_session(**ADDRESSED)
    usage = types.GenerateContentResponseUsageMetadata(prompt_token_count=3)
    answer = text_event("secret words", "guide")
    answer.usage_metadata = usage
    await service.append_event(session, answer)
    waiting = list(store.outbox.list())
    assert [event.kind for event in waiting] == ["conversation_start", "metric"]
    assert store.outbox.stats().pending == 2
    told = str(store.query("SELECT * FROM outbox").rows)
    assert '"input_tokens":3' in told.replace(" ", "")
    assert "secret words" not in told


async def test_a_fork_of_a_session_is_a_session_of_adks(service: SessionStoreService) -> None:
    session = await service.create_session(**ADDRESSED, state={"n": 1})
    await service.append_event(session, text_event("one"))
    service.store.fork(STORED, stored_id(APP, USER, "branch"))
    branch = await service.get_session(app_name=APP, user_id=USER, session_id="branch")
    assert texts_of(branch) == ["one"]
    assert branch is not None
    assert branch.state == {"n": 1}
    await service.append_event(branch, text_event("two"))
    assert texts_of(await service.get_session(**ADDRESSED)) == ["one"]
    assert {each.id for each in (await service.list_sessions(app_name=APP)).sessions} == {SESSION, "branch"}


async def test_messages_of_others_become_events(service: SessionStoreService) -> None:
    session = await service.create_session(**ADDRESSED)
    await service.append_event(session, calling("a", "b"))
    await service.append_event(session, answering("b"))
    service.store.repair(STORED)
    service.store.append(STORED, "user", "by hand")
    service.store.append(STORED, {"role": "assistant", "content": "answered"})
    service.store.append(STORED, {"role": "tool", "tool_call_id": "nobody's", "content": "lost"})
    service.store.append(STORED, {"any": "thing"}, kind="note")
    found = await service.get_session(**ADDRESSED)
    assert found is not None
    _, _, repaired, asked, answered = found.events
    (response,) = repaired.get_function_responses()
    assert (response.id, response.name) == ("a", "weather")
    assert "interrupted" in str(response.response)
    assert (repaired.author, repaired.invocation_id) == ("guide", "i")
    assert [(each.author, each.content.role, each.content.parts[0].text) for each in (asked, answered)] == [  # type: ignore[union-attr,index]
        ("user", "user", "by hand"), (APP, "model", "answered")
    ]  # fmt: skip
    await service.append_event(found, text_event("and on"))


async def test_a_message_that_was_replaced_comes_as_what_it_is_now(service: SessionStoreService) -> None:
    session = await service.create_session(**ADDRESSED)
    both = calling("a", "b")
    both.content.parts.insert(0, types.Part(text="I look"))  # type: ignore[union-attr]
    for event in (text_event("secret"), both, answering("a", "b"), text_event("Done", "guide")):
        await service.append_event(session, event)

    def replace(seq: int, **changed: Any) -> None:
        old = service.store.messages(STORED)[seq - 1]
        # Other programs, and other formats, give the keys of a dict in another order.
        message = dict(sorted({**old.to_dict(), **changed}.items(), reverse=seq % 2 == 0))
        service.store.replace_range(STORED, seq, seq, [NewMessage(message, kind=old.kind)])

    replace(1, content="[redacted]")
    replace(2, content=None, note=1)
    replace(2, content="I looked", event=both_as_stored(service))
    replace(3, content="[redacted]")
    replace(4, content='["a list"]')
    replace(5, note="of another program")
    found = await service.get_session(**ADDRESSED)
    assert texts_of(found) == ["[redacted]", "I looked", "", "Done"]
    assert found is not None
    assert found.events[1].get_function_calls() == both.get_function_calls()
    assert [each.response for each in found.events[2].get_function_responses()] == [
        {"result": "[redacted]"}, {"result": ["a list"]}
    ]  # fmt: skip


def both_as_stored(service: SessionStoreService) -> dict[str, Any]:
    """The event of the second message, as it stands there."""
    event: dict[str, Any] = service.store.messages(STORED)[1].to_dict()["event"]
    return event


async def test_a_message_of_our_kind_without_an_event_is_one_of_others(service: SessionStoreService) -> None:
    session = await service.create_session(**ADDRESSED)
    await service.append_event(session, text_event("secret"))
    service.store.replace_range(STORED, 1, 1, [NewMessage({"role": "user", "content": "a summary"}, kind="adk.event")])
    assert texts_of(await service.get_session(**ADDRESSED)) == ["a summary"]


async def test_a_session_of_another_user_is_not_ones_own_whatever_its_id(service: SessionStoreService) -> None:
    session = await service.create_session(**ADDRESSED, state={"user:secret": 1})
    await service.append_event(session, text_event("secret"))
    for user in ("bob", "carol"):
        attributes: Any = {"user_id": user} if user == "carol" else {}
        service.store.fork(STORED, stored_id(APP, user, "s2"), **attributes)
    carols = await service.get_session(app_name=APP, user_id="carol", session_id="s2")
    assert carols is not None
    assert carols.state == {}
    assert await service.get_session(app_name=APP, user_id="bob", session_id="s2") is None
    with pytest.raises(SessionNotFoundError):
        await service.append_event(Session(id="s2", app_name=APP, user_id="bob"), text_event("Hi"))
    await service.delete_session(app_name=APP, user_id="bob", session_id="s2")
    assert service.store.get(stored_id(APP, "bob", "s2")) is not None
    service.store.session(stored_id(APP, "dave", "by hand"))
    assert await service.get_session(app_name=APP, user_id="dave", session_id="by hand") is None
    assert {(each.user_id, each.id) for each in (await service.list_sessions(app_name=APP)).sessions} == {
        (USER, SESSION), ("carol", "s2")
    }  # fmt: skip


# -- concurrency


async def test_eight_tasks_on_one_session_lose_nothing_and_keep_their_order(service: SessionStoreService) -> None:
    session = await service.create_session(**ADDRESSED, state={"n": 0})

    async def run(task: int) -> None:
        for number in range(10):
            await service.append_event(
                session, text_event(f"{task}-{number}", actions=EventActions(state_delta={f"t{task}": number}))
            )

    async with asyncio.TaskGroup() as group:
        for task in range(8):
            group.create_task(run(task))
    found = await service.get_session(**ADDRESSED)
    assert found is not None
    assert found.events == session.events
    texts = texts_of(found)
    assert sorted(texts) == sorted(f"{task}-{number}" for task in range(8) for number in range(10))
    for task in range(8):
        assert [text for text in texts if text.startswith(f"{task}-")] == [f"{task}-{number}" for number in range(10)]
    assert found.state == {"n": 0, **{f"t{task}": 9 for task in range(8)}}


async def test_tasks_with_sessions_of_their_own_lose_nothing_when_they_load_again(service: SessionStoreService) -> None:
    await service.create_session(**ADDRESSED)

    async def run(task: int) -> None:
        while True:
            session = await service.get_session(**ADDRESSED)
            assert session is not None
            try:
                await service.append_event(session, text_event(str(task)))
            except StaleSessionError:
                continue
            return

    async with asyncio.TaskGroup() as group:
        for task in range(8):
            group.create_task(run(task))
    assert sorted(texts_of(await service.get_session(**ADDRESSED))) == [str(task) for task in range(8)]


async def test_a_cancelled_append_can_be_repeated(service: SessionStoreService) -> None:
    session = await service.create_session(**ADDRESSED)
    for number in range(20):
        event = text_event(str(number))
        task = asyncio.create_task(service.append_event(session, event))
        for _ in range(number % 5):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        await service.append_event(session, event)
    assert texts_of(await service.get_session(**ADDRESSED)) == [str(number) for number in range(20)] == texts_of(session)


# -- real runs


async def test_a_runner_goes_on_where_another_program_ended_or_was_killed(tmp_path: Path) -> None:
    path = tmp_path / "agent.db"
    async with SessionStoreService(path) as service:
        events = await ask(runner(service), "weather in Rome and Oslo", state={"user:lang": "it", "n": 1, "temp:t": 1})
        assert [len(event.get_function_responses()) for event in events] == [0, 2, 0]
    # One program, as to import ADK takes seconds: it answers, and is killed within a tool.
    questions = ["what did I ask?", f"weather in {KILL}"]
    killed = await anyio.run_process([sys.executable, "-W", "error", PROGRAM, str(path), *questions], check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    assert killed.stdout.decode() == "I was sent 3 texts\n"
    texts = ["weather in Rome and Oslo", "I was sent 1 texts", "what did I ask?", "I was sent 3 texts", f"weather in {KILL}"]
    async with SessionStoreService(path) as service:
        found = await service.get_session(**ADDRESSED)
        assert found is not None
        assert [text for text in texts_of(found) if text] == texts
        assert len(found.events[-1].get_function_calls()) == 1
        assert found.state == {"n": 1, "user:lang": "it", "answer": "I was sent 3 texts"}
        assert [call.name for call in service.store.open_tool_calls(STORED)] == ["weather"]
        service.store.repair(STORED)
        model = ScriptedLlm(requests=[])
        await ask(runner(service, model), "are you there?")
        assert model.requests == [[*texts, "are you there?"]]
        assert service.store.check(STORED).ok
        assert service.store.doctor().ok
        # Five answers of the model, two of which are calls.
        assert service.store.tokens(agent_id=APP)["overall"]["output_tokens"] == 5 * 9


def test_a_service_is_used_from_several_event_loops(service: SessionStoreService) -> None:
    """The runner's call for programs without a loop runs each turn in a thread with a loop of its own."""
    running = runner(service)
    for text in ("one", "two"):
        message = types.Content(role="user", parts=[types.Part(text=text)])
        assert len(list(running.run(user_id=USER, session_id=SESSION, new_message=message))) == 1
    found = asyncio.run(service.get_session(**ADDRESSED))
    assert texts_of(found) == ["one", "I was sent 1 texts", "two", "I was sent 3 texts"]


async def test_without_adk_the_extra_is_named() -> None:
    script = "import sys; sys.modules['google.adk'] = None; import sessionstore.adapters.google_adk"
    done = await anyio.run_process([sys.executable, "-c", script], check=False)
    assert 'MissingExtraError: the session service for Google ADK needs the extra "google-adk"' in done.stderr.decode()


LIGHT = """
import asyncio, sys
from google.adk.events.event import Event
from sessionstore.adapters.google_adk import SessionStoreService

async def main():
    async with SessionStoreService(sys.argv[1]) as service:
        session = await service.create_session(app_name="app", user_id="alice", state={"n": 1, "user:n": 2, "app:n": 3})
        await service.append_event(session, Event(author="user"))
        named = {"app_name": "app", "user_id": "alice"}
        assert len((await service.get_session(**named, session_id=session.id)).events) == 1
        assert len((await service.list_sessions(**named)).sessions) == 1

asyncio.run(main())
print(*sorted({"sessionstore.models", "sqlmodel"} & set(sys.modules)))
"""


async def test_the_service_does_not_load_the_models_of_the_tables(tmp_path: Path) -> None:
    """They would double the time in which a program that has ADK loaded starts to use it."""
    path = tmp_path / "a.db"
    sessionstore.open(path).close()
    done = await anyio.run_process([sys.executable, "-c", LIGHT, str(path)], check=False)
    assert (done.returncode, done.stdout) == (0, b"\n"), done.stderr.decode()


async def test_a_streamed_turn_stores_the_whole_answer_only(service: SessionStoreService) -> None:
    events = await ask(runner(service), "Hi", stream=True)
    assert [bool(event.partial) for event in events] == [True] * 5 + [False]
    assert texts_of(await service.get_session(**ADDRESSED)) == ["Hi", "I was sent 1 texts"]


async def test_a_failing_model_leaves_a_session_that_goes_on(service: SessionStoreService) -> None:
    running = runner(service)
    await ask(running, "fail")
    assert [(name, attributes) for name, *_, attributes in figures(service)] == [("turn.failed", '{"error":"SAFETY"}')]
    assert service.store.get(STORED).status == "open"  # type: ignore[union-attr]
    assert texts_of(await service.get_session(**ADDRESSED)) == ["fail", ""]
    assert (await ask(running, "Hi"))[-1].error_code is None


async def test_a_session_is_rewound(service: SessionStoreService) -> None:
    model = ScriptedLlm(requests=[])
    running = runner(service, model)
    await ask(running, "one", state={"n": 1})
    events = await ask(running, "two", state={"n": 2, "m": 1})
    await running.rewind_async(user_id=USER, session_id=SESSION, rewind_before_invocation_id=events[0].invocation_id)
    await ask(running, "three")
    assert model.requests[-1] == ["one", "I was sent 1 texts", "three"]
    found = await service.get_session(**ADDRESSED)
    assert found is not None
    assert found.state == {"n": 1, "m": None, "answer": "I was sent 3 texts"}


async def test_a_runner_without_a_session_says_so_as_with_adks_own(service: SessionStoreService) -> None:
    running = runner(service)
    running.auto_create_session = False
    with pytest.raises(SessionNotFoundError):
        await ask(running, "Hi")
