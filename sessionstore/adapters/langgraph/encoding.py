"""Checkpoints as LangGraph has them, and as the store keeps them: what is written and read by one serializer."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple, cast

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    WRITES_IDX_MAP,
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
    DeltaChannelHistory,
    get_checkpoint_metadata,
)
from langgraph.checkpoint.serde.base import SerializerProtocol

from ...errors import InvalidInputError
from ...values.checkpoints import Base, ChannelValue, Encoded, Found, Kept, NewCheckpoint, NewWrite, Past, Piece, Write
from .lists import Digest, KnownLists, KnownPiece, ListPlan, digest_by, planned


class Place(NamedTuple):
    """What a config names."""

    thread_id: str
    checkpoint_ns: str
    checkpoint_id: str | None


class Prepared(NamedTuple):
    """A checkpoint that is about to be put, and the plans of its new lists."""

    row: NewCheckpoint
    plans: dict[str, ListPlan]
    whole: dict[str, tuple[int, bytes]]


def place_of(config: RunnableConfig) -> Place:
    """What a config names; a thread's id may be a number.

    Raises:
        InvalidInputError: It names no thread.
    """
    named = config.get("configurable", {})
    if named.get("thread_id") is None:
        raise InvalidInputError("thread_id", "must be in the config, under configurable")
    checkpoint_id = named.get("checkpoint_id")
    return Place(str(named["thread_id"]), str(named.get("checkpoint_ns") or ""), None if not checkpoint_id else str(checkpoint_id))


def config_of(thread_id: str, checkpoint_ns: str, checkpoint_id: str) -> RunnableConfig:
    """The config that names a checkpoint."""
    return {"configurable": {"thread_id": thread_id, "checkpoint_ns": checkpoint_ns, "checkpoint_id": checkpoint_id}}


class Codec:
    """Writes and reads checkpoints by a serializer."""

    def __init__(self, serde: SerializerProtocol) -> None:
        self._serde = serde
        self._digest: Digest = digest_by(serde)

    # -- writing

    def prepare(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
        known: KnownLists,
    ) -> Prepared:
        """A checkpoint as it is stored; `known` are the lists of the one that it comes from."""
        place = place_of(config)
        about = get_checkpoint_metadata(config, metadata)
        run_id = about.get("run_id")
        plans: dict[str, ListPlan] = {}
        whole: dict[str, tuple[int, bytes]] = {}
        values = tuple(
            self._value(
                channel,
                value,
                version=_version(channel, checkpoint["channel_versions"]),
                is_new=channel in new_versions,
                known=known.get(channel, ()),
                plans=plans,
                whole=whole,
            )
            for channel, value in checkpoint["channel_values"].items()
        )
        rest = {name: value for name, value in checkpoint.items() if name != "channel_values"}
        row = NewCheckpoint(
            checkpoint_ns=place.checkpoint_ns,
            checkpoint_id=checkpoint["id"],
            parent_id=place.checkpoint_id,
            run_id=None if run_id is None else str(run_id),
            checkpoint=self._serde.dumps_typed(rest),
            metadata=self._serde.dumps_typed(about),
            values=values,
        )
        return Prepared(row, plans, whole)

    def writes(self, writes: Sequence[tuple[str, Any]]) -> list[NewWrite]:
        """What a task wrote, as it is stored."""
        return [
            NewWrite(WRITES_IDX_MAP.get(channel, index), channel, *self._serde.dumps_typed(value))
            for index, (channel, value) in enumerate(writes)
        ]

    def _value(
        self,
        channel: str,
        value: Any,
        *,
        version: str | None,
        is_new: bool,
        known: Sequence[KnownPiece],
        plans: dict[str, ListPlan],
        whole: dict[str, tuple[int, bytes]],
    ) -> ChannelValue:
        if type(value) is not list:
            encode = self._encoder(None, value)
            return ChannelValue(
                channel=channel, version=version, is_new=is_new, base=None, rest=encode() if is_new else None, whole=encode
            )
        items = list(value)

        def encode_all() -> Encoded:
            # The digest first, as in a plan.
            whole[channel] = (len(items), self._digest(items))
            return self._encoder(len(items), items)()

        if not is_new:
            return ChannelValue(channel=channel, version=version, is_new=False, base=None, rest=None, whole=encode_all)
        plan = plans[channel] = planned(items, known, self._digest)
        last = plan.begin[-1] if plan.begin else None
        return ChannelValue(
            channel=channel,
            version=version,
            is_new=True,
            base=None if last is None else Base(last.number, last.stamp),
            rest=self._encoder(len(plan.rest), plan.rest)(),
            whole=encode_all,
        )

    def _encoder(self, items: int | None, value: Any) -> Callable[[], Encoded]:
        return lambda: Encoded(items, *self._serde.dumps_typed(value))

    # -- reading

    def read(self, found: Found) -> CheckpointTuple:
        """A checkpoint as LangGraph has it."""
        return self._tuple(found, {channel: self._whole(pieces) for channel, pieces in found.values.items()})

    def read_with_lists(self, found: Found, known: KnownLists) -> tuple[CheckpointTuple, KnownLists]:
        """A checkpoint as LangGraph has it, and the pieces of its lists as they are before anybody changes them.

        Args:
            found: The checkpoint.
            known: Its lists as far as they are known; what was read before is not looked at again.
        """
        values: dict[str, Any] = {}
        lists: dict[str, tuple[KnownPiece, ...]] = {}
        for channel, pieces in found.values.items():
            if pieces[-1].items is None:
                values[channel] = self._whole(pieces)
                continue
            parts = self._loaded(pieces)
            lists[channel] = self._known(pieces, parts, known.get(channel, ()))
            values[channel] = _joined(parts)
        return self._tuple(found, values), lists

    def _tuple(self, found: Found, values: dict[str, Any]) -> CheckpointTuple:
        row = found.row
        checkpoint = {**self._serde.loads_typed((row.type, row.checkpoint)), "channel_values": values}
        return CheckpointTuple(
            config=config_of(found.session_id, row.checkpoint_ns, row.checkpoint_id),
            checkpoint=cast(Checkpoint, checkpoint),
            metadata=self.metadata(row.metadata_type, row.metadata),
            parent_config=None if row.parent_id is None else config_of(found.session_id, row.checkpoint_ns, row.parent_id),
            pending_writes=[self._write(write) for write in found.writes],
        )

    def metadata(self, kind: str, value: bytes) -> CheckpointMetadata:
        """The metadata of a checkpoint."""
        return cast(CheckpointMetadata, self._serde.loads_typed((kind, value)))

    def replayed(self, kind: str, value: bytes) -> Collection[str]:
        """The channels whose values are found by going through what was written since an earlier checkpoint."""
        counted: Any = self.metadata(kind, value).get("counters_since_delta_snapshot") or {}
        return set(counted)

    def history(self, past: Past) -> DeltaChannelHistory:
        """What a channel was given before a checkpoint."""
        told: DeltaChannelHistory = {"writes": [self._write(write) for write in past.writes]}
        if past.seed is not None:
            told["seed"] = self._whole(past.seed)
        return told

    def _whole(self, pieces: Sequence[Piece]) -> Any:
        if len(pieces) == 1:
            return self._serde.loads_typed((pieces[0].type, pieces[0].value))
        loaded = self._loaded(pieces)
        return loaded[-1] if pieces[-1].items is None else _joined(loaded)

    def _loaded(self, pieces: Sequence[Piece]) -> list[Any]:
        return [self._serde.loads_typed((piece.type, piece.value)) for piece in pieces]

    def _known(self, pieces: Sequence[Piece], parts: Sequence[list[Any]], before: Sequence[KnownPiece]) -> tuple[KnownPiece, ...]:
        read = {(each.number, each.stamp): each for each in before if each.is_loaded}
        return tuple(
            read.get((piece.number, piece.stamp))
            or KnownPiece(piece.number, piece.stamp, len(part), self._digest(part), is_loaded=True)
            for piece, part in zip(pieces, parts, strict=True)
        )

    def _write(self, write: Write) -> tuple[str, str, Any]:
        return write.task_id, write.channel, self._serde.loads_typed((write.type, write.value))


def lists_after(prepared: Prepared, kept: Mapping[str, Kept], before: KnownLists) -> KnownLists:
    """The lists of a checkpoint that was put: where their pieces are."""
    lists: dict[str, tuple[KnownPiece, ...]] = {}
    for value in prepared.row.values:
        channel, where = value.channel, kept.get(value.channel)
        if where is None:
            if channel in before:
                lists[channel] = before[channel]
        elif where.is_whole and channel in prepared.whole:
            lists[channel] = (KnownPiece(where.number, where.stamp, *prepared.whole[channel]),)
        elif channel in prepared.plans:
            plan = prepared.plans[channel]
            lists[channel] = (*plan.begin, KnownPiece(where.number, where.stamp, len(plan.rest), plan.digest))
    return lists


def _joined(parts: Sequence[list[Any]]) -> list[Any]:
    return parts[0] if len(parts) == 1 else [item for part in parts for item in part]


def _version(channel: str, versions: ChannelVersions) -> str | None:
    version = versions.get(channel)
    if version is not None and not isinstance(version, str | int | float):
        raise InvalidInputError("channel_versions", "must be texts or numbers")
    return None if version is None else json.dumps(version)
