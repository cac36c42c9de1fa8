"""The calls about forks: sessions that begin with the messages of another one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Unpack, cast

from .. import hints, inputs, queries
from ..arguments import SessionAttributes, refuse_unknown
from ..forks import CutPairs, fork_arguments
from ..values import SessionInfo
from .calls import Calls

if TYPE_CHECKING:
    from . import SessionStore


class BranchCalls(Calls):
    """Branches."""

    def fork(
        self,
        session_id: str,
        new_session_id: str | None = None,
        *,
        at: int | None = None,
        copy: bool = False,
        cut_pairs: CutPairs = "snap",
        **attributes: Unpack[SessionAttributes],
    ) -> hints.SessionHandle:
        """A handle on a new session that begins with the messages of another one, whose seqs they keep.

        The messages are shared, not copied, so that a fork costs the same however long the session is. What is changed or
        deleted on one side afterwards never shows on the other.

        Args:
            session_id: A session that is there.
            new_session_id: The id of the fork; by default one that begins with `session_id`.
            at: The seq of the last message that it takes over; all by default, 0 for none.
            copy: Copy the messages instead. Their usage and times then count twice in the analytics. What would be shared in more
                than 64 pieces is always copied.
            cut_pairs: What to do if tool results behind the cut answer calls before it: "snap" moves the cut before these calls,
                "refuse" raises, "keep" cuts all the same.
            attributes: Those of `session`; the fork has its parent's where they are not given, but is not pinned.

        It also begins with a copy of the state of the session's own scope.

        Raises:
            NotFoundError: There is no such session.
            ConflictError: There is a live session of the new id; or the cut parts a call from its result, with "refuse".
            InvalidInputError: `at` lies behind the last seq.
            StoreCorruptError: A message that is to be copied is damaged.
        """
        from ..handle import SessionHandle

        made = self._fork(session_id, new_session_id, at, copy, cut_pairs, attributes)
        return SessionHandle(cast("SessionStore", self), made.session_id)

    def branches(self, session_id: str) -> tuple[SessionInfo, ...]:
        """The live sessions that were forked from a session, oldest first.

        Raises:
            NotFoundError: There is no such session.
        """
        wanted = inputs.identifier("session_id", session_id)
        return self._read(lambda db: queries.forking.branches(db, self.namespace, wanted))

    def parent(self, session_id: str) -> SessionInfo | None:
        """The session that a session was forked from; None if it is no fork, or if its parent is gone.

        Raises:
            NotFoundError: There is no such session.
        """
        wanted = inputs.identifier("session_id", session_id)
        return self._read(lambda db: queries.forking.parent(db, self.namespace, wanted))

    def _fork(
        self,
        session_id: str,
        new_session_id: str | None,
        at: int | None,
        copy: bool,
        cut_pairs: CutPairs,
        attributes: SessionAttributes,
    ) -> SessionInfo:
        refuse_unknown(attributes, SessionAttributes)
        parent = inputs.identifier("session_id", session_id)
        wanted = fork_arguments(
            self.namespace,
            parent,
            new_session_id,
            at=at,
            copy=copy,
            cut_pairs=cut_pairs,
            on_expire=self._settings.on_expire,
            attributes=attributes,
        )
        return self._write(lambda db: queries.forking.fork(db, self.namespace, parent, wanted))
