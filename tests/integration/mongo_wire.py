"""A server that speaks as much of MongoDB's protocol as one collection needs. It is no MongoDB.

It lets the real driver run in every test, over a real socket: what goes over the wire and comes back, errors included. Whether
MongoDB itself agrees is tested where one is named (see memory_servers).
"""

from __future__ import annotations

import socketserver
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import bson

OP_REPLY, OP_QUERY, OP_MSG = 1, 2004, 2013
FIRST_BATCH = 3
HELLO = {
    "ok": 1.0, "ismaster": True, "isWritablePrimary": True, "helloOk": True, "maxBsonObjectSize": 16 << 20,
    "maxMessageSizeBytes": 48_000_000, "maxWriteBatchSize": 100_000, "minWireVersion": 0, "maxWireVersion": 21, "readOnly": False,
}  # fmt: skip


class Wire(socketserver.ThreadingTCPServer):
    """The collections, by name, and an error to answer with instead."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Conversation)
        self.collections: dict[str, dict[str, bytes]] = {}
        self.waiting: dict[int, tuple[str, list[dict[str, Any]]]] = {}
        self.refusal: dict[str, Any] | None = None
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"mongodb://127.0.0.1:{self.server_address[1]}/?directConnection=true"

    def answer(self, command: dict[str, Any]) -> dict[str, Any]:
        """What a command does."""
        name, value = next(iter(command.items()))
        if name.lower() in ("hello", "ismaster"):
            return HELLO
        if name in ("endSessions", "ping"):
            return {"ok": 1.0}
        if self.refusal is not None:
            return self.refusal
        with self.lock:
            return getattr(self, f"do_{name}")(command, value)

    def do_update(self, command: dict[str, Any], value: str) -> dict[str, Any]:
        (update,) = command["updates"]
        assert update["upsert"]
        assert list(update["q"]) == ["_id"]
        held = self.collections.setdefault(value, {})
        session_id = update["q"]["_id"]
        assert isinstance(session_id, str)
        assert update["u"]["_id"] == session_id
        was_there = session_id in held
        held[session_id] = bson.encode(update["u"])
        upserted = {} if was_there else {"upserted": [{"index": 0, "_id": session_id}]}
        return {"ok": 1.0, "n": 1, "nModified": int(was_there), **upserted}

    def do_delete(self, command: dict[str, Any], value: str) -> dict[str, Any]:
        (delete,) = command["deletes"]
        found = self.collections.setdefault(value, {}).pop(delete["q"]["_id"], None)
        return {"ok": 1.0, "n": int(found is not None)}

    def do_find(self, command: dict[str, Any], value: str) -> dict[str, Any]:
        held = self.collections.setdefault(value, {})
        wanted = command["filter"].get("_id")
        documents = [bson.decode(data) for key, data in held.items() if wanted in (None, key)]
        if command.get("projection"):
            documents = [{"_id": document["_id"]} for document in documents]
        batch, rest = documents[:FIRST_BATCH], documents[FIRST_BATCH:]
        cursor = len(self.waiting) + 1 if rest else 0
        if rest:
            self.waiting[cursor] = (value, rest)
        return {"ok": 1.0, "cursor": {"id": bson.Int64(cursor), "ns": f"{command['$db']}.{value}", "firstBatch": batch}}

    def do_getMore(self, command: dict[str, Any], value: int) -> dict[str, Any]:  # noqa: N802 - the command's name
        name, rest = self.waiting.pop(value)
        return {"ok": 1.0, "cursor": {"id": bson.Int64(0), "ns": f"{command['$db']}.{name}", "nextBatch": rest}}


class Conversation(socketserver.BaseRequestHandler):
    """One connection of the driver's."""

    def handle(self) -> None:
        while header := self.read(16):
            size, request_id, _, opcode = struct.unpack("<iiii", header)
            body = self.read(size - 16)
            if opcode == OP_QUERY:
                start = body.index(b"\0", 4) + 1 + 8
                reply = struct.pack("<iqii", 8, 0, 0, 1) + bson.encode(self.server.answer(bson.decode(body[start:])))
                self.send(OP_REPLY, request_id, reply)
            else:
                assert opcode == OP_MSG
                reply = struct.pack("<IB", 0, 0) + bson.encode(self.server.answer(command_of(body)))
                self.send(OP_MSG, request_id, reply)

    def read(self, size: int) -> bytes:
        data = b""
        while len(data) < size and (more := self.request.recv(size - len(data))):
            data += more
        return data

    def send(self, opcode: int, request_id: int, reply: bytes) -> None:
        self.request.sendall(struct.pack("<iiii", len(reply) + 16, 0, request_id, opcode) + reply)


def command_of(body: bytes) -> dict[str, Any]:
    """The command of an OP_MSG: a document, and the lists that stand beside it."""
    command: dict[str, Any] = {}
    place = 4
    while place < len(body):
        kind, size = body[place], struct.unpack_from("<i", body, place + 1)[0]
        section = body[place + 1 : place + 1 + size]
        if kind == 0:
            command = {**bson.decode(section), **command}
        else:
            name_end = section.index(b"\0", 4)
            command[section[4:name_end].decode()] = bson.decode_all(section[name_end + 1 :])
        place += 1 + size
    # The command's own name comes first.
    lists = [key for key in ("updates", "deletes") if key in command]
    return {**{key: value for key, value in command.items() if key not in lists}, **{key: command[key] for key in lists}}


@contextmanager
def mongo_wire() -> Iterator[Wire]:
    """The server, in a thread."""
    with Wire() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
