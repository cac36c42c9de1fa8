"""The contract of memory backends: one class of promises that every backend keeps, sync and async, on real servers."""

from __future__ import annotations

import copy
import math
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

import anyio.from_thread
import memory_servers
import mongo_wire
import pytest

import sessionstore
from sessionstore import AsyncMemoryBackend, ConflictError, InvalidInputError, MemoryBackend, SessionStore
from sessionstore.memory.protocol import is_async

pytestmark = [
    # moto's own server and libraries.
    pytest.mark.filterwarnings("ignore::DeprecationWarning:(moto|botocore|werkzeug|responses|xmltodict).*"),
]

Conversation = list[dict[str, Any]]

FUNCTION = {"name": "get_weather", "arguments": '{"city": "Hanoi"}'}
CONVERSATION: Conversation = [
    {"role": "system", "content": "Be short."},
    {"role": "user", "content": "How is the weather in Hà Nội? <b>&\u2028\x00😀"},
    {"role": "assistant", "content": None, "tool_calls": [{"id": "c1", "type": "function", "function": FUNCTION}]},
    {"role": "tool", "tool_call_id": "c1", "content": ""},
    {"role": "assistant", "content": "Fine.", "name": "bot", "refusal": None, "tool_calls": []},
    {"role": "user", "content": [{"type": "text", "text": "And this?"}, {"type": "image_url", "image_url": {"url": "data:,x"}}]},
    {"type": "function_call", "call_id": "c2", "name": "f", "arguments": "{}"},
    {"type": "reasoning", "summary": [], "deep": {"list": [[1, [2.5, {"": None}]]]}},
    {"role": "critic", "content": "a role of its own"},
    {"Role": "user", "sessionstore": {"message": {}}, "ToolCalls": 1},
    {"$set": {"a.b": 1, "%24": "$", "nul\x00": True}, "_id": {"$ne": ""}},
    {"numbers": [0, -1, 2**31, 2**63 - 1, -(2**63), 0.1, -0.0, 1e300, 1.0, True, False, None]},
    {},
]
ODD_IDS = [
    "a", "A", "user-alice", "a/b", "a\\b", "..", ".", "../../etc/passwd", ".hidden", "end.", "*", "a*", "[a-z]", "a?", "a:b", "a:",
    ":", "%", "%41", "50%25", "con", "NUL.json", "x.json", "x~0123456789abcdef", "{}", "$where", "a b", "'; DROP", '"', "<&>", "#1",
    "語", "é", "ß", "SS", "ss", "\u0131", "I", "i", "x" * 256, "X" * 256, "x" * 255 + "y", "語" * 256, "😀" * 256,
]  # fmt: skip
REFUSED_IDS = ["", " a", "a ", "a\nb", "a\x00", "\ud800", "e\u0301", "x" * 257, None, 5, b"a", ["a"], {"$ne": None}, {"a": 1}]
TOO_DEEP: dict[str, Any] = {"role": "user"}
for _ in range(70):
    TOO_DEEP = {"role": "user", "x": TOO_DEEP}
REFUSED_MESSAGES = [
    "text", None, 5, {"role": "user"}, [1], [None], ["text"], [{"role": "user", "content": {1, 2}}], [{"x": math.nan}],
    [{"x": b"bytes"}], [{"x": (1, 2)}], [{1: "x"}], [{"x": 2**63}], [{"x": "\ud800"}], [TOO_DEEP],
    [{"role": "user", "content": object()}],
]  # fmt: skip


class InThreads:
    """An asynchronous backend, called from any thread: its event loop runs in a thread of its own."""

    def __init__(self, portal: anyio.from_thread.BlockingPortal, backend: AsyncMemoryBackend) -> None:
        self.awaited = backend
        self._call = portal.call

    def save(self, session_id: str, messages: Conversation) -> None:
        self._call(self.awaited.save, session_id, messages)

    def load(self, session_id: str) -> Conversation | None:
        return self._call(self.awaited.load, session_id)

    def delete(self, session_id: str) -> None:
        self._call(self.awaited.delete, session_id)

    def list(self) -> list[str]:
        return self._call(self.awaited.list)


class Subject(NamedTuple):
    """A backend that is asked, one of the same kind that has another place (a namespace, a prefix), and whether saves replace."""

    backend: Any
    beside: Any
    replaces: bool = True


Made = Callable[[str], Any]


@contextmanager
def awaited(loop: str, make: Callable[[], Any]) -> Iterator[InThreads]:
    """An asynchronous backend in a loop of its own, closed in it."""
    with anyio.from_thread.start_blocking_portal(loop) as portal:
        backend = portal.call(in_loop, make)
        try:
            yield InThreads(portal, backend)
        finally:
            if hasattr(backend, "close"):
                portal.call(backend.close)


async def in_loop(make: Callable[[], Any]) -> Any:
    return make()


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with memory_servers.redis_server(tmp_path_factory.mktemp("redis")) as url:
        yield url


@pytest.fixture(scope="session")
def s3() -> Iterator[dict[str, Any]]:
    with memory_servers.s3_server() as config:
        yield config


def files(request: pytest.FixtureRequest, stack: ExitStack, place: str) -> Any:
    return sessionstore.FileBackend(request.getfixturevalue("tmp_path") / place)


def in_store(request: pytest.FixtureRequest, stack: ExitStack, place: str) -> Any:
    return request.getfixturevalue("store").in_namespace(place).as_memory_backend()


def in_store_awaited(loop: str) -> Callable[..., Any]:
    def make(request: pytest.FixtureRequest, stack: ExitStack, place: str) -> Any:
        store = sessionstore.AsyncSessionStore(request.getfixturevalue("store")).in_namespace(place)
        return stack.enter_context(awaited(loop, store.as_memory_backend))

    return make


def redis(request: pytest.FixtureRequest, stack: ExitStack, place: str) -> Any:
    from sessionstore.memory.redis import RedisBackend

    return stack.enter_context(RedisBackend(request.getfixturevalue("redis_url"), prefix=f"{request.node.name}:{place}"[-256:]))


def redis_awaited(request: pytest.FixtureRequest, stack: ExitStack, place: str) -> Any:
    from sessionstore.memory.redis import AsyncRedisBackend

    url, prefix = request.getfixturevalue("redis_url"), f"{request.node.name}:{place}"[-256:]
    return stack.enter_context(awaited("asyncio", lambda: AsyncRedisBackend(url, prefix=prefix)))


def objects_in_memory(request: pytest.FixtureRequest, stack: ExitStack, place: str) -> Any:
    from sessionstore.memory.objects import ObjectBackend

    return ObjectBackend("memory:///")


def objects_in_folder(request: pytest.FixtureRequest, stack: ExitStack, place: str) -> Any:
    from sessionstore.memory.objects import ObjectBackend

    folder = request.getfixturevalue("tmp_path") / place
    folder.mkdir()
    return ObjectBackend(folder.as_uri())


def s3_place(request: pytest.FixtureRequest, place: str) -> tuple[str, dict[str, Any]]:
    config = request.getfixturevalue("s3")
    return f"s3://{memory_servers.BUCKET}/{uuid4().hex}/{place}", {"config": config, "client_options": {"allow_http": True}}


def objects_in_s3(request: pytest.FixtureRequest, stack: ExitStack, place: str) -> Any:
    from sessionstore.memory.objects import ObjectBackend

    url, options = s3_place(request, place)
    return ObjectBackend(url, **options)


def objects_in_s3_awaited(request: pytest.FixtureRequest, stack: ExitStack, place: str) -> Any:
    from sessionstore.memory.objects import AsyncObjectBackend

    url, options = s3_place(request, place)
    return stack.enter_context(awaited("asyncio", lambda: AsyncObjectBackend(url, **options)))


@pytest.fixture(scope="session")
def mongo_url() -> Iterator[str]:
    with mongo_wire.mongo_wire() as server:
        yield server.url


def mongo_by_wire(request: pytest.FixtureRequest, stack: ExitStack, place: str) -> Any:
    """The driver, and a server that only speaks as MongoDB does."""
    from sessionstore.memory.mongo import MongoBackend

    return stack.enter_context(MongoBackend(request.getfixturevalue("mongo_url"), collection=uuid4().hex))


def mongo_by_wire_awaited(request: pytest.FixtureRequest, stack: ExitStack, place: str) -> Any:
    from sessionstore.memory.mongo import AsyncMongoBackend

    url, collection = request.getfixturevalue("mongo_url"), uuid4().hex
    return stack.enter_context(awaited("asyncio", lambda: AsyncMongoBackend(url, collection=collection)))


def mongo(request: pytest.FixtureRequest, stack: ExitStack, place: str) -> Any:
    from sessionstore.memory.mongo import MongoBackend

    return stack.enter_context(MongoBackend(memory_servers.mongodb_url(), database="sessionstore_test", collection=uuid4().hex))


def mongo_awaited(request: pytest.FixtureRequest, stack: ExitStack, place: str) -> Any:
    from sessionstore.memory.mongo import AsyncMongoBackend

    url, collection = memory_servers.mongodb_url(), uuid4().hex
    make = lambda: AsyncMongoBackend(url, database="sessionstore_test", collection=collection)  # noqa: E731
    return stack.enter_context(awaited("asyncio", make))


KINDS: dict[str, Callable[..., Any]] = {
    "store": in_store,
    "store-asyncio": in_store_awaited("asyncio"),
    "store-trio": in_store_awaited("trio"),
    "files": files,
    "redis": redis,
    "redis-async": redis_awaited,
    "objects-memory": objects_in_memory,
    "objects-folder": objects_in_folder,
    "objects-s3": objects_in_s3,
    "objects-s3-async": objects_in_s3_awaited,
    "mongodb-wire": mongo_by_wire,
    "mongodb-wire-async": mongo_by_wire_awaited,
    "mongodb": mongo,
    "mongodb-async": mongo_awaited,
}


@pytest.fixture(params=KINDS)
def subject(request: pytest.FixtureRequest) -> Iterator[Subject]:
    """Each backend in turn."""
    make = KINDS[request.param]
    with ExitStack() as stack:
        backend, beside = make(request, stack, "one"), make(request, stack, "two")
        yield Subject(backend, beside, replaces=not request.param.startswith("store"))


@pytest.fixture
def backend(subject: Subject) -> Any:
    return subject.backend


class TestMemoryBackend:
    """What every backend promises."""

    def test_it_is_a_backend_and_says_whether_it_is_awaited(self, backend: Any) -> None:
        asked = getattr(backend, "awaited", backend)
        assert isinstance(asked, MemoryBackend)
        assert is_async(asked) == (asked is not backend)

    def test_a_conversation_that_was_never_saved_is_none(self, backend: Any) -> None:
        assert backend.load("nobody") is None
        assert backend.list() == []

    def test_a_conversation_comes_back_equal_value_for_value(self, backend: Any) -> None:
        backend.save("s", CONVERSATION)
        loaded = backend.load("s")
        assert loaded == CONVERSATION
        assert typed(loaded) == typed(CONVERSATION)

    def test_a_conversation_without_messages_is_not_none(self, backend: Any) -> None:
        backend.save("s", [])
        assert backend.load("s") == []
        assert backend.list() == ["s"]

    def test_a_conversation_grows(self, backend: Any) -> None:
        for count in range(len(CONVERSATION) + 1):
            backend.save("s", CONVERSATION[:count])
            assert backend.load("s") == CONVERSATION[:count]
        backend.save("s", CONVERSATION)
        assert backend.load("s") == CONVERSATION

    def test_what_was_loaded_can_be_saved_with_more(self, backend: Any) -> None:
        backend.save("s", CONVERSATION)
        more = [*backend.load("s"), {"role": "user", "content": "more"}]
        backend.save("s", more)
        assert backend.load("s") == more

    def test_another_conversation_takes_the_place_or_is_a_conflict(self, subject: Subject) -> None:
        backend, other = subject.backend, [{"role": "user", "content": "other"}]
        backend.save("s", CONVERSATION)
        if subject.replaces:
            backend.save("s", other)
            assert backend.load("s") == other
            return
        for changed in (other, CONVERSATION[1:], CONVERSATION[:-1], [], [{**CONVERSATION[0], "x": 1}, *CONVERSATION[1:]]):
            with pytest.raises(ConflictError, match="load it and append to what it has, or delete it first") as caught:
                backend.save("s", changed)
            assert caught.value.session_id == "s"
            assert backend.load("s") == CONVERSATION
        backend.delete("s")
        backend.save("s", other)
        assert backend.load("s") == other

    def test_a_thousand_messages_are_nothing_special(self, backend: Any) -> None:
        many = [{"role": "user" if number % 2 else "assistant", "content": f"message {number} " * 10} for number in range(1_000)]
        backend.save("s", many)
        assert backend.load("s") == many
        backend.save("s", [*many, *CONVERSATION])
        assert backend.load("s") == [*many, *CONVERSATION]

    def test_large_messages_are_nothing_special(self, backend: Any) -> None:
        large = [{"role": "user", "content": "ä" * 300_000}, {"role": "user", "content": [{"type": "text", "text": "x" * 70_000}]}]
        backend.save("s", large)
        backend.save("s", [*large, *large])
        assert backend.load("s") == [*large, *large]

    def test_delete_forgets_and_may_be_repeated(self, backend: Any) -> None:
        backend.save("s", CONVERSATION)
        backend.save("t", CONVERSATION)
        for _ in range(2):
            backend.delete("s")
            assert backend.load("s") is None
            assert backend.list() == ["t"]
        assert backend.load("t") == CONVERSATION

    def test_ids_are_data_and_never_touch_each_other(self, backend: Any) -> None:
        for session_id in ODD_IDS:
            backend.save(session_id, [{"role": "user", "content": session_id}])
        assert backend.list() == sorted(ODD_IDS)
        for session_id in ODD_IDS:
            assert backend.load(session_id) == [{"role": "user", "content": session_id}]
        for position, session_id in enumerate(ODD_IDS, start=1):
            backend.delete(session_id)
            assert backend.load(session_id) is None
            assert backend.list() == sorted(ODD_IDS[position:])

    def test_a_refused_id_writes_nothing(self, backend: Any) -> None:
        for session_id in REFUSED_IDS:
            for call in (lambda given: backend.save(given, CONVERSATION), backend.load, backend.delete):
                with pytest.raises(InvalidInputError) as caught:
                    call(session_id)
                assert caught.value.field == "session_id"
        assert backend.list() == []

    def test_a_refused_message_writes_nothing(self, backend: Any) -> None:
        backend.save("s", CONVERSATION)
        for messages in REFUSED_MESSAGES:
            given = [*CONVERSATION, *messages] if isinstance(messages, list) else messages
            for session_id in ("s", "new"):
                with pytest.raises(InvalidInputError) as caught:
                    backend.save(session_id, given)
                assert caught.value.field.startswith("messages")
        assert backend.load("s") == CONVERSATION
        assert backend.list() == ["s"]

    def test_what_was_loaded_is_the_callers_own(self, backend: Any) -> None:
        given = copy.deepcopy(CONVERSATION)
        backend.save("s", given)
        given[0]["content"] = "changed"
        backend.load("s")[1]["content"] = "changed"
        assert backend.load("s") == CONVERSATION

    def test_saves_at_once_leave_one_whole_conversation_each(self, subject: Subject) -> None:
        backend = subject.backend

        def conversation(number: int) -> Conversation:
            return [{"role": "user", "content": f"{number} " * 1_000}] * (number + 1)

        refused: list[BaseException] = []

        def work(number: int) -> None:
            for _ in range(3):
                backend.save(f"own-{number}", conversation(number))
                try:
                    backend.save("shared", conversation(number))
                except ConflictError as error:
                    refused.append(error)
                assert backend.load("shared") in [conversation(each) for each in range(6)]

        failed = in_threads(work, 6)
        assert failed == []
        assert bool(refused) != subject.replaces
        assert backend.list() == [*(f"own-{number}" for number in range(6)), "shared"]
        for number in range(6):
            assert backend.load(f"own-{number}") == conversation(number)
        assert backend.load("shared") in [conversation(each) for each in range(6)]

    def test_equal_ids_in_two_places_never_see_each_other(self, subject: Subject) -> None:
        subject.backend.save("s", CONVERSATION)
        assert subject.beside.load("s") is None
        assert subject.beside.list() == []
        subject.beside.delete("s")
        subject.beside.save("s", CONVERSATION[:1])
        assert subject.backend.load("s") == CONVERSATION
        subject.beside.delete("s")
        assert subject.backend.load("s") == CONVERSATION

    def test_conversations_move_to_the_store_and_back(self, backend: Any, store: SessionStore) -> None:
        backend.save("s", CONVERSATION)
        memory = store.in_namespace("moved").as_memory_backend()
        memory.save("s", backend.load("s"))
        backend.delete("s")
        backend.save("s", memory.load("s"))
        assert typed(backend.load("s")) == typed(CONVERSATION)

    def test_its_repr_tells_no_secret(self, backend: Any) -> None:
        asked = getattr(backend, "awaited", backend)
        assert type(asked).__name__ in repr(asked)
        assert memory_servers.S3_KEYS["aws_secret_access_key"] not in repr(asked)


def typed(value: Any) -> Any:
    """A value with the types of what is in it: to Python 1, 1.0 and True are equal, and so are 0.0 and -0.0."""
    if isinstance(value, dict):
        return {key: typed(each) for key, each in value.items()}
    if isinstance(value, list):
        return [typed(each) for each in value]
    return type(value), repr(value)


def in_threads(work: Callable[[int], None], count: int) -> list[BaseException]:
    """Run the work in threads at once, and return what they raised."""
    failed: list[BaseException] = []
    barrier = threading.Barrier(count)

    def run(number: int) -> None:
        barrier.wait()
        try:
            work(number)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return failed


def test_the_folder_of_files_is_made_by_the_first_save_only(tmp_path: Path) -> None:
    backend = sessionstore.FileBackend(tmp_path / "a" / "b")
    assert backend.list() == []
    backend.delete("s")
    assert list(tmp_path.iterdir()) == []
