"""The remote of the simulation: a collector, or a backend of the tracker SDK, behind a network that the seed rules.

A request that was sent arrives within the time that its sender would wait for the answer, whatever becomes of the sender.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from email.utils import format_datetime
from typing import Any, Protocol

import httpx
from machine import URL, Machine, Process
from virtual_loop import Owner

from sessionstore.remote.events import PATHS

TIMEOUT = 30.0
_BASIC = ("conversation_start", "conversation_end", "agent_register", "agent_status", "agent_activity", "conversation_expired")
_PATHS_OF_BASIC = {PATHS[kind] for kind in _BASIC}
_PAGE = b"<html>Sign in to the hotel</html>"
_RETRY_AFTER = ("0", "1", "5", "40", "-3", "abc", "1000000000000", "date", "past", None)


class Sent(Protocol):
    """What a request carries."""

    key: str
    body: str


@dataclass(frozen=True)
class Parcel:
    """A request: whose it is, and the events in it by their keys."""

    process: Process
    path: str
    key_of_sender: str
    bodies: dict[str, str]
    number: int

    @property
    def is_question(self) -> bool:
        """Whether it carries nothing."""
        return not self.bodies


@dataclass(frozen=True)
class Reply:
    """An answer, and the keys that it acknowledges."""

    status: int
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    named: frozenset[str] = frozenset()

    @property
    def content(self) -> bytes:
        """What goes over the wire."""
        return self.body if isinstance(self.body, bytes) else b"" if self.body is None else json.dumps(self.body).encode()


class Witness(Protocol):
    """Who is told what passes between the processes and the remote."""

    def sending(self, parcel: Parcel) -> None: ...

    def seen(self, parcel: Parcel, key: str) -> None: ...

    def answered(self, parcel: Parcel, reply: Reply) -> None: ...


@dataclass
class Weather:
    """How the network and the remote are at the moment.

    Attributes:
        calm: The part of the requests that are answered as they should be.
        offline: For how many reasons nothing gets through.
        refused_keys: API keys that are not accepted.
        poison: Keys of events that are never taken, and how that is said: "rejected", 400 or 500.
        most_events: How many events a request may carry.
        unknown: Paths that the remote does not have.
        answers_with_pages: Whether a plain backend has a page for whatever it is asked.
    """

    calm: float = 1.0
    offline: int = 0
    refused_keys: set[str] = field(default_factory=set)
    poison: set[str] = field(default_factory=set)
    poison_answer: int | str = "rejected"
    most_events: int = 500
    unknown: set[str] = field(default_factory=set)
    answers_with_pages: bool = False


class RemoteModel:
    """What the remote has, and how it answers."""

    def __init__(self, machine: Machine, rng: random.Random, witness: Witness, *, is_ours: bool) -> None:
        self.weather = Weather()
        self.is_ours = is_ours
        self.stored: dict[str, str] = {}
        # By their numbers: what will arrive.
        self.on_the_way: dict[int, Parcel] = {}
        self._machine = machine
        self._rng = rng
        self._witness = witness
        self._count = 0

    def transport(self, owner: Owner) -> httpx.AsyncBaseTransport:
        """The network, as one process has it."""
        assert isinstance(owner, Process)
        return _Network(self, owner)

    async def ask(self, process: Process, request: httpx.Request) -> httpx.Response:
        """One request, on its way there and back."""
        if process.is_dead:
            raise httpx.ConnectError("the process is no more")
        parcel = self._parcel(process, request)
        self._witness.sending(parcel)
        rng, loop, weather = self._rng, self._machine.loop, self.weather
        if weather.offline:
            await asyncio.sleep(rng.choice((0.0, 0.01, 0.01, 0.3, 3.0, TIMEOUT + 1)))
            raise rng.choice((httpx.ConnectError, httpx.ConnectTimeout, httpx.ReadTimeout))("offline")
        is_calm = rng.random() < weather.calm
        there = rng.choice((0.01, 0.05, 0.3, 3.0, 12.0)) if is_calm else rng.choice((0.01, 0.3, 4.0, 20.0, TIMEOUT))
        fates = ("answered", "answered", "lost before", "lost after", "never answered", "given up")
        fate = "answered" if is_calm else rng.choice(fates)
        arrived: asyncio.Future[Reply] = loop.create_future()
        if fate != "lost before":
            self.on_the_way[parcel.number] = parcel
            loop.call_by(loop.world, there, self._arrive, parcel, arrived, is_calm)
        if fate == "lost before":
            await asyncio.sleep(there)
            raise httpx.ReadError("reset")
        if fate == "given up":
            # By something on the way that has passed it on.
            await asyncio.sleep(there * rng.random())
            raise httpx.ReadError("reset")
        reply = await arrived
        if fate == "lost after":
            raise httpx.RemoteProtocolError("closed")
        await asyncio.sleep(rng.choice((0.0, 0.01, 0.2)) if fate == "answered" else 10 * TIMEOUT)
        if process.is_dead:
            raise httpx.ReadError("the process is no more")
        self._witness.answered(parcel, reply)
        return httpx.Response(reply.status, headers=reply.headers, content=reply.content)

    def _parcel(self, process: Process, request: httpx.Request) -> Parcel:
        self._count += 1
        path = str(request.url).removeprefix(URL)
        bodies: dict[str, str] = {}
        if request.method == "POST":
            content = request.content
            if request.headers.get("content-encoding") == "gzip":
                content = gzip.decompress(content)
            text = content.decode()
            if path == "/events/batch":
                bodies = {each["key"]: _canonical(each["body"]) for each in json.loads(text)["events"]}
            else:
                bodies = {request.headers["idempotency-key"]: _canonical(json.loads(text))}
        return Parcel(process, path, request.headers.get("authorization", ""), bodies, self._count)

    def _arrive(self, parcel: Parcel, arrived: asyncio.Future[Reply], is_calm: bool) -> None:
        del self.on_the_way[parcel.number]
        reply = self._answer(parcel, is_calm=is_calm)
        if not arrived.done():
            arrived.set_result(reply)

    def _answer(self, parcel: Parcel, *, is_calm: bool) -> Reply:
        weather = self.weather
        if parcel.key_of_sender in weather.refused_keys:
            return Reply(401, {"error": "unknown key"})
        if not is_calm and (bad := self._bad_answer(parcel)) is not None:
            return bad
        if parcel.is_question:
            return self._capabilities()
        if len(parcel.bodies) > weather.most_events:
            return Reply(413, {"error": "too large"})
        poisoned = [key for key in parcel.bodies if key in weather.poison]
        if poisoned and (isinstance(weather.poison_answer, int) or parcel.path != "/events/batch"):
            if len(parcel.bodies) == 1:
                self._witness.seen(parcel, poisoned[0])
            # Of a single post no answer can say that it is rejected.
            status = weather.poison_answer if isinstance(weather.poison_answer, int) else 422
            return Reply(status, {"error": "cannot take it"})
        return self._take(parcel, poisoned, is_calm=is_calm)

    def _bad_answer(self, parcel: Parcel) -> Reply | None:
        """One without a use, or None for one that is half of what it should be."""
        rng = self._rng
        chosen = rng.choice(("busy", "busy", "error", "half", "half", "half", "page", "empty", "cut", "in flight", "after commit"))
        if chosen == "busy":
            after = rng.choice(_RETRY_AFTER)
            if after in ("date", "past"):
                at = self._machine.now() + timedelta(seconds=50 if after == "date" else -50)
                after = format_datetime(at.replace(microsecond=0), usegmt=False)
            return Reply(rng.choice((429, 503)), None, {} if after is None else {"retry-after": after})
        if chosen == "error":
            # A 404 to the question what it can do is the answer of a plain backend: it is believed, whoever gives it.
            has_more = self.is_ours and not parcel.is_question
            return Reply(rng.choice((500, 502, 504, 408, 302, 403, 404) if has_more else (500, 502, 504, 408, 302)))
        if chosen == "page":
            return Reply(200, _PAGE)
        if chosen == "in flight":
            return Reply(409, {"error": "being processed"})
        if chosen == "half" or parcel.is_question or parcel.bodies.keys() & self.weather.poison:
            return None
        taken = self._take(parcel, [], is_calm=True)
        if not taken.named:
            # What it has no endpoint for it cannot acknowledge by mistake.
            return taken
        if chosen == "after commit":
            return Reply(504)
        # For a single post nothing is enough: it may be a 204.
        named = frozenset(parcel.bodies) if chosen == "empty" and parcel.path != "/events/batch" else frozenset()
        return Reply(200, b"" if chosen == "empty" else b'{"results": [{"key": "', named=named)

    def _capabilities(self) -> Reply:
        if not self.is_ours:
            return Reply(200, _PAGE) if self.weather.answers_with_pages else Reply(404, {"detail": "Not Found"})
        batch = {"path": "/events/batch", "max_events": 500, "max_bytes": 1 << 20, "encodings": ["gzip"]}
        return Reply(200, {"api": "sessionstore", "version": 1, "kinds": ["metric", "message", "erase"], "batch": batch})

    def _take(self, parcel: Parcel, poisoned: Sequence[str], *, is_calm: bool) -> Reply:
        """Store what is new. A remote that stops half way has stored the first ones."""
        if not self.is_ours and (parcel.path not in _PATHS_OF_BASIC or parcel.path in self.weather.unknown):
            return Reply(404, {"detail": "Not Found"})
        results: list[dict[str, Any]] = []
        most = len(parcel.bodies) if is_calm else self._rng.randint(0, len(parcel.bodies))
        for key, body in list(parcel.bodies.items())[:most]:
            self._witness.seen(parcel, key)
            if key in poisoned:
                results.append({"key": key, "status": "rejected", "error": "cannot take it"})
                continue
            results.append({"key": key, "status": "duplicate" if key in self.stored else "stored"})
            self.stored.setdefault(key, body)
        if parcel.path != "/events/batch":
            return Reply(200, {"ok": True}, named=frozenset(parcel.bodies)) if most else Reply(502)
        if not is_calm:
            results = [each for each in results if self._rng.random() < 0.7]
            results += [{"key": f"nobody-{number}", "status": "stored"} for number in range(self._rng.randint(0, 2))]
        named = frozenset(each["key"] for each in results if each["status"] != "rejected") & parcel.bodies.keys()
        return Reply(200, {"results": results}, named=named)


class _Network(httpx.AsyncBaseTransport):
    def __init__(self, remote: RemoteModel, process: Process) -> None:
        self._remote = remote
        self._process = process

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        return await self._remote.ask(self._process, request)


def _canonical(body: Any) -> str:
    return json.dumps(body, separators=(",", ":"), ensure_ascii=False)
