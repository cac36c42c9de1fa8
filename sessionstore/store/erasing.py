"""The call that erases: sessions leave no trace in the file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Final, Literal, Unpack

from .. import hints, inputs, queries
from ..arguments import SessionFilter, SessionFilters, refuse_unknown, session_filter, several
from ..database.full_disk import Freeing
from ..errors import DiskFullError, InvalidInputError, StoreBusyError
from .calls import Calls

if TYPE_CHECKING:
    from ..queries.erasing import Choice

_FORKS: Final = ("raise", "erase", "keep")


class EraseCalls(Calls):
    """Erasing."""

    def erase(
        self,
        session_ids: str | Iterable[str] | None = None,
        *,
        forks: Literal["raise", "erase", "keep"] = "raise",
        tell: bool = True,
        rebuild: bool = True,
        dry_run: bool = False,
        **filters: Unpack[SessionFilters],
    ) -> hints.EraseReceipt:
        """Delete sessions so that no byte of them is left in the file, and say so, or what is left and why.

        Messages, replaced ones included, title, metadata, tags, state, errors and feedback go; blobs and words of the search index;
        events that the remote has not acknowledged; figures that name the sessions; details of agents' activity, and
        metadata of agents, that name them as `session_id`. The rows go in one transaction. Then the search index is merged, the
        file is written anew and its log is emptied; if that is interrupted, another erase makes up for it.

        Args:
            session_ids: One id or several, whether or not there are sessions; those of the same id that expired go, too.
            forks: What becomes of sessions that were forked from these: "raise" refuses, "erase" erases them, "keep" leaves them
                the messages that they share.
            tell: Tell the remote to forget the sessions, if there is a remote.
            rebuild: Write the whole file anew, as `vacuum(full=True)`. Without it pieces may be left in unused parts of pages.
            dry_run: Only tell what would be erased, and which forks are in the way.
            filters: Those of `list`; archived and expired sessions are included unless `archived` or `status` say otherwise. With
                `user_id` alone everything of this user goes: the user's state, too, and what names the user as `user_id`.
                Give either ids or filters.

        Raises:
            ConflictError: There are forks, and `forks` is "raise"; nothing was erased.
            StoreIOError: The disk failed. If the rows were gone by then, another erase makes up for the rest.
        """
        choice = self._choice(session_ids, filters, forks=forks, tell=tell, dry_run=dry_run)
        anew = inputs.flag("rebuild", rebuild)
        # What is erased must not come back after a power loss.
        erased = self._write(Freeing(lambda db: queries.erasing.erase(db, choice)), full=True)
        reasons = [*erased.reasons]
        if not choice.dry_run:
            reasons += self._wipe(rebuild=anew)
        from ..database import remains
        from ..values.receipts import EraseReceipt

        reasons += remains.copies_beside(self._database.path)
        told = {**asdict(erased), "reasons": tuple(reasons)}
        return EraseReceipt(**told, complete=not reasons, dry_run=choice.dry_run)

    def _choice(
        self, session_ids: str | Iterable[str] | None, filters: SessionFilters, *, forks: str, tell: bool, dry_run: bool
    ) -> Choice:
        refuse_unknown(filters, SessionFilters)
        namespace = self.namespace
        wanted = session_filter(namespace, **filters)
        if (session_ids is None) == wanted.chooses_all:
            raise InvalidInputError("session_ids", "give either ids or at least one filter")
        ids: tuple[str, ...] | None = None
        if session_ids is not None:
            given = (session_ids,) if isinstance(session_ids, str) else several("session_ids", session_ids)
            ids = tuple(dict.fromkeys(inputs.identifier("session_ids", one) for one in given))
        is_user = isinstance(wanted.user_id, str) and wanted == SessionFilter(namespace=namespace, user_id=wanted.user_id)
        return queries.erasing.Choice(
            namespace=namespace,
            session_ids=ids,
            filter=wanted,
            user_id=wanted.user_id if is_user and isinstance(wanted.user_id, str) else None,
            forks=inputs.choice("forks", forks, _FORKS),  # type: ignore[arg-type]
            tell=inputs.flag("tell", tell),
            dry_run=inputs.flag("dry_run", dry_run),
        )

    def _wipe(self, *, rebuild: bool) -> list[str]:
        """Leave nothing of what was erased in the search index, the file and its log; what is left all the same, and why."""
        from ..database import remains

        reasons = list(self._merge_index())
        return reasons + list(remains.wipe(self._database, rebuild=rebuild, timeout=self._settings.busy_timeout))

    def _merge_index(self) -> Iterator[str]:
        try:
            self._merge_search_index()
        except (StoreBusyError, DiskFullError) as error:
            # The rows are gone: the call may not fail for this.
            yield f"the search index may hold words: {error}"
