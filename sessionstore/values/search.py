"""What a search found."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from . import Page


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchHit:
    """A message that a search found.

    Attributes:
        session_id: Its session. A message that forks share is one hit, of the oldest session that the filters leave.
        seq: Its place in the session.
        kind: The word "message", or the type of an item.
        snippet: The piece of its text around what was found; "…" stands where something is left out.
        highlights: Where in the snippet the words stand, as (start, end).
        rank: How well it fits, smaller is better; None where the order does not come from it.
        title: The session's, as are `tags`, `agent_id` and `user_id`.
    """

    session_id: str
    seq: int
    role: str | None
    kind: str
    created_at: datetime
    snippet: str = field(repr=False)
    highlights: tuple[tuple[int, int], ...] = field(repr=False)
    rank: float | None
    title: str | None = field(repr=False)
    tags: tuple[str, ...]
    agent_id: str | None
    user_id: str | None


@dataclass(frozen=True, slots=True)
class SearchPage(Page[SearchHit]):
    """Some of the hits.

    Attributes:
        not_indexed: How many messages the search did not look at, because they are not in the index yet.
    """

    not_indexed: int = 0
