"""An OpenAICompatible gives whole answers or a ModelError, whatever the server does, sync and async alike."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import anyio
import httpx
import pytest
from model_server import (
    USAGE,
    Behaviour,
    Exchange,
    ModelServer,
    calls,
    events,
    half_body,
    half_stream,
    held_open,
    raw,
    refusal,
    serving,
    stalled,
    text,
)

from sessionstore import ChatAgent, ConfigError, ModelAnswer, ModelError, OpenAICompatible

pytestmark = pytest.mark.anyio

KEY = "sk-Zq8vT3nL5wXy7RbKd2Hf"
QUESTION = [{"role": "user", "content": "Hello"}]

Ask = Callable[[OpenAICompatible, bool], Any]


@pytest.fixture
def server() -> Iterator[ModelServer]:
    with serving() as running:
        yield running


def sync_ask(model: OpenAICompatible, streamed: bool) -> list[Any]:
    with closing(model):
        return list(model.pieces(QUESTION, [], streamed=streamed))


async def async_ask(model: OpenAICompatible, streamed: bool) -> list[Any]:
    try:
        return [piece async for piece in model.pieces_async(QUESTION, [], streamed=streamed)]
    finally:
        await model.close_async()


@pytest.fixture(params=["sync", "asyncio", "trio"])
def face(request: pytest.FixtureRequest) -> str:
    """How the model is asked."""
    return request.param


@pytest.fixture
def anyio_backend(face: str) -> str:
    return "trio" if face == "trio" else "asyncio"


@pytest.fixture
def ask(face: str) -> Ask:
    """Both faces of a model, under one name."""

    async def asked(model: OpenAICompatible, streamed: bool) -> list[Any]:
        return sync_ask(model, streamed) if face == "sync" else await async_ask(model, streamed)

    return asked


@pytest.mark.parametrize("streamed", [False, True])
async def test_an_answer_comes_whole_with_its_usage(server: ModelServer, ask: Ask, streamed: bool) -> None:
    server.script.append(text("Paris it is"))
    *pieces, answer = await ask(OpenAICompatible(server.url + "/", "m-1", lambda: KEY, options={"temperature": 0}), streamed)
    assert isinstance(answer, ModelAnswer)
    assert "".join(pieces).strip() == ("Paris it is" if streamed else "")
    assert answer.message["content"].strip() == "Paris it is"
    assert answer.details == {
        "model": "m-1", "finish_reason": "stop", "input_tokens": 12, "output_tokens": 3,
        "cache_read_tokens": 4, "reasoning_tokens": 1,
    }  # fmt: skip
    (body,) = server.requests
    expected = {"temperature": 0, "model": "m-1", "messages": QUESTION}
    assert body == expected | ({"stream": True, "stream_options": {"include_usage": True}} if streamed else {})
    assert server.headers[0]["Authorization"] == f"Bearer {KEY}"


@pytest.mark.parametrize("streamed", [False, True])
async def test_tool_calls_come_whole(server: ModelServer, ask: Ask, streamed: bool) -> None:
    server.script.append(calls(("weather", '{"city": "Rome"}'), ("time", "{}")))
    answer = (await ask(OpenAICompatible(server.url, "m-1"), streamed))[-1]
    made = [call["function"] for call in answer.message["tool_calls"]]
    assert made == [{"name": "weather", "arguments": '{"city": "Rome"}'}, {"name": "time", "arguments": "{}"}]
    assert answer.finish_reason == "tool_calls"
    assert "Authorization" not in server.headers[0]


def tells_error_in_stream(exchange: Exchange) -> None:
    exchange.begin_stream()
    exchange.delta(content="Par")
    exchange.event({"error": {"message": "overloaded"}})
    exchange.event("[DONE]")


TROUBLE: dict[str, tuple[Behaviour, str]] = {
    "an error": (refusal(500, "it broke"), "HTTP 500: it broke"),
    "an error without words": (lambda exchange: exchange.send(502, b"<html>", "text/html"), "HTTP 502"),
    "a long error": (lambda exchange: exchange.send(500, b"x" * (2 << 20), "text/plain"), "HTTP 500"),
    "garbage": (raw(b"\xff\xfegarbage"), "no JSON object"),
    "half a JSON": (raw(b'{"choices": ['), "no JSON object"),
    "another JSON": (raw(b'{"ok": true}'), "no message"),
    "an error that says 200": (raw(b'{"error": {"message": "no"}}'), "tells an error"),
    "half a body": (half_body, "Error"),
}
STREAM_TROUBLE: dict[str, tuple[Behaviour, str]] = {
    "a cut": (half_stream(closes_well=False), "RemoteProtocolError"),
    "an end too early": (half_stream(closes_well=True), "ended before"),
    "garbage": (events("{"), "no JSON object"),
    "no object": (events([1]), "no JSON object"),
    "an error in the middle": (tells_error_in_stream, "tells an error"),
    "a call at an impossible place": (
        events({"choices": [{"delta": {"tool_calls": [{"index": -1}]}}]}),
        "impossible place",
    ),
}  # fmt: skip


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("trouble", TROUBLE)
async def test_trouble_is_a_model_error(server: ModelServer, ask: Ask, trouble: str, streamed: bool) -> None:
    behaviour, told = TROUBLE[trouble]
    server.script.append(behaviour)
    with pytest.raises(ModelError, match=told):
        await ask(OpenAICompatible(server.url, "m-1", KEY), streamed)
    assert len(server.requests) == 1


@pytest.mark.parametrize("trouble", STREAM_TROUBLE)
async def test_a_stream_without_its_end_is_a_model_error(server: ModelServer, ask: Ask, trouble: str) -> None:
    behaviour, told = STREAM_TROUBLE[trouble]
    server.script.append(behaviour)
    with pytest.raises(ModelError, match=told) as failed:
        await ask(OpenAICompatible(server.url, "m-1", KEY), True)
    assert failed.value.__cause__ is None


@pytest.mark.parametrize("streamed", [False, True])
async def test_silence_is_given_up(server: ModelServer, ask: Ask, streamed: bool) -> None:
    server.script.append(stalled)
    with pytest.raises(ModelError, match=r"within 0\.2 seconds"):
        await ask(OpenAICompatible(server.url, "m-1", timeout=0.2), streamed)
    assert server.reached.wait(10)


async def test_a_server_that_is_not_there_is_a_model_error(ask: Ask) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/v1"
        with pytest.raises(ModelError, match="ConnectError") as failed:
            await ask(OpenAICompatible(url, "m-1"), False)
    assert failed.value.status is None


async def test_no_server_fills_the_memory(server: ModelServer, ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sessionstore.chat.openai_compatible.MAX_ANSWER_BYTES", 10_000)

    def endless(exchange: Exchange) -> None:
        exchange.begin_stream()
        for _ in range(1_000):
            exchange.write("x" * 1_000)

    server.script.extend([endless, raw(b" " * 20_000)])
    for streamed in (True, False):
        with pytest.raises(ModelError, match="larger than 10000 bytes"):
            await ask(OpenAICompatible(server.url, "m-1"), streamed)


async def test_odd_but_good_streams_are_read(server: ModelServer, ask: Ask) -> None:
    """Comments, CRLF, events over several packets, a field of its own, a null delta, usage beside choices."""

    def odd(exchange: Exchange) -> None:
        exchange.begin_stream()
        chunk = json.dumps(
            {"model": "m-2", "choices": [{"delta": {"content": "Zürich", "reasoning_content": "hm"}}]}, ensure_ascii=False
        )
        exchange.write(": keep-alive\r\n\r\nevent: message\r\ndata: " + chunk[:30])
        exchange.write(chunk[30:] + "\r\n\r\n")
        exchange.event({"choices": [{"delta": None}]})
        exchange.event({"choices": [{"delta": {"content": None}, "finish_reason": "length"}], "usage": USAGE})
        exchange.event(" [DONE]")
        exchange.write("data: never read\n\n")
        exchange.handler.wfile.write(b"0\r\n\r\n")

    server.script.append(odd)
    text_piece, answer = await ask(OpenAICompatible(server.url, "m-1"), True)
    assert text_piece == "Zürich"
    assert answer.message == {"role": "assistant", "content": "Zürich", "reasoning_content": "hm"}
    assert (answer.model, answer.finish_reason, answer.input_tokens) == ("m-2", "length", 12)


async def test_a_key_that_cannot_be_had_is_a_model_error(server: ModelServer, ask: Ask) -> None:
    def fails() -> str:
        raise OSError(f"the keyring says {KEY}")

    with pytest.raises(ModelError, match="raised OSError") as failed:
        await ask(OpenAICompatible(server.url, "m-1", fails), False)
    assert KEY not in repr((failed.value, failed.value.__cause__, failed.value.__context__))
    assert server.requests == []


async def test_a_key_that_comes_as_a_coroutine_is_refused_and_not_left_unawaited(server: ModelServer, ask: Ask) -> None:
    async def key(name: str) -> str:
        return name + KEY

    with pytest.raises(ModelError, match="api_key: what the callable returned is a coroutine"):
        await ask(OpenAICompatible(server.url, "m-1", lambda: key("hush-")), False)  # type: ignore[arg-type, return-value]
    assert server.requests == []


async def test_a_finished_answer_does_not_wait_for_the_end_of_the_body(server: ModelServer, ask: Ask) -> None:
    server.script.append(held_open)
    text_piece, answer = await ask(OpenAICompatible(server.url, "m-1", timeout=3), True)
    assert (text_piece, answer.message["content"], answer.finish_reason) == ("Paris", "Paris", "stop")
    assert not server.go_on.is_set()


async def test_a_server_that_does_not_stream_is_read_all_the_same(server: ModelServer, ask: Ask) -> None:
    server.script.append(lambda exchange: exchange.answer({"role": "assistant", "content": "Paris"}))
    text_piece, answer = await ask(OpenAICompatible(server.url, "m-1"), True)
    assert (text_piece, answer.message["content"], answer.input_tokens) == ("Paris", "Paris", 12)


async def test_a_stream_may_end_without_the_word_for_it(server: ModelServer, ask: Ask) -> None:
    """A reason to finish is an end, too; ids, times to try again and comments alone are no events."""

    def wordless(exchange: Exchange) -> None:
        exchange.begin_stream()
        exchange.write("retry: 3000\n\nid: 1\n\n: ping\n\n")
        exchange.delta(content="Paris")
        exchange.write(": ping\n\n")
        exchange.delta("stop")
        exchange.write("data: [DONE]")
        exchange.handler.wfile.write(b"0\r\n\r\n")

    server.script.append(wordless)
    assert (await ask(OpenAICompatible(server.url, "m-1"), True))[-1].message["content"] == "Paris"


@pytest.mark.parametrize("streamed", [False, True])
async def test_what_a_server_says_of_its_error_is_told_without_the_key(server: ModelServer, ask: Ask, streamed: bool) -> None:
    error = {"error": {"message": f"no model for hush-{KEY[3:]} here\ud800"}}
    server.script.append(events(error) if streamed else raw(json.dumps(error).encode()))
    with pytest.raises(ModelError, match=r"tells an error instead, HTTP 200: no model for .* here") as failed:
        await ask(OpenAICompatible(server.url, "m-1", f"hush-{KEY[3:]}"), streamed)
    assert KEY[3:] not in repr((failed.value, failed.value.__cause__, failed.value.__context__))


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_redirect_is_not_followed_whoever_it_leads_to(server: ModelServer, ask: Ask, streamed: bool) -> None:
    for status in (301, 302, 303, 307, 308):
        server.script.append(lambda exchange, status=status: exchange.send(status, b"", Location=server.url + "/chat/completions"))
        with pytest.raises(ModelError, match=f"HTTP {status} to http://127") as failed:
            await ask(OpenAICompatible(server.url, "m-1", KEY), streamed)
        assert failed.value.status == status
    assert len(server.requests) == 5


async def test_an_address_without_its_version_is_guessed_at(server: ModelServer, ask: Ask) -> None:
    server.script.extend([refusal(404, "not here"), refusal(404, "no such model")])
    with pytest.raises(ModelError, match=r"not here; .* ends in /v1"):
        await ask(OpenAICompatible(server.url.removesuffix("/v1"), "m-1"), False)
    with pytest.raises(ModelError, match=r"no such model$"):
        await ask(OpenAICompatible(server.url, "m-1"), False)
    assert server.paths == ["/chat/completions", "/v1/chat/completions"]


def test_only_what_servers_take_is_sent_back(server: ModelServer) -> None:
    message = {"role": "assistant", "content": "Hi", "refusal": None, "annotations": [], "reasoning_content": "hm"}
    server.script.append(lambda exchange: exchange.answer(message))
    with ChatAgent(OpenAICompatible(server.url, "m-1")) as agent:
        agent.ask("One")
        agent.ask("Two")
        assert agent.messages()[1] == message
    assert server.requests[1]["messages"][1] == {"role": "assistant", "content": "Hi"}


def test_one_model_serves_many_threads_and_goes_on_after_a_close(server: ModelServer) -> None:
    model = OpenAICompatible(server.url, "m-1")
    agents = [ChatAgent(model) for _ in range(8)]
    replies: list[str] = []
    threads = [threading.Thread(target=lambda agent=agent: replies.append(agent.ask("Hello"))) for agent in agents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert replies == ["You asked: Hello"] * 8
    agents[0].close()
    assert agents[1].ask("Still?") == "You asked: Still?"
    model.close()


@pytest.mark.parametrize("face", ["asyncio"])
async def test_many_answers_at_once_do_not_wait_for_each_other(server: ModelServer) -> None:
    """More than the connections that an HTTP client has by default."""
    model, begun = OpenAICompatible(server.url, "m-1", timeout=20), 0
    server.script.extend([stalled] * 110)

    async def asked() -> None:
        nonlocal begun
        async with ChatAgent(model).stream_async("Hello") as stream:
            await anext(stream)
            begun += 1
            if begun == 110:
                server.go_on.set()
            assert "".join([piece async for piece in stream]) == "an answer"

    with anyio.fail_after(15):
        async with anyio.create_task_group() as group:
            for _ in range(110):
                group.start_soon(asked)
    await model.close_async()


async def test_a_closed_stream_lets_go_of_its_connection_at_once(server: ModelServer) -> None:
    server.script.append(stalled)
    model = OpenAICompatible(server.url, "m-1", timeout=20)
    began = time.monotonic()
    async with ChatAgent(model) as agent, agent.stream_async("Hello") as stream:
        assert await anext(stream) == "Half "
    assert time.monotonic() - began < 15
    assert server.reached.wait(10)


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"base_url": "ftp://x"}, "https://"),
        ({"base_url": "http://example.com/v1"}, "allow_http"),
        ({"base_url": "https://user:secret@example.com"}, "no user name"),
        ({"base_url": "https://api.example.com/v1/chat/completions/"}, "up to the version"),
        ({"model": ""}, "model"),
        ({"api_key": ""}, "api_key"),
        ({"api_key": "Bearer " + KEY}, "api_key"),
        ({"api_key": anyio.sleep_forever}, "api_key: must not be async"),
        ({"timeout": 0}, "timeout: must be more than 0"),
        ({"timeout": -1}, "timeout: must be more than 0"),
        ({"base_url": "http://example.com/v1"}, "reads the key and all that is sent"),
        ({"timeout": 1e6}, "timeout"),
        ({"options": {"stream": True}}, "options"),
        ({"options": {"x": {1}}}, "options"),
        ({"stream_usage": 1}, "stream_usage"),
        ({"trust_env": "no"}, "trust_env"),
    ],
)
def test_a_wrong_argument_is_named_and_not_shown(given: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem) as refused:
        OpenAICompatible(**{"base_url": "https://api.example.com/v1", "model": "m-1", **given})
    assert "secret" not in str(refused.value)
    assert KEY not in str(refused.value)


def test_plain_http_to_another_machine_is_talked_when_it_is_allowed() -> None:
    model = OpenAICompatible("http://example.com/v1", "m-1", KEY, allow_http=True)
    assert (model.base_url, model.model) == ("http://example.com/v1", "m-1")
    assert KEY not in repr(model)
    assert httpx.URL(model.base_url).host == "example.com"
