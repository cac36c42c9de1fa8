"""The calls that search messages, and those about the search index."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final, Literal, Unpack

from .. import hints, inputs, queries, search_terms
from ..arguments import SearchFilters, refuse_unknown, search_filter
from ..errors import DiskFullError, InvalidInputError, StoreBusyError, StoreCorruptError
from ..search_terms import Match, Terms
from ..values import SEARCH_MODES
from .calls import Calls

# What a search indexes before it looks, if that is missing: less than a second of work.
MOST_AT_ONCE: Final = 5_000
# Between two batches others get their turn.
INDEX_PAUSE: Final = 0.002


class SearchCalls(Calls):
    """Searching."""

    def search(
        self,
        query: str,
        *,
        match: Match = "words",
        order: Literal["rank", "newest"] = "rank",
        limit: int = 20,
        cursor: str | None = None,
        **filters: Unpack[SearchFilters],
    ) -> hints.SearchPage:
        """One page of the messages that hold all of some words, whatever their case and the accents of Latin letters.

        Only live sessions of this namespace are searched. Each stored message is one hit, also if forks share it. What was appended
        a moment ago is indexed first, up to 5,000 messages; `not_indexed` of the page says if more are missing.

        Args:
            query: Words as a user types them: nothing in them is syntax. Joined words ("foo-bar") are a phrase. Words of scripts
                without spaces (Chinese, Japanese, Thai ...) are found anywhere in a text. At most 1,000 characters and 32 words.
            match: "words" finds whole words, "prefix" also those that begin like them.
            order: "rank", the best fit first, or "newest": what stands in sessions that were changed last comes first, and of one
                session the newest message. What more than 20,000 messages hold has no rank: then the newest come first.
            limit: 1 to 1,000.
            cursor: The `next_cursor` of the page before, from the same search.
            filters: `session_id`, `agent_id`, `user_id`, `role`, `since`, `until`, `tag`, `metadata` (see `SearchFilters`).

        Raises:
            SearchUnavailableError: Search is off, or this SQLite has no full-text search.
            NotFoundError: There is no session of the id that is asked for.
        """
        terms = search_terms.parsed(query, match)
        return self._search(terms, (query, match), order=order, limit=limit, cursor=cursor, filters=filters)

    def search_raw(
        self,
        fts_query: str,
        *,
        order: Literal["rank", "newest"] = "rank",
        limit: int = 20,
        cursor: str | None = None,
        **filters: Unpack[SearchFilters],
    ) -> hints.SearchPage:
        """As `search`, with a query in the syntax of SQLite's FTS5: AND, OR, NOT, NEAR, phrases, prefixes. Its column is `words`.

        Scripts without spaces are not in this index; `search` finds them.

        Raises:
            InvalidInputError: FTS5 refuses the query.
        """
        terms = search_terms.raw(fts_query)
        return self._search(terms, (fts_query,), order=order, limit=limit, cursor=cursor, filters=filters)

    def set_search(self, mode: Literal["on", "deferred", "off"]) -> None:
        """Say when messages are indexed; the file keeps it.

        Args:
            mode: "deferred", the default: appending pays nothing; the background or the next search indexes. "on": an append
                indexes in its own transaction. "off": nothing is indexed and nothing can be searched; the index is emptied, which
                takes seconds if it is large.

        Raises:
            SearchUnavailableError: This SQLite has no full-text search.
        """
        wanted = inputs.choice("mode", mode, SEARCH_MODES)
        self._write(lambda db: queries.search_index.switch(db, wanted))

    def rebuild_search(self, *, progress: Callable[[int, int | None], object] | None = None) -> int:
        """Index all messages anew, in batches between which others write. If it is interrupted, the background or a search goes on.

        Args:
            progress: Called with the messages indexed so far and all that there are, roughly.

        Returns:
            How many messages it indexed, roughly: those that others indexed meanwhile are not counted.

        Raises:
            SearchUnavailableError: Search is off, or this SQLite has no full-text search.
        """
        self._write(queries.search_index.rebuild)
        total = self._read(queries.search_index.missing)
        done = 0
        while met := self._index_batch():
            done = min(done + met, total)
            if progress is not None:
                progress(done, total)
            time.sleep(INDEX_PAUSE)
        return done

    def _search(
        self, terms: Terms, told: tuple[str, ...], *, order: str, limit: int, cursor: str | None, filters: SearchFilters
    ) -> hints.SearchPage:
        refuse_unknown(filters, SearchFilters)
        where = search_filter(self.namespace, **filters)
        most = inputs.whole_number("limit", limit, least=1, most=inputs.MAX_PAGE)
        wanted = queries.searching.Matches(terms, told, inputs.choice("order", order, queries.searching.ORDERS))
        if cursor is not None and not isinstance(cursor, str):
            raise InvalidInputError("cursor", "must be the next_cursor of a page")
        can_index = self._index_missing()
        return self._read(lambda db: queries.searching.page(db, wanted, where, limit=most, cursor=cursor, scan=not can_index))

    def _index_missing(self) -> bool:
        """Index what is missing, up to a limit; False if this store cannot write now."""
        if not self._read(queries.search_index.is_behind):
            return True
        if self._settings.read_only or self._database.read_only:
            return False
        met = 0
        try:
            while met < MOST_AT_ONCE and (batch := self._index_batch()):
                met += batch
        except (StoreBusyError, DiskFullError):
            return False
        return True

    def _index_problem(self) -> str | None:
        """What SQLite finds wrong with the index as such; it tells that to a writer only."""
        if self._settings.read_only or self._database.read_only:
            return None
        try:
            self._write(queries.search_index.check)
        except StoreCorruptError as error:
            return str(error)
        except (StoreBusyError, DiskFullError):
            return None
        return None

    def _index_batch(self) -> int:
        """Index some of the messages that are missing; 0 if none are."""
        return self._write(queries.search_index.index_some)

    def _is_behind(self) -> bool:
        """Whether there may be messages to index."""
        return self._read(queries.search_index.is_behind)
