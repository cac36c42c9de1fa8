"""What Redis, object storage and MongoDB add to the contract: lives, prefixes, pages, limits; and what their troubles look like."""

from __future__ import annotations

import gc
import json
import socket
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import anyio
import memory_servers
import mongo_wire
import pytest

from sessionstore import BackendError, ConfigError, InvalidInputError, QuotaError, StoreCorruptError
from sessionstore.memory.mongo import AsyncMongoBackend, MongoBackend, document
from sessionstore.memory.objects import AsyncObjectBackend, ObjectBackend
from sessionstore.memory.redis import AsyncRedisBackend, RedisBackend

HELLO = [{"role": "user", "content": "the words of a message"}]
SECRET = "p4ssw0rd-nobody-may-see"


@pytest.fixture(scope="module")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with memory_servers.redis_server(tmp_path_factory.mktemp("redis")) as url:
        yield url


@pytest.fixture
def client(redis_url: str) -> Iterator[Any]:
    import redis

    with redis.Redis.from_url(redis_url) as opened:
        opened.flushdb()
        yield opened


@pytest.fixture(scope="module")
def s3() -> Iterator[dict[str, Any]]:
    with memory_servers.s3_server() as config:
        yield config


@pytest.fixture
def wire() -> Iterator[mongo_wire.Wire]:
    with mongo_wire.mongo_wire() as server:
        yield server


@pytest.fixture
def deaf_port() -> Iterator[int]:
    """A port of the loopback where nobody listens."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


def told_by(error: BaseException) -> str:
    """All that a traceback of an error shows."""
    return "".join(traceback.format_exception(error)) + repr(error)


# -- Redis


def test_a_conversation_in_redis_is_plain_json_under_its_prefix(client: Any) -> None:
    RedisBackend(client).save("user-alice", HELLO)
    RedisBackend(client, prefix="mine").save("a:b%", HELLO)
    assert sorted(client.keys()) == [b"mine:a%3Ab%25", b"sessionstore:memory:user-alice"]
    assert json.loads(client.get("sessionstore:memory:user-alice")) == HELLO
    assert client.ttl("sessionstore:memory:user-alice") == -1


def test_a_ttl_begins_anew_with_each_save(client: Any) -> None:
    with RedisBackend(client, ttl=timedelta(hours=1)) as backend:
        backend.save("s", HELLO)
        client.pexpire("sessionstore:memory:s", 5_000)
        assert backend.load("s") == HELLO
        assert client.pttl("sessionstore:memory:s") <= 5_000
        backend.save("s", HELLO)
        assert 3_590_000 < client.pttl("sessionstore:memory:s") <= 3_600_000
        client.pexpire("sessionstore:memory:s", 0)
        assert backend.load("s") is None
        assert backend.list() == []
    RedisBackend(client).save("s", HELLO)
    assert client.ttl("sessionstore:memory:s") == -1


@pytest.mark.parametrize("ttl", [0, -1, float("nan"), True, "60", timedelta(0)])
def test_a_ttl_that_is_none_is_refused(ttl: Any) -> None:
    with pytest.raises(InvalidInputError) as caught:
        RedisBackend("redis://127.0.0.1", ttl=ttl)
    assert caught.value.field == "ttl"


def test_prefixes_never_see_each_other_whatever_they_hold(client: Any) -> None:
    """Patterns of SCAN, and prefixes that begin as others do."""
    prefixes = ["*", "a*", "a", "a:", "a:b", "[a-z]", "a?", "^", "\\", "\\*", "ab", "a%3A", "-"]
    backends = {prefix: RedisBackend(client, prefix=prefix) for prefix in prefixes if prefix != "a:"}
    for prefix, backend in backends.items():
        backend.save(f"of {prefix}", HELLO)
        backend.save("b:x", HELLO)
        backend.save("*", HELLO)
    client.set("a:two:parts", "[]")
    client.set("a: space", "[]")
    for prefix, backend in backends.items():
        assert backend.list() == sorted(["*", "b:x", f"of {prefix}"])
    assert RedisBackend(client, prefix="a:").list() == backends["a"].list()
    backends["*"].delete("*")
    assert [len(backend.list()) for backend in backends.values()].count(3) == len(backends) - 1


def test_all_keys_of_many_pages_are_listed(client: Any) -> None:
    backend = RedisBackend(client)
    with client.pipeline() as pipeline:
        for number in range(5_000):
            pipeline.set(f"sessionstore:memory:s{number}", "[]")
            pipeline.set(f"other:{number}", "[]")
        pipeline.execute()
    assert backend.list() == sorted(f"s{number}" for number in range(5_000))


@pytest.mark.parametrize("decode", [True, False])
def test_a_client_that_is_given_stays_open(redis_url: str, client: Any, decode: bool) -> None:
    import redis

    with redis.Redis.from_url(redis_url, decode_responses=decode) as given:
        with RedisBackend(given) as backend:
            backend.save("é", HELLO)
            assert (backend.load("é"), backend.list()) == (HELLO, ["é"])
        assert given.ping()


@pytest.mark.parametrize("held", ["", "{}", "[1]", "nul", "\xff"])
def test_a_key_of_something_else_is_reported_and_kept(client: Any, held: str) -> None:
    client.set("sessionstore:memory:s", held.encode("latin-1"))
    with pytest.raises(StoreCorruptError, match="the Redis key sessionstore:memory:s"):
        RedisBackend(client).load("s")
    assert client.get("sessionstore:memory:s") == held.encode("latin-1")


def test_what_redis_refuses_is_a_backend_error_without_words_of_the_conversation(client: Any) -> None:
    client.lpush("sessionstore:memory:s", "x")
    with pytest.raises(BackendError, match="Redis: the server refused \\(WRONGTYPE\\)") as caught:
        RedisBackend(client).load("s")
    assert isinstance(caught.value, OSError)
    assert caught.value.backend == "Redis"
    client.config_set("maxmemory", 1)
    try:
        with pytest.raises(BackendError) as refused:
            RedisBackend(client).save("t", HELLO)
        assert HELLO[0]["content"] not in told_by(refused.value)
    finally:
        client.config_set("maxmemory", 0)
    assert RedisBackend(client).load("t") is None


@pytest.mark.parametrize(
    "url", ["http://x", "redis://:p4ssw0rd-nobody-may-see@host:port", "", "redis://h:1:p4ssw0rd-nobody-may-see"]
)
def test_a_url_that_is_no_address_of_redis_is_refused_without_being_shown(url: str) -> None:
    with pytest.raises(ConfigError, match="redis://") as caught:
        RedisBackend(url)
    assert SECRET not in told_by(caught.value)


def test_a_client_of_another_kind_is_refused() -> None:
    import redis.asyncio

    for kind, wrong in ((RedisBackend, redis.asyncio.Redis()), (AsyncRedisBackend, redis.Redis()), (RedisBackend, None)):
        with pytest.raises(InvalidInputError) as caught:
            kind(wrong)  # type: ignore[arg-type]
        assert caught.value.field == "client"


# -- objects


def test_an_object_says_whose_it_is(tmp_path: Path) -> None:
    backend = ObjectBackend(tmp_path.as_uri())
    backend.save("a/b", HELLO)
    (path,) = tmp_path.iterdir()
    assert path.name == "a%2Fb.json"
    assert json.loads(path.read_text()) == {"session_id": "a/b", "messages": HELLO}


@pytest.mark.parametrize(
    "held", ["", "[]", "1", "{}", '{"session_id": "t", "messages": []}', '{"session_id": "s", "messages": {}}', "\xff"]
)
def test_an_object_of_something_else_is_reported_and_kept(tmp_path: Path, held: str) -> None:
    path = tmp_path / "s.json"
    path.write_bytes(held.encode("latin-1"))
    with pytest.raises(StoreCorruptError, match=r"s\.json"):
        ObjectBackend(tmp_path.as_uri()).load("s")
    assert path.read_bytes() == held.encode("latin-1")


def test_an_object_of_a_long_id_that_holds_another_one_is_reported(tmp_path: Path) -> None:
    backend = ObjectBackend(tmp_path.as_uri())
    backend.save("x" * 256, HELLO)
    (path,) = tmp_path.iterdir()
    assert backend.list() == ["x" * 256]
    path.write_text('{"session_id": "y", "messages": []}')
    for call in (backend.list, lambda: backend.load("x" * 256)):
        with pytest.raises(StoreCorruptError, match="holds another session"):
            call()


def test_objects_of_others_are_left_out(tmp_path: Path) -> None:
    backend = ObjectBackend(tmp_path.as_uri())
    backend.save("s", HELLO)
    (tmp_path / "below").mkdir()
    for name in ("notes.txt", "%FF.json", "Capital.json", "below/t.json"):
        (tmp_path / name).write_text("[]")
    assert backend.list() == ["s"]


def test_more_objects_than_a_page_of_s3_holds_are_listed(s3: dict[str, Any]) -> None:
    async def fill() -> list[str]:
        backend = AsyncObjectBackend(f"s3://{memory_servers.BUCKET}/paged", config=s3, client_options={"allow_http": True})
        limit = anyio.CapacityLimiter(20)

        async def save(number: int) -> None:
            async with limit:
                await backend.save(f"s{number}", [])

        async with anyio.create_task_group() as tasks:
            for number in range(1_010):
                tasks.start_soon(save, number)
        return await backend.list()

    expected = sorted(f"s{number}" for number in range(1_010))
    assert anyio.run(fill) == expected
    assert ObjectBackend(f"s3://{memory_servers.BUCKET}/paged/", config=s3, client_options={"allow_http": True}).list() == expected


def test_a_bucket_that_is_not_there_is_a_backend_error(s3: dict[str, Any]) -> None:
    backend = ObjectBackend("s3://absent/x", config=s3, client_options={"allow_http": True}, retry_config={"max_retries": 0})
    for call in (lambda: backend.save("s", HELLO), lambda: backend.load("s"), lambda: backend.delete("s"), backend.list):
        with pytest.raises(BackendError, match="object storage: there is no such bucket") as caught:
            call()
        assert memory_servers.S3_KEYS["aws_secret_access_key"] not in told_by(caught.value)
        assert HELLO[0]["content"] not in told_by(caught.value)


def test_a_bucket_that_is_not_there_is_a_backend_error_when_awaited(s3: dict[str, Any]) -> None:
    backend = AsyncObjectBackend("s3://absent/x", config=s3, client_options={"allow_http": True}, retry_config={"max_retries": 0})
    for call in (lambda: backend.save("s", HELLO), lambda: backend.load("s"), lambda: backend.delete("s"), backend.list):
        with pytest.raises(BackendError, match="object storage: there is no such bucket"):
            anyio.run(call)


def test_an_object_that_is_not_there_is_none_whatever_its_id(s3: dict[str, Any]) -> None:
    backend = ObjectBackend(f"s3://{memory_servers.BUCKET}/none", config=s3, client_options={"allow_http": True})
    for session_id in ("s", "<Code>NoSuchBucket</Code>"):
        assert backend.load(session_id) is None
        backend.delete(session_id)


@pytest.mark.parametrize("url", ["", "relative", "http://x/y", "ftp://x", None, 5])
def test_a_url_of_no_object_storage_is_refused(url: Any) -> None:
    with pytest.raises(InvalidInputError) as caught:
        ObjectBackend(url)
    assert caught.value.field == "url"


def test_options_that_the_storage_does_not_know_are_named_without_their_values() -> None:
    for options, problem in (
        ({"config": {"No_Such_option": SECRET}}, "config.No_Such_option: is no configuration key"),
        ({"config": {"aws_access_key_id": SECRET}, "no_such_argument": SECRET}, "no_such_argument: is no configuration key"),
        ({"config": {"allow_http": SECRET}}, "config.allow_http: .* client_options={'allow_http': ...}"),
        ({"config": {"TIMEOUT": SECRET}}, "config.TIMEOUT: .* client_options={'timeout': ...}"),
        ({"allow_http": SECRET}, "allow_http: .* client_options={'allow_http': ...}"),
        ({"config": {"aws_allow_http": SECRET}}, "config: holds a key .* client_options"),
        ({"client_options": {"no_such_option": SECRET}}, "client_options.no_such_option: is no option"),
        ({"client_options": {"allow_http": True, "timeout": SECRET}}, "client_options.timeout: has a value"),
        ({"client_options": {"timeout": 5}}, "client_options.timeout: has a value"),
        ({"client_options": SECRET}, "client_options: must be a dict"),
        ({"config": {5: SECRET}}, "config: must be a dict"),
        ({"retry_config": {"times": 5}}, "retry_config.times: is unknown; there are backoff"),
    ):
        for kind in (ObjectBackend, AsyncObjectBackend):
            with pytest.raises(InvalidInputError, match=f"^{problem}") as caught:
                kind("s3://bucket/x", **options)
            assert SECRET not in told_by(caught.value)
    with pytest.raises(ConfigError) as refused:
        ObjectBackend("s3://bucket/x", config={"aws_endpoint": 5})
    assert SECRET not in told_by(refused.value)


def test_a_folder_that_is_not_there_is_named_so(tmp_path: Path) -> None:
    folder = tmp_path / "a folder"
    with pytest.raises(InvalidInputError, match="url: there is no such folder"):
        ObjectBackend(folder.as_uri())
    folder.mkdir()
    ObjectBackend(folder.as_uri()).save("s", HELLO)
    made = ObjectBackend((tmp_path / "made").as_uri(), mkdir=True)
    made.save("s", HELLO)
    assert made.load("s") == HELLO


def test_a_url_is_shown_without_its_secrets() -> None:
    shown = repr(
        ObjectBackend(f"s3://bucket/x?signature={SECRET}", config={"aws_secret_access_key": SECRET, "aws_access_key_id": "k"})
    )
    assert shown == "ObjectBackend('s3://bucket/x')"


# -- MongoDB


def test_names_of_objects_are_escaped_and_others_are_not(wire: mongo_wire.Wire) -> None:
    with MongoBackend(wire.url) as backend:
        backend.save("s", [{"role": "user", "a.$b%\x00": {"$where": [{"c.d": 1}]}}])
        assert backend.load("s") == [{"role": "user", "a.$b%\x00": {"$where": [{"c.d": 1}]}}]
    import bson

    held = bson.decode(wire.collections["conversations"]["s"])
    assert held == {"_id": "s", "messages": [{"role": "user", "a%2E%24b%25%00": {"%24where": [{"c%2Ed": 1}]}}]}


def test_a_conversation_beyond_what_a_document_may_be_is_a_quota_error(wire: mongo_wire.Wire) -> None:
    with MongoBackend(wire.url) as backend:
        backend.save("s", HELLO)
        with pytest.raises(QuotaError, match="session 's' is larger") as caught:
            backend.save("s", [{"role": "user", "content": "x" * 1_000_000}] * 17)
        assert caught.value.limit == 16 << 20
        assert backend.load("s") == HELLO
        wire.refusal = {"ok": 0.0, "code": 10334, "errmsg": "BSONObj size is invalid"}
        with pytest.raises(QuotaError):
            backend.save("s", HELLO)
    size = len(document("s", []).raw)
    assert size < 100


def test_what_mongodb_refuses_is_a_backend_error_without_its_words(wire: mongo_wire.Wire) -> None:
    wire.refusal = {"ok": 0.0, "code": 13, "errmsg": f"not authorized: {SECRET}"}
    with MongoBackend(wire.url) as backend:
        for call in (lambda: backend.save("s", HELLO), lambda: backend.load("s"), lambda: backend.delete("s"), backend.list):
            with pytest.raises(BackendError, match="MongoDB: the server refused \\(OperationFailure, code 13\\)") as caught:
                call()
            assert SECRET not in told_by(caught.value)


def test_documents_of_others_are_left_out_or_reported(wire: mongo_wire.Wire) -> None:
    import bson

    wire.collections["conversations"] = {
        each: bson.encode({"_id": each, "messages": held}) for each, held in (("s", [1]), ("t", None), (" u", []))
    }
    with MongoBackend(wire.url) as backend:
        assert backend.list() == ["s", "t"]
        for session_id in ("s", "t"):
            with pytest.raises(StoreCorruptError, match=f"the MongoDB document {session_id}"):
                backend.load(session_id)


def test_a_client_of_mongodb_that_is_given_stays_open(wire: mongo_wire.Wire) -> None:
    from pymongo import MongoClient

    with MongoClient(wire.url) as given:
        with MongoBackend(given, database="mine", collection="chats") as backend:
            backend.save("s", HELLO)
            assert repr(backend) == "MongoBackend('mine.chats')"
        assert given.admin.command("ping")["ok"]
    assert list(wire.collections) == ["chats"]


@pytest.mark.parametrize(
    "url", ["http://x", f"mongodb://u:{SECRET}@", f"mongodb://u:{SECRET}@h:port", f"mongodb://u:{SECRET}:x@h", ""]
)
def test_a_url_that_is_no_address_of_mongodb_is_refused_without_being_shown(url: str) -> None:
    for kind in (MongoBackend, AsyncMongoBackend):
        with pytest.raises(ConfigError, match="mongodb://") as caught:
            kind(url)
        assert SECRET not in told_by(caught.value)


@pytest.mark.parametrize(
    "names", [{"database": "a b"}, {"database": "a.b"}, {"collection": "$a"}, {"collection": ""}, {"database": 5}]
)
def test_names_that_mongodb_does_not_allow_are_refused(names: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError) as caught:
        MongoBackend("mongodb://127.0.0.1", **names)
    assert caught.value.field in ("database", "collection")


# -- all


def unreachable(port: int) -> dict[str, Callable[[], Any]]:
    s3_options: dict[str, Any] = {
        "config": {"aws_access_key_id": "k", "aws_secret_access_key": SECRET, "aws_endpoint": f"http://127.0.0.1:{port}"},
        "client_options": {"allow_http": True},
        "retry_config": {"max_retries": 0},
    }
    return {
        "redis": lambda: RedisBackend(f"redis://user:{SECRET}@127.0.0.1:{port}", timeout=0.2),
        "objects": lambda: ObjectBackend("s3://bucket/x", **s3_options),
        "mongodb": lambda: MongoBackend(f"mongodb://user:{SECRET}@127.0.0.1:{port}", timeout=0.2),
        "redis-async": lambda: AsyncRedisBackend(f"redis://user:{SECRET}@127.0.0.1:{port}", timeout=0.2),
        "objects-async": lambda: AsyncObjectBackend("s3://bucket/x", **s3_options),
        "mongodb-async": lambda: AsyncMongoBackend(f"mongodb://user:{SECRET}@127.0.0.1:{port}", timeout=0.2),
    }


# The asynchronous driver of MongoDB forgets the socket of a connection that was refused.
@pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")
@pytest.mark.parametrize("kind", unreachable(0))
def test_a_server_that_is_not_there_is_a_backend_error_without_a_secret(deaf_port: int, kind: str) -> None:
    async def outcome(answer: Any) -> Any:
        return await answer if kind.endswith("-async") else answer

    async def ask() -> list[BackendError]:
        backend = unreachable(deaf_port)[kind]()
        assert SECRET not in repr(backend)
        found = []
        for call in (lambda: backend.save("s", HELLO), lambda: backend.load("s"), lambda: backend.delete("s"), backend.list):
            try:
                await outcome(call())
            except BackendError as error:
                found.append(error)
        if hasattr(backend, "close"):
            await outcome(backend.close())
        assert len(found) == 4
        return found

    told = [told_by(error) for error in anyio.run(ask)]
    # While the warning is filtered, and nothing holds what the errors hold.
    gc.collect()
    for each in told:
        assert SECRET not in each
        assert HELLO[0]["content"] not in each


WITHOUT = """
import sys
sys.modules[sys.argv[1]] = None
import sessionstore
try:
    __import__("sessionstore.memory." + sys.argv[2])
except sessionstore.MissingExtraError as error:
    print(error.extra, isinstance(error, ImportError))
"""


@pytest.mark.parametrize(
    ("package", "module", "extra"),
    [("redis", "redis", "redis"), ("obstore", "objects", "objects"), ("pymongo", "mongo", "mongodb")],
)
def test_without_its_package_a_backend_names_its_extra(package: str, module: str, extra: str) -> None:
    done = subprocess.run([sys.executable, "-c", WITHOUT, package, module], capture_output=True, text=True, check=True)
    assert done.stdout == f"{extra} True\n"


LIGHT = """
import sys
from sessionstore import AsyncMemoryBackend, FileBackend, MemoryBackend
FileBackend(sys.argv[1]).save("s", [{"role": "user", "content": "x"}])
print(*sorted({"redis", "obstore", "pymongo", "bson", "sqlmodel", "pydantic", "sqlalchemy", "httpx", "alembic"} & set(sys.modules)))
"""


def test_files_need_nothing_of_the_others(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", LIGHT, str(tmp_path)], capture_output=True, text=True, check=True)
    assert done.stdout == "\n"
