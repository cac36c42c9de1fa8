"""The calls that adapters of graph frameworks make: checkpoints of a session, with nothing but bytes in them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING

from .. import queries
from ..arguments import NewSession
from ..database.full_disk import Freeing
from .calls import Calls

if TYPE_CHECKING:
    from ..values.checkpoints import Found, Kept, Listed, NewCheckpoint, NewWrite, Past, Said


class CheckpointCalls(Calls):
    """Checkpoints. They belong to sessions and go where these go; what is in them is the adapter's business."""

    def _put_checkpoint(self, session: NewSession, new: NewCheckpoint, said: Said | None) -> dict[str, Kept]:
        return self._write(lambda db: queries.checkpoints.put(db, session, new, said))

    def _put_checkpoint_writes(
        self,
        session: NewSession,
        checkpoint_ns: str,
        checkpoint_id: str,
        writes: Sequence[NewWrite],
        *,
        task_id: str,
        task_path: str,
    ) -> None:
        return self._write(
            lambda db: queries.checkpoints.put_writes(
                db, session, checkpoint_ns, checkpoint_id, writes, task_id=task_id, task_path=task_path
            )
        )

    def _find_checkpoint(self, session_id: str, checkpoint_ns: str, checkpoint_id: str | None) -> Found | None:
        namespace = self.namespace
        return self._read(lambda db: queries.checkpoints.find(db, namespace, session_id, checkpoint_ns, checkpoint_id))

    def _listed_checkpoints(self, places: Sequence[Listed]) -> list[Found]:
        return self._read(lambda db: queries.checkpoints.of_places(db, places))

    def _list_checkpoints(
        self,
        *,
        session_id: str | None,
        checkpoint_ns: str | None,
        checkpoint_id: str | None,
        before: str | None,
        most: int | None,
        metadata: bool = True,
    ) -> list[Listed]:
        namespace = self.namespace
        return self._read(
            lambda db: queries.checkpoints.listed(
                db,
                namespace,
                session_id=session_id,
                checkpoint_ns=checkpoint_ns,
                checkpoint_id=checkpoint_id,
                before=before,
                most=most,
                metadata=metadata,
            )
        )

    def _checkpoint_past(
        self, session_id: str, checkpoint_ns: str, checkpoint_id: str | None, channels: Collection[str]
    ) -> dict[str, Past]:
        namespace = self.namespace
        return self._read(lambda db: queries.checkpoints.past(db, namespace, session_id, checkpoint_ns, checkpoint_id, channels))

    def _delete_checkpoint_runs(self, run_ids: Sequence[str]) -> None:
        namespace = self.namespace
        return self._write(Freeing(lambda db: queries.checkpoints.delete_runs(db, namespace, run_ids)))

    def _prune_checkpoints(self, session_id: str, replayed: Callable[[str, bytes], Collection[str]]) -> None:
        namespace = self.namespace
        return self._write(Freeing(lambda db: queries.checkpoints.prune(db, namespace, session_id, replayed)))

    def _delete_checkpoints(self, session_id: str) -> None:
        namespace = self.namespace
        return self._write(Freeing(lambda db: queries.checkpoints.delete_all(db, namespace, session_id)))

    def _copy_checkpoints(self, session_id: str, target: NewSession) -> None:
        namespace = self.namespace
        return self._write(lambda db: queries.checkpoint_rows.copy(db, namespace, session_id, target))
