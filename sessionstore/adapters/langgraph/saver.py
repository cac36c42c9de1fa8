"""SessionStoreSaver: LangGraph's `BaseCheckpointSaver` over a store, sync and async."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from typing import Any, Final, TypeVar, Unpack

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    BaseCheckpointSaver,
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
    DeltaChannelHistory,
)
from langgraph.checkpoint.serde.base import SerializerProtocol
from langgraph.checkpoint.serde.encrypted import EncryptedSerializer

from ... import inputs
from ...arguments import NewSession, SessionAttributes, refuse_unknown
from ...values.checkpoints import Found, Kept, Listed, Said
from ..given import GivenStore, HoldsStore, StoreLike
from . import transcript as transcripts
from .encoding import Codec, Place, Prepared, config_of, lists_after, place_of
from .lists import KnownLists, Remembered
from .parts import Parts

T = TypeVar("T")

_STRATEGIES: Final = ("keep_latest", "delete")
_ROOT: Final = ""
_FRACTIONS: Final = 10**16


class SessionStoreSaver(HoldsStore, BaseCheckpointSaver[str]):
    """Keeps the checkpoints of graphs in a store, as part of their sessions: a thread is the session of its id.

    A session is made by the first checkpoint; what it has besides (messages, state, tags) is left alone. The checkpoints live as
    long as the session, and go wherever it goes. Any number of threads, event loops and processes may use one thread's
    checkpoints. What a call has put is on disk when it returns.
    """

    def __init__(
        self,
        store: StoreLike = None,
        *,
        serde: SerializerProtocol | None = None,
        transcript: bool | None = None,
        **attributes: Unpack[SessionAttributes],
    ) -> None:
        """Make a checkpointer.

        Args:
            store: An open store of either face, or a path that this opens and closes; None for the default file.
            serde: What turns values into bytes. By default LangGraph's own.
            transcript: Append the messages of the channel "messages" to the session's own, each once by its id, in the
                transaction of the checkpoint; so search, figures and the remote know them. False leaves the session's alone.
                By default True, but not with an EncryptedSerializer, which would not encrypt these.
            attributes: What sessions get that this makes (see `SessionAttributes`).
        """
        BaseCheckpointSaver.__init__(self, serde=serde)
        refuse_unknown(attributes, SessionAttributes)
        is_wanted = not isinstance(serde, EncryptedSerializer) if transcript is None else inputs.flag("transcript", transcript)
        self._transcript = transcripts.Transcript() if is_wanted else None
        self._given = GivenStore(store)
        self._attributes = attributes
        self._remembered = Remembered()
        # What is wrong with them is said here, not at the first checkpoint.
        self._session("attributes")

    # -- one checkpoint

    def get_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """The checkpoint that a config names, or the newest one of its thread and checkpoint namespace; None without one."""
        found = self.store._find_checkpoint(*place_of(config))  # noqa: SLF001
        return None if found is None else self._read(found)

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """As `get_tuple`, awaited."""
        found = await self._given.awaited._find_checkpoint(*place_of(config))  # noqa: SLF001
        return None if found is None else await self._off_loop(lambda: self._read(found))

    def put(
        self, config: RunnableConfig, checkpoint: Checkpoint, metadata: CheckpointMetadata, new_versions: ChannelVersions
    ) -> RunnableConfig:
        """Store a checkpoint, and return the config that names it. Of lists that grew, only what is new is written."""
        place = place_of(config)
        before, prepared, said = self._prepare(place, config, checkpoint, metadata, new_versions)
        kept = self.store._put_checkpoint(self._session(place.thread_id), prepared.row, said)  # noqa: SLF001
        return self._done(place, before, prepared, kept)

    async def aput(
        self, config: RunnableConfig, checkpoint: Checkpoint, metadata: CheckpointMetadata, new_versions: ChannelVersions
    ) -> RunnableConfig:
        """As `put`, awaited."""
        place = place_of(config)
        before, prepared, said = await self._off_loop(lambda: self._prepare(place, config, checkpoint, metadata, new_versions))
        kept = await self._given.awaited._put_checkpoint(self._session(place.thread_id), prepared.row, said)  # noqa: SLF001
        return self._done(place, before, prepared, kept)

    def put_writes(self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = "") -> None:
        """Store what a task wrote after a checkpoint."""
        place = place_of(config)
        checkpoint_id = inputs.identifier("checkpoint_id", place.checkpoint_id)
        session, rows = self._session(place.thread_id), self._codec().writes(writes)
        self.store._put_checkpoint_writes(  # noqa: SLF001
            session, place.checkpoint_ns, checkpoint_id, rows, task_id=task_id, task_path=task_path
        )

    async def aput_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        """As `put_writes`, awaited."""
        place = place_of(config)
        checkpoint_id = inputs.identifier("checkpoint_id", place.checkpoint_id)
        session, rows = self._session(place.thread_id), await self._off_loop(lambda: self._codec().writes(writes))
        await self._given.awaited._put_checkpoint_writes(  # noqa: SLF001
            session, place.checkpoint_ns, checkpoint_id, rows, task_id=task_id, task_path=task_path
        )

    # -- many checkpoints

    def list(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,  # noqa: A002 - LangGraph's name
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> Iterator[CheckpointTuple]:
        """Checkpoints, those of the highest ids first.

        Args:
            config: Whose: of a thread, and of one checkpoint namespace if it names one. None for all threads of the store's
                namespace.
            filter: What their metadata must have.
            before: Only those of lower ids than the one that this names.
            limit: At most so many.
        """
        codec = self._codec()
        listed = self.store._list_checkpoints(**_wanted(config, filter, before, limit))  # noqa: SLF001
        chosen, parts = self._chosen(listed, filter, limit), Parts()
        while places := parts.next_of(chosen):
            found = self.store._listed_checkpoints(places)  # noqa: SLF001
            parts.weigh(found)
            yield from map(codec.read, found)

    async def alist(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,  # noqa: A002 - LangGraph's name
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[CheckpointTuple]:
        """As `list`, awaited."""
        store, codec = self._given.awaited, self._codec()
        listed = await store._list_checkpoints(**_wanted(config, filter, before, limit))  # noqa: SLF001
        chosen, parts = iter(await self._off_loop(lambda: [*self._chosen(listed, filter, limit)])), Parts()
        while places := parts.next_of(chosen):
            found = await store._listed_checkpoints(places)  # noqa: SLF001
            parts.weigh(found)
            for read in await self._off_loop(lambda found=found: [*map(codec.read, found)]):  # type: ignore[misc]
                yield read

    def delete_thread(self, thread_id: str) -> None:
        """Delete a thread: its session, with its checkpoints, messages, state and tags. A thread that is not there is no error."""
        self.store.delete(str(thread_id))

    async def adelete_thread(self, thread_id: str) -> None:
        """As `delete_thread`, awaited."""
        await self._given.awaited.delete(str(thread_id))

    def delete_for_runs(self, run_ids: Sequence[str]) -> None:
        """Delete the checkpoints that some runs made, in all threads, and what was written after them.

        A delta channel of a checkpoint that stays loses what these runs gave it.
        """
        self.store._delete_checkpoint_runs([str(each) for each in run_ids])  # noqa: SLF001

    async def adelete_for_runs(self, run_ids: Sequence[str]) -> None:
        """As `delete_for_runs`, awaited."""
        await self._given.awaited._delete_checkpoint_runs([str(each) for each in run_ids])  # noqa: SLF001

    def copy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        """Give a thread, which is made if there is none, all checkpoints of another one. Messages are not copied."""
        self.store._copy_checkpoints(str(source_thread_id), self._session(str(target_thread_id)))  # noqa: SLF001

    async def acopy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        """As `copy_thread`, awaited."""
        target = self._session(str(target_thread_id))
        await self._given.awaited._copy_checkpoints(str(source_thread_id), target)  # noqa: SLF001

    def prune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        """Delete checkpoints of threads; their sessions stay.

        Args:
            thread_ids: Which threads.
            strategy: "keep_latest" keeps the newest checkpoint of each checkpoint namespace, and of its ancestors those that its
                delta channels are rebuilt from. "delete" keeps none.
        """
        is_all = inputs.choice("strategy", strategy, _STRATEGIES) == "delete"
        for thread_id in map(str, thread_ids):
            if is_all:
                self.store._delete_checkpoints(thread_id)  # noqa: SLF001
            else:
                self.store._prune_checkpoints(thread_id, self._codec().replayed)  # noqa: SLF001

    async def aprune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        """As `prune`, awaited."""
        store = self._given.awaited
        is_all = inputs.choice("strategy", strategy, _STRATEGIES) == "delete"
        for thread_id in map(str, thread_ids):
            if is_all:
                await store._delete_checkpoints(thread_id)  # noqa: SLF001
            else:
                await store._prune_checkpoints(thread_id, self._codec().replayed)  # noqa: SLF001

    # -- versions, and channels that keep what was written instead of their values

    def get_delta_channel_history(self, *, config: RunnableConfig, channels: Sequence[str]) -> Mapping[str, DeltaChannelHistory]:
        """What some channels were given before a checkpoint: the last stored value, and what was written since."""
        found = self.store._checkpoint_past(*place_of(config), tuple(channels))  # noqa: SLF001
        return {channel: self._codec().history(past) for channel, past in found.items()}

    async def aget_delta_channel_history(
        self, *, config: RunnableConfig, channels: Sequence[str]
    ) -> Mapping[str, DeltaChannelHistory]:
        """As `get_delta_channel_history`, awaited."""
        found = await self._given.awaited._checkpoint_past(*place_of(config), tuple(channels))  # noqa: SLF001
        return await self._off_loop(lambda: {channel: self._codec().history(past) for channel, past in found.items()})

    def get_next_version(self, current: str | None, channel: None) -> str:
        """The version behind another one. No two are the same, so that branches of one thread do not meet."""
        number = 0 if current is None else int(str(current).partition(".")[0])
        # Not of `random`: programs that seed it alike would give the same ones.
        return f"{number + 1:032}.{secrets.randbelow(_FRACTIONS):016}"

    # -- what both faces share

    def _codec(self) -> Codec:
        return Codec(self.serde)

    def _session(self, thread_id: str) -> NewSession:
        return self.store._new_session(thread_id, self._attributes)  # noqa: SLF001

    def _prepare(
        self,
        place: Place,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> tuple[KnownLists, Prepared, Said | None]:
        before = self._remembered.of(*place)
        prepared = self._codec().prepare(config, checkpoint, metadata, new_versions, before)
        said = None
        if self._transcript is not None and place.checkpoint_ns == _ROOT and transcripts.CHANNEL in new_versions:
            plan = prepared.plans.get(transcripts.CHANNEL)
            value = checkpoint["channel_values"].get(transcripts.CHANNEL)
            said = self._transcript.said(place.thread_id, value, 0 if plan is None else plan.equal, self.store.settings)
        return before, prepared, said

    def _done(self, place: Place, before: KnownLists, prepared: Prepared, kept: Mapping[str, Kept]) -> RunnableConfig:
        checkpoint_id = prepared.row.checkpoint_id
        self._remembered.keep(place.thread_id, place.checkpoint_ns, checkpoint_id, lists_after(prepared, kept, before))
        return config_of(place.thread_id, place.checkpoint_ns, checkpoint_id)

    def _read(self, found: Found) -> CheckpointTuple:
        place = (found.session_id, found.row.checkpoint_ns, found.row.checkpoint_id)
        read, lists = self._codec().read_with_lists(found, self._remembered.of(*place))
        self._remembered.keep(*place, lists)
        return read

    def _chosen(self, listed: Sequence[Listed], wanted: dict[str, Any] | None, limit: int | None) -> Iterator[Listed]:
        left = len(listed) if limit is None else limit
        for place in listed:
            if left <= 0:
                return
            about: Mapping[str, Any] = self._codec().metadata(place.metadata_type, place.metadata) if wanted else {}
            if all(about.get(name) == value for name, value in (wanted or {}).items()):
                left -= 1
                yield place

    async def _off_loop(self, call: Callable[[], T]) -> T:
        """Do work that takes time with the size of a checkpoint without blocking the event loop."""
        # A graph that does not await has no use for it.
        from ...waiting import Outcome

        outcome = Outcome(call)
        self.store._database.workers.submit(outcome.run)  # noqa: SLF001
        await outcome.arrival.wait()
        return outcome.get()


def _wanted(
    config: RunnableConfig | None, wanted: dict[str, Any] | None, before: RunnableConfig | None, limit: int | None
) -> dict[str, Any]:
    """What `list` asks the store for. A config without a checkpoint namespace means all of the thread's."""
    place = None if config is None else place_of(config)
    names_ns = config is not None and config.get("configurable", {}).get("checkpoint_ns") is not None
    earlier = (before or {}).get("configurable", {}).get("checkpoint_id")
    return {
        "session_id": None if place is None else place.thread_id,
        "checkpoint_ns": place.checkpoint_ns if place is not None and names_ns else None,
        "checkpoint_id": None if place is None else place.checkpoint_id,
        "before": None if not earlier else str(earlier),
        "most": None if wanted else limit,
        "metadata": bool(wanted),
    }
