"""What drivers offer. A driver runs in the environment of its peer: it imports that and the standard library, nothing else.

The methods of a driver are plain functions or coroutine functions, as its peer's are. What a peer has no way to do is left out:
`offers` looks for it.
"""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Sequence
from typing import Any, ClassVar

Messages = list[dict[str, str]]
Done = Awaitable[None] | None
Counted = Awaitable[int] | int


class Driver(ABC):
    """One open file.

    Args:
        path: The file; queues that want a folder add a name to it.
        sync: "full" or "normal" for drivers that can be told, "" for what is usual. Others are set from outside.
    """

    def __init__(self, path: str, sync: str) -> None:
        self.path = path
        self.sync = sync

    @abstractmethod
    def open(self) -> Done:
        """Open the file, and make it if there is none."""

    @abstractmethod
    def close(self) -> Done:
        """Close it."""


class Conversations(Driver):
    """Sessions with messages.

    `listed()`, which reads what is known of all sessions and says how many there are, and `fill_list(count)`, which makes them in
    any way that is fast, are left out by peers that cannot list; so is `newest(session_id, count)`, which reads the newest
    messages and says how many came.
    """

    # Whether many threads or tasks may save through one open file.
    concurrent: ClassVar[bool] = True

    @abstractmethod
    def new(self, session_id: str) -> Done:
        """Begin a session."""

    @abstractmethod
    def fill(self, session_id: str, messages: Messages) -> Done:
        """Begin a session that has these messages, in any way that is fast; not timed."""

    def resume(self, session_id: str, messages: Messages) -> Done:
        """Get ready to go on with a session of the file, which has these messages; not timed."""

    def ready(self, session_id: str, messages: Messages) -> Any:
        """The turn in the objects that the peer is given; making them is not timed."""
        return messages

    @abstractmethod
    def turn(self, session_id: str, ready: Any) -> Done:
        """Save a turn of two messages; acknowledged when it returns."""

    @abstractmethod
    def whole(self, session_id: str) -> Counted:
        """Read all messages of a session; how many came."""

    async def stored(self, session_ids: Sequence[str]) -> int:
        """How many messages are in the file."""
        return sum([await done(self.whole(session_id)) for session_id in session_ids])


class Queue(Driver):
    """Items of about 500 bytes.

    `take()` dequeues an item and acknowledges it, and gives False or None when there was none. `put_many(items)` and
    `take_many(count)` are left out by those that do one at a time.
    """

    @abstractmethod
    def put(self, item: str) -> Done:
        """Enqueue an item; acknowledged when it returns."""


async def done(result: Any) -> Any:
    """What a method gave, awaited if need be."""
    return await result if isinstance(result, Awaitable) else result


def load(name: str) -> type[Any]:
    """The driver of a name such as "huey:Storage"."""
    module, _, kind = name.partition(":")
    found: type[Any] = getattr(importlib.import_module(f"{__package__}.drivers.{module}"), kind)
    return found


def offers(kind: type[Any]) -> tuple[str, ...]:
    """What a driver can do beside what all of its kind can."""
    able = [name for name in ("turn", "newest", "listed", "put", "take") if hasattr(kind, name)]
    return (*able, "saves") if getattr(kind, "concurrent", False) else tuple(able)
