"""What the work items share: where files are made, how large the work is, and the rows that come out."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import sessionstore

from .raw import RawStore
from .scale import Scale
from .timing import Figure, Side, interleave

# Small, because a block of slow reads cannot be cut short.
_READ_BLOCK = 5

Durability = Literal["full", "normal"]
BOTH: tuple[Durability, ...] = ("full", "normal")


@dataclass(frozen=True, slots=True)
class Target:
    """What a row must reach: the ratio to raw, or the store's own figure, is at most `most`.

    Attributes:
        every_round: Judge the worst round and not the median one.
    """

    most: float
    of: Literal["ratio", "store"] = "ratio"
    every_round: bool = False


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the report."""

    work: str
    unit: str
    raw: Figure | None
    store: Figure
    target: Target | None = None

    @property
    def ratio(self) -> Figure | None:
        """The store's figure over raw's, round by round."""
        return self.store.over(self.raw) if self.raw is not None and all(self.raw.values) else None

    @property
    def judged(self) -> Figure:
        """The figure that the target is about."""
        about_store = self.target is not None and self.target.of == "store"
        return self.store if about_store or self.ratio is None else self.ratio

    @property
    def met(self) -> bool | None:
        """Whether the target is reached; None without one."""
        if self.target is None:
            return None
        reached = max(self.judged.values) if self.target.every_round else self.judged.median
        return reached <= self.target.most


@dataclass(frozen=True, slots=True)
class Item:
    """A subject that can be asked for by name.

    Attributes:
        raw: What the yardstick does, in one line.
        rows: Does the work.
        usual: Whether it is part of a run that names no items.
    """

    name: str
    raw: str
    rows: Callable[[Bench], Iterator[Row]]
    usual: bool = True


class Bench:
    """One run: its folder and its scale."""

    def __init__(self, folder: Path, scale: Scale) -> None:
        self.folder = folder
        self.scale = scale
        self._numbers = itertools.count(1)
        self._new = folder / "new.db"
        sessionstore.open(self._new).close()

    @contextmanager
    def place(self) -> Iterator[Path]:
        """A folder of its own, gone afterwards."""
        place = self.folder / f"{next(self._numbers)}"
        place.mkdir()
        try:
            yield place
        finally:
            shutil.rmtree(place)

    def new_file(self, place: Path, name: str, session_ids: Iterable[str] = ()) -> Path:
        """A file that a store has made and closed, with empty sessions."""
        path = Path(shutil.copyfile(self._new, place / f"{name}.db"))
        with RawStore(path, durability="normal") as raw:
            for session_id in session_ids:
                raw.session(session_id)
        return path

    @contextmanager
    def both(
        self, session_ids: Iterable[str], durability: Durability = "full"
    ) -> Iterator[tuple[RawStore, sessionstore.SessionStore]]:
        """A raw connection and a store, each with a new file that has these sessions."""
        ids = tuple(session_ids)
        with (
            self.place() as place,
            RawStore(self.new_file(place, "raw", ids), durability=durability) as raw,
            sessionstore.open(self.new_file(place, "store", ids), durability=durability) as store,
        ):
            yield raw, store

    def writes(self, sides: Mapping[str, Side]) -> dict[str, Figure]:
        """Let writing sides take turns."""
        return interleave(sides, rounds=self.scale.rounds, calls=self.scale.calls, block=self.scale.block)

    def reads(self, sides: Mapping[str, Side]) -> dict[str, Figure]:
        """Let reading sides take turns."""
        return interleave(sides, rounds=self.scale.rounds, calls=self.scale.reads, block=min(_READ_BLOCK, self.scale.block))

    def whole(self, sides: Mapping[str, Side]) -> dict[str, Figure]:
        """Let sides take turns that do one large piece of work in a round."""
        return interleave(sides, rounds=self.scale.rounds, calls=1, block=1)
