"""Checkpoints of graphs as they are stored and found: with nothing but bytes in them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from ..rows import PreparedMessage


class Encoded(NamedTuple):
    """A value as a serializer wrote it; `items` says how many a list has, None that it is no list that others may continue."""

    items: int | None
    type: str
    value: bytes


class Base(NamedTuple):
    """A stored value that another one continues."""

    number: int
    stamp: int


class Kept(NamedTuple):
    """Where a value was stored, and whether all of it was, because its base was gone."""

    number: int
    stamp: int
    is_whole: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelValue:
    """A channel's value in a checkpoint that is put.

    Attributes:
        channel: Its channel.
        version: The channel's version, as JSON; None if it has none.
        is_new: Whether it is one of this checkpoint; else it is stored only if no value of its version is.
        base: What it continues, unless that is gone.
        rest: What stands behind the base's items, or all; None for what is not new.
        whole: Gives all of it.
    """

    channel: str
    version: str | None
    is_new: bool
    base: Base | None
    rest: Encoded | None
    whole: Callable[[], Encoded]


@dataclass(frozen=True, slots=True, kw_only=True)
class NewCheckpoint:
    """A checkpoint that is put, without and with its values."""

    checkpoint_ns: str
    checkpoint_id: str
    parent_id: str | None
    run_id: str | None
    checkpoint: tuple[str, bytes]
    metadata: tuple[str, bytes]
    values: tuple[ChannelValue, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """Messages of a graph, for the session's own.

    Attributes:
        count: How many there are, oldest first.
        known: So many of the first ones were looked at before.
        name: Gives the id of one; None for what has none, is no message, or was left out before.
        prepare: Gives one as it is to be stored; raises InvalidInputError for what cannot be.
        leave_out: Is told what cannot be stored, and why.
    """

    count: int
    known: int
    name: Callable[[int], str | None]
    prepare: Callable[[int], PreparedMessage]
    leave_out: Callable[[int, Exception], None]


class NewWrite(NamedTuple):
    """What a task wrote. Of one index the first stays, unless it is negative: then the last one does."""

    idx: int
    channel: str
    type: str
    value: bytes


class Stored(NamedTuple):
    """The row of a checkpoint; `channels` names the numbers of its values."""

    checkpoint_ns: str
    checkpoint_id: str
    parent_id: str | None
    type: str
    checkpoint: bytes
    metadata_type: str
    metadata: bytes
    channels: dict[str, int]


class Piece(NamedTuple):
    """A stored value, or a part of one."""

    number: int
    stamp: int
    items: int | None
    type: str
    value: bytes


class Write(NamedTuple):
    """What a task wrote."""

    task_id: str
    channel: str
    type: str
    value: bytes


class Found(NamedTuple):
    """A checkpoint with all that belongs to it; the pieces of a value stand in their order."""

    session_id: str
    row: Stored
    values: dict[str, list[Piece]]
    writes: list[Write]


class Listed(NamedTuple):
    """Where a checkpoint is, and its metadata if that was wanted; `row` is the row that it had when it was listed."""

    row: int
    key: int
    session_id: str
    checkpoint_ns: str
    checkpoint_id: str
    metadata_type: str = ""
    metadata: bytes = b""


class Past(NamedTuple):
    """What a channel was given before a checkpoint: the last stored value, if any, and what was written since, oldest first."""

    seed: list[Piece] | None
    writes: list[Write]
