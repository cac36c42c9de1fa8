"""What each driver offers: a history behind a framework's store, a turn that is appended to it, and the reading before a turn."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import ClassVar, NamedTuple

# The side that is this store; the others bear the names of the frameworks' own classes.
OURS = "store"


class Driver(ABC):
    """One conversation in one store, as a framework uses it. It is closed by the stack that it was opened with."""

    @abstractmethod
    async def open(self, path: Path, length: int, stack: AsyncExitStack) -> None:
        """Make the file, with a history of so many messages."""

    @abstractmethod
    async def turn(self, number: int) -> None:
        """Store what a user said and what the assistant answered; acknowledged when it returns."""

    @abstractmethod
    async def newest(self) -> int:
        """Read what the framework reads before a turn; how many messages came."""

    # How many come of a long history; None if the framework reads all of it.
    recent: ClassVar[int | None] = 50


class Framework(NamedTuple):
    """A framework and the stores it can use.

    Attributes:
        name: What the report calls it.
        turn: What is stored, in words.
        reading: What is read before that.
        drivers: This store's adapter under OURS, and the framework's own.
    """

    name: str
    turn: str
    reading: str
    drivers: Mapping[str, Callable[[], Driver]]
