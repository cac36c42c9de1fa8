"""The calls about sessions: making, changing, finding and deleting them."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Unpack, cast

from .. import hints, inputs, queries
from ..arguments import (
    UNSET,
    NewSession,
    SessionAttributes,
    SessionFilter,
    SessionFilters,
    Unset,
    new_session,
    refuse_unknown,
    session_end,
    session_filter,
    several,
)
from ..content import decoded
from ..database.full_disk import Freeing
from ..errors import InvalidInputError
from ..values import EXPIRED_STATUS, EndStatus, Page, SessionInfo
from .calls import Calls
from .sweeps import SWEEP_PAUSE

if TYPE_CHECKING:
    from . import SessionStore


class SessionCalls(Calls):
    """Sessions."""

    def session(self, session_id: str, **attributes: Unpack[SessionAttributes]) -> hints.SessionHandle:
        """A handle on the session of this id, which is made if there is none.

        Args:
            session_id: 1 to 256 printable characters; compared exactly as given.
            attributes: `user_id`, `agent_id`, `title`, `tags`, `metadata`, `pinned`, `ttl`, `max_age` (see
                `SessionAttributes`). They apply when the session is made; those of a session that is there stay. An expired
                session is not there: a new one begins.
        """
        from ..handle import SessionHandle

        refuse_unknown(attributes, SessionAttributes)
        new = self._new_session(session_id, attributes)
        self._get_or_create(new)
        return SessionHandle(cast("SessionStore", self), new.session_id)

    def create(self, session_id: str, **attributes: Unpack[SessionAttributes]) -> SessionInfo:
        """Make a session. The arguments are those of `session`.

        Raises:
            ConflictError: There is a live session of this id.
        """
        refuse_unknown(attributes, SessionAttributes)
        new = self._new_session(session_id, attributes)
        return self._write(lambda db: queries.lifecycle.create(db, new))

    def get(self, session_id: str, *, touch: bool = False) -> SessionInfo | None:
        """What is known about a session; None if there is none, or if it has expired. With `touch` its life begins anew."""
        wanted = inputs.identifier("session_id", session_id)
        if inputs.flag("touch", touch):
            return self._write(lambda db: queries.lifecycle.touch_if_there(db, self.namespace, wanted))
        return self._read(lambda db: queries.sessions.find(db, self.namespace, wanted))

    def update(
        self,
        session_id: str,
        *,
        title: str | None | Unset = UNSET,
        metadata: Mapping[str, Any] | None | Unset = UNSET,
        tags: Iterable[str] | Unset = UNSET,
        user_id: str | None | Unset = UNSET,
        agent_id: str | None | Unset = UNSET,
        expected_version: int | None = None,
    ) -> SessionInfo:
        """Change attributes; what is not named stays, None clears, `tags` and `metadata` replace the old ones.

        Raises:
            NotFoundError: There is no such session.
            ConflictError: Its version is not `expected_version`: somebody changed it meanwhile.
        """
        wanted = inputs.identifier("session_id", session_id)
        version = inputs.optional_whole_number("expected_version", expected_version, least=1)
        values: dict[str, Any] = {}
        if not isinstance(title, Unset):
            values["title"] = inputs.short_text("title", title, max_chars=inputs.MAX_TITLE_CHARS)
        if not isinstance(metadata, Unset):
            # Decoded again, the dict cannot change until it is stored.
            text = inputs.metadata(metadata)
            values["metadata"] = None if text is None else decoded(text)
        for name, owner in (("user_id", user_id), ("agent_id", agent_id)):
            if not isinstance(owner, Unset):
                values[name] = inputs.optional_identifier(name, owner)
        new_tags = None if isinstance(tags, Unset) else inputs.tags(tags)
        if not values and new_tags is None:
            raise InvalidInputError("title", "or another attribute must be given: nothing would change")
        return self._write(
            lambda db: queries.changes.update(db, self.namespace, wanted, values, tags=new_tags, expected_version=version)
        )

    def end(
        self,
        session_id: str,
        status: EndStatus = "completed",
        *,
        quality_score: int | None | Unset = UNSET,
        error: str | None | Unset = UNSET,
    ) -> SessionInfo:
        """Say how a session ended.

        Args:
            session_id: An open session, one that was ended before, or one that has expired: a late end wins.
            status: "completed" or "failed".
            quality_score: 1 (very poor) to 5 (excellent).
            error: What went wrong, at most 10,000 characters.

        A repeated end keeps the score that it does not name, and a repeated failure its error; success clears the error. Later
        appends are stored and do not open it again;
        an ended session does not expire.
        """
        wanted = inputs.identifier("session_id", session_id)
        how = session_end(status, quality_score=quality_score, error=error)
        return self._write(lambda db: queries.lifecycle.end(db, self.namespace, wanted, how))

    def reopen(self, session_id: str) -> SessionInfo:
        """Go on with a session that was ended, without what its end told; an open one only begins its life anew.

        Raises:
            SessionExpiredError: It has expired.
            ConflictError: It is older than its `max_age`, and would expire at once.
        """
        wanted = inputs.identifier("session_id", session_id)
        return self._write(lambda db: queries.changes.reopen(db, self.namespace, wanted))

    def rename(self, session_id: str, new_session_id: str) -> SessionInfo:
        """Give a session another id.

        Raises:
            ConflictError: There is a live session of that id.
        """
        wanted = inputs.identifier("session_id", session_id)
        new_id = inputs.identifier("new_session_id", new_session_id)
        return self._write(
            lambda db: queries.changes.rename(db, self.namespace, wanted, new_id, on_expire=self._settings.on_expire)
        )

    def pin(self, session_id: str, pinned: bool = True) -> SessionInfo:
        """Spare a session: it does not expire and `prune` leaves it. With False its life begins anew.

        Raises:
            ConflictError: With False, if it is older than its `max_age` and would expire at once.
        """
        wanted = inputs.identifier("session_id", session_id)
        spared = inputs.flag("pinned", pinned)
        return self._write(lambda db: queries.changes.pin(db, self.namespace, wanted, pinned=spared))

    def archive(self, session_id: str, archived: bool = True) -> SessionInfo:
        """Take a session out of the usual lists and compress its messages, or take it back. It stays readable as it was.

        A long one takes several transactions, and is archived with the last one; one that was interrupted can be repeated.
        """
        wanted = inputs.identifier("session_id", session_id)
        away = inputs.flag("archived", archived)
        done = self._archive_part(wanted, away, 0)
        while isinstance(done, int):
            time.sleep(SWEEP_PAUSE)
            done = self._archive_part(wanted, away, done)
        return done

    def tag(self, session_id: str, *tags: str) -> SessionInfo:
        """Add tags; those that it has already stay."""
        wanted = inputs.identifier("session_id", session_id)
        added = inputs.tags(tags)
        return self._write(lambda db: queries.changes.retag(db, self.namespace, wanted, add=added))

    def untag(self, session_id: str, *tags: str) -> SessionInfo:
        """Remove tags; those that it does not have change nothing."""
        wanted = inputs.identifier("session_id", session_id)
        removed = inputs.tags(tags)
        return self._write(lambda db: queries.changes.retag(db, self.namespace, wanted, remove=removed))

    def tags(self) -> dict[str, int]:
        """How many sessions have each tag."""
        return self._read(lambda db: queries.catalog.tag_counts(db, self.namespace))

    def namespaces(self) -> tuple[str, ...]:
        """The namespaces of this file that have sessions."""
        return self._read(lambda db: queries.catalog.namespaces(db))  # noqa: PLW0108 - loaded by the thread that reads

    def list(self, *, limit: int = 50, cursor: str | None = None, **filters: Unpack[SessionFilters]) -> Page[SessionInfo]:
        """One page of sessions, last changed first, without their messages.

        Args:
            limit: 1 to 1,000.
            cursor: The `next_cursor` of the page before, from a call with the same filters.
            filters: `agent_id`, `user_id`, `status`, `tag`, `metadata`, `since`, `until`, `text`, `pinned`, `archived`
                (see `SessionFilters`). Archived sessions are left out unless they or expired ones are asked for.

        Raises:
            InvalidInputError: The cursor is damaged or belongs to other filters.
        """
        wanted = self._filter(filters)
        most = inputs.whole_number("limit", limit, least=1, most=inputs.MAX_PAGE)
        if cursor is not None and not isinstance(cursor, str):
            raise InvalidInputError("cursor", "must be the next_cursor of a page")
        return self._read(lambda db: queries.catalog.page(db, wanted, limit=most, cursor=cursor))

    def count(self, **filters: Unpack[SessionFilters]) -> int:
        """How many sessions `list` would show with these filters."""
        wanted = self._filter(filters)
        return self._read(lambda db: queries.catalog.count(db, wanted))

    def delete(
        self, session_ids: str | Iterable[str] | None = None, *, dry_run: bool = False, **filters: Unpack[SessionFilters]
    ) -> hints.DeleteReceipt:
        """Delete one session, several, or all that filters choose, with their messages and tags.

        Args:
            session_ids: One id or several; ids that are not there are reported, not refused.
            dry_run: Only tell what would be deleted.
            filters: Those of `list`; archived sessions are included unless `archived` says otherwise. Give either ids or filters.
        """
        namespace = self.namespace
        only_tell = inputs.flag("dry_run", dry_run)
        refuse_unknown(filters, SessionFilters)
        wanted = session_filter(namespace, **filters)
        if (session_ids is None) == wanted.chooses_all:
            raise InvalidInputError("session_ids", "give either ids or at least one filter")
        if session_ids is None:
            return self._write(Freeing(lambda db: queries.changes.delete_filtered(db, wanted, dry_run=only_tell)))
        given = (session_ids,) if isinstance(session_ids, str) else several("session_ids", session_ids)
        ids = tuple(inputs.identifier("session_ids", one) for one in given)
        return self._write(Freeing(lambda db: queries.changes.delete(db, namespace, ids, dry_run=only_tell)))

    def _archive_part(self, session_id: str, archived: bool, after: int) -> SessionInfo | int:
        namespace, over = self.namespace, self._settings.compress_over
        return self._write(
            lambda db: queries.changes.archive(db, namespace, session_id, archived=archived, after=after, compress_over=over)
        )

    def _new_session(self, session_id: str, attributes: SessionAttributes) -> NewSession:
        settings = self._settings
        given: SessionAttributes = {"ttl": settings.ttl, "max_age": settings.max_age}
        given.update(attributes)
        return new_session(settings.namespace, session_id, on_expire=settings.on_expire, **given)

    def _get_or_create(self, new: NewSession) -> SessionInfo:
        return self._read_or_write(
            lambda db: queries.sessions.find(db, new.namespace, new.session_id),
            lambda db: queries.lifecycle.get_or_create(db, new),
        )

    def _filter(self, filters: SessionFilters) -> SessionFilter:
        refuse_unknown(filters, SessionFilters)
        # What expired may have been archived on the way, and is asked for by name.
        shown: SessionFilters = {} if filters.get("status") == EXPIRED_STATUS else {"archived": False}
        shown.update(filters)
        return session_filter(self.namespace, **shown)
