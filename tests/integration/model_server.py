"""A small real server of chat completions: plain and streamed, with tool calls, errors and stalls. It records what it was sent."""

from __future__ import annotations

import json
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Body = dict[str, Any]
Behaviour = Callable[["Exchange"], None]

USAGE = {
    "prompt_tokens": 12,
    "completion_tokens": 3,
    "prompt_tokens_details": {"cached_tokens": 4},
    "completion_tokens_details": {"reasoning_tokens": 1},
}
LONGEST_STALL = 30


class Exchange:
    """One request, and the ways to answer it."""

    def __init__(self, handler: BaseHTTPRequestHandler, body: Body, server: ModelServer) -> None:
        self.handler = handler
        self.body = body
        self.server = server

    @property
    def is_streamed(self) -> bool:
        return self.body.get("stream", False)

    def send(self, status: int, content: bytes, kind: str = "application/json", **headers: str) -> None:
        self.handler.send_response(status)
        self.handler.send_header("Content-Type", kind)
        self.handler.send_header("Content-Length", str(len(content)))
        for name, value in headers.items():
            self.handler.send_header(name.replace("_", "-"), value)
        self.handler.end_headers()
        self.handler.wfile.write(content)

    def begin_stream(self) -> None:
        self.handler.send_response(200)
        self.handler.send_header("Content-Type", "text/event-stream; charset=utf-8")
        self.handler.send_header("Transfer-Encoding", "chunked")
        self.handler.end_headers()

    def write(self, text: str) -> None:
        """A piece of a chunked body, in its own packet."""
        data = text.encode()
        self.handler.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        self.handler.wfile.flush()

    def event(self, data: Any) -> None:
        self.write(f"data: {data if isinstance(data, str) else json.dumps(data)}\n\n")

    def delta(self, finish_reason: str | None = None, **delta: Any) -> None:
        self.event({"model": "m-1", "choices": [{"index": 0, "delta": delta, "finish_reason": finish_reason}]})

    def end_stream(self, finish_reason: str = "stop") -> None:
        self.delta(finish_reason)
        if self.body.get("stream_options", {}).get("include_usage"):
            self.event({"model": "m-1", "choices": [], "usage": USAGE})
        self.event("[DONE]")
        self.handler.wfile.write(b"0\r\n\r\n")

    def cut(self) -> None:
        """Break the connection off."""
        self.handler.close_connection = True

    def answer(self, message: Body, finish_reason: str = "stop") -> None:
        choice = {"index": 0, "message": message, "finish_reason": finish_reason}
        self.send(200, json.dumps({"model": "m-1", "choices": [choice], "usage": USAGE}).encode())


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that was killed, or that closed a stream early, is no error of the server's."""


class ModelServer:
    """A running server. What is in `script` is done next; without a script it says what it was asked.

    Attributes:
        requests: The bodies that it was sent.
        headers: The headers that came with them.
        paths: Where they went.
        reached: Set when a stall has begun.
        go_on: Set it to end stalls.
    """

    def __init__(self) -> None:
        self.requests: list[Body] = []
        self.headers: list[dict[str, str]] = []
        self.paths: list[str] = []
        self.script: deque[Behaviour] = deque()
        self.reached = threading.Event()
        self.go_on = threading.Event()
        self._server = _Server(("127.0.0.1", 0), self._handler_class())
        self._thread = threading.Thread(target=lambda: self._server.serve_forever(poll_interval=0.02), daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    def sent_texts(self, number: int = -1) -> list[str]:
        """The contents of the messages of a request."""
        return [message["content"] for message in self.requests[number]["messages"]]

    def __enter__(self) -> ModelServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.go_on.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)

    def _handler_class(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                server.requests.append(body)
                server.headers.append(dict(self.headers))
                server.paths.append(self.path)
                behaviour = server.script.popleft() if server.script else echo
                try:
                    behaviour(Exchange(self, body, server))
                except OSError:
                    # Who asked has gone.
                    self.close_connection = True

            def log_message(self, *_: object) -> None: ...

        return Handler


def text(words: str) -> Behaviour:
    """An answer of a text, a word at a time if it is streamed."""

    def behave(exchange: Exchange) -> None:
        if not exchange.is_streamed:
            exchange.answer({"role": "assistant", "content": words})
            return
        exchange.begin_stream()
        exchange.delta(role="assistant", content="")
        for word in words.split(" "):
            exchange.delta(content=word + " ")
        exchange.end_stream()

    return behave


def echo(exchange: Exchange) -> None:
    """Say what was asked."""
    text(f"You asked: {exchange.body['messages'][-1]['content']}")(exchange)


def calls(*named: tuple[str, str]) -> Behaviour:
    """An answer that calls tools: names and arguments."""

    def behave(exchange: Exchange) -> None:
        made = [
            {"id": f"call_{number}", "type": "function", "function": {"name": name, "arguments": arguments}}
            for number, (name, arguments) in enumerate(named)
        ]
        if not exchange.is_streamed:
            exchange.answer({"role": "assistant", "content": None, "tool_calls": made}, "tool_calls")
            return
        exchange.begin_stream()
        for number, call in enumerate(made):
            name, arguments = named[number]
            exchange.delta(tool_calls=[{"index": number, **call, "function": {"name": name, "arguments": ""}}])
            for start in range(0, len(arguments), 5):
                exchange.delta(tool_calls=[{"index": number, "function": {"arguments": arguments[start : start + 5]}}])
        exchange.end_stream("tool_calls")

    return behave


def refusal(status: int, message: str = "no", **headers: str) -> Behaviour:
    """An error as these servers tell it."""
    return lambda exchange: exchange.send(status, json.dumps({"error": {"message": message}}).encode(), **headers)


def raw(content: bytes, kind: str = "application/json") -> Behaviour:
    """Any body."""
    return lambda exchange: exchange.send(200, content, kind)


def half_body(exchange: Exchange) -> None:
    """A body that ends before its length."""
    exchange.handler.send_response(200)
    exchange.handler.send_header("Content-Type", "application/json")
    exchange.handler.send_header("Content-Length", "1000")
    exchange.handler.end_headers()
    exchange.handler.wfile.write(b'{"choices": [{"message": {"role": "assis')
    exchange.cut()


def half_stream(*, closes_well: bool) -> Behaviour:
    """Some chunks, and then nothing: the connection is cut, or ends as if all had been said."""

    def behave(exchange: Exchange) -> None:
        exchange.begin_stream()
        exchange.delta(content="Par")
        if closes_well:
            exchange.handler.wfile.write(b"0\r\n\r\n")
        exchange.cut()

    return behave


def events(*data: Any) -> Behaviour:
    """A stream of these events, without an end."""

    def behave(exchange: Exchange) -> None:
        exchange.begin_stream()
        for each in data:
            exchange.event(each)
        exchange.handler.wfile.write(b"0\r\n\r\n")

    return behave


def stalled(exchange: Exchange) -> None:
    """Two chunks, and a stall; or, if it is not streamed, the stall at once. `go_on` ends it well."""
    if exchange.is_streamed:
        exchange.begin_stream()
        exchange.delta(content="Half ")
        exchange.delta(content="an ")
    exchange.server.reached.set()
    exchange.server.go_on.wait(LONGEST_STALL)
    if exchange.is_streamed:
        exchange.delta(content="answer")
        exchange.end_stream()
    else:
        exchange.answer({"role": "assistant", "content": "Half an answer"})


def held_open(exchange: Exchange) -> None:
    """A whole stream whose body does not end before `go_on`."""
    exchange.begin_stream()
    exchange.delta(content="Paris")
    exchange.delta("stop")
    exchange.event("[DONE]")
    exchange.server.reached.set()
    exchange.server.go_on.wait(LONGEST_STALL)


@contextmanager
def serving() -> Iterator[ModelServer]:
    """A server for the length of a block."""
    with ModelServer() as server:
        yield server
