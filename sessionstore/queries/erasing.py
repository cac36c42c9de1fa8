"""Erasing sessions: their rows and all that names them elsewhere, and who else still holds their messages.

Sessions of one name are its lives: one that holds the name, and earlier ones that expired. Where only some lives of a name are
erased, what names them elsewhere is told apart by its time.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal, NamedTuple

import sqlalchemy as sa

from .. import sql
from ..arguments import SessionFilter
from ..database.transaction import Transaction
from ..errors import ConflictError
from ..inputs import encode_json
from ..remote import events
from ..values import EXPIRED_STATUS, MAX_SEQ
from . import (
    blobs,
    catalog,
    checkpoint_rows,
    erasing_kin,
    erasing_traces,
    lineage,
    message_rows,
    outbox,
    removal,
    search_index,
    subscription,
)
from .dialect import as_stored, in_json
from .erasing_traces import Span
from .tables import HOLDS_NAME, RANGES, SESSIONS

Forks = Literal["raise", "erase", "keep"]

_SHOWN: Final = 5
_FIRST, _LAST = "", "~"
_USER_SCOPE: Final = "user"


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What is to be erased.

    Attributes:
        namespace: Where.
        session_ids: All lives of these names; or else what the filter chooses.
        filter: Expired ones are chosen, too, unless it names a status.
        user_id: A user of whom everything is to go.
        forks: What becomes of forks that were not chosen.
        tell: Whether the remote is told, if there is one.
        dry_run: Whether all is undone in the end.
    """

    namespace: str
    session_ids: tuple[str, ...] | None
    filter: SessionFilter
    user_id: str | None
    forks: Forks
    tell: bool
    dry_run: bool


class Life(NamedTuple):
    """A session that is to go; its beginning is a stored text."""

    key: int
    session_id: str
    created_at: str
    messages: int
    parent_key: int | None
    forked_at: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Erased:
    """What was erased, and the names of the sessions that hold messages of it still: forks, and others.

    With `dry_run` forks may be in the way: they would be a refusal.
    """

    session_ids: tuple[str, ...]
    missing: tuple[str, ...]
    messages: int
    superseded: int
    checkpoints: int
    blobs: int
    events: int
    metrics: int
    activity: int
    told_remote: bool
    untold: tuple[str, ...]
    forks_kept: tuple[str, ...]
    forks_in_the_way: tuple[str, ...]
    shared_with: tuple[str, ...]
    reasons: tuple[str, ...]


def erase(db: Transaction, choice: Choice) -> Erased:
    """Erase sessions from all tables, in one transaction; with `dry_run` it is undone.

    Raises:
        ConflictError: They have forks, and nothing was said about these. A dry run names them instead.
    """
    if not choice.dry_run:
        return _erase(db, choice)
    db.driver.execute("SAVEPOINT erasing")
    try:
        return _erase(db, choice)
    finally:
        db.driver.execute("ROLLBACK TO erasing")
        db.driver.execute("RELEASE erasing")
        db.enqueued = False


def _erase(db: Transaction, choice: Choice) -> Erased:
    lives = _lives(db, _chosen(db, choice))
    forks = _forks(db, lives)
    if forks and choice.forks == "raise" and not choice.dry_run:
        raise _refusal(lives, forks)
    if choice.forks == "erase":
        lives += _lives(db, forks)
        forks = {}
    lives.sort()
    asked = choice.session_ids or ()
    gone = () if choice.user_id is None else erasing_traces.names_of_user(db, choice.namespace, choice.user_id)
    names = tuple(dict.fromkeys([*(life.session_id for life in lives), *asked, *gone]))
    spans, partly = _spans(db, choice.namespace, lives, names)
    checkpoints = checkpoint_rows.count_checkpoints(db, [life.key for life in lives])
    superseded, sharing = _remove(db, lives)
    is_clean = _clean_index(db, {life.key for life in lives})
    traces = erasing_traces.remove(
        db, choice.namespace, names, spans, begun={life.created_at for life in lives}, user_id=choice.user_id
    )
    erasing_traces.forget_copies(db, [life.key for life in lives])
    if choice.user_id is not None:
        db.driver.execute(sql.DELETE_STATE, (choice.namespace, _USER_SCOPE, choice.user_id))
    forgotten = [name for name in dict.fromkeys((*names, *traces.former_names)) if name not in partly]
    is_wanted = choice.tell and subscription.is_wanted(db)
    if told := is_wanted and bool(forgotten):
        outbox.enqueue(db, [events.erased(choice.namespace, name, db.now) for name in forgotten])
    there = {life.session_id for life in lives}
    shared_with = tuple(sorted(sharing - set(forks.values()) - there))
    named = tuple(sorted(set(forks.values())))
    in_the_way = named if choice.forks == "raise" else ()
    return Erased(
        session_ids=tuple(dict.fromkeys(life.session_id for life in lives)),
        missing=tuple(name for name in asked if name not in there),
        messages=sum(life.messages for life in lives),
        superseded=superseded,
        checkpoints=checkpoints,
        blobs=blobs.collect_all(db),
        events=traces.events,
        metrics=traces.metrics,
        activity=traces.activity,
        told_remote=told,
        untold=tuple(sorted(partly)) if is_wanted else (),
        forks_kept=() if in_the_way else named,
        forks_in_the_way=in_the_way,
        shared_with=shared_with,
        reasons=tuple(_reasons(named, shared_with, is_refused=bool(in_the_way), is_clean=is_clean)),
    )


def _chosen(db: Transaction, choice: Choice) -> Mapping[int, str]:
    """The keys and names of the sessions."""
    if choice.session_ids is not None:
        return {key: name for key, name, _ in _of_names(db, choice.namespace, choice.session_ids)}
    found = catalog.keys(db, choice.filter)
    if choice.filter.status is None:
        found += catalog.keys(db, replace(choice.filter, status=EXPIRED_STATUS))
    return dict(found)


def _lives(db: Transaction, keys: Iterable[int]) -> list[Life]:
    columns = (SESSIONS.c[name] for name in ("session_key", "session_id", "created_at", "message_count", "parent_key", "forked_at"))
    found = sa.select(*(as_stored(column) for column in columns)).where(in_json(SESSIONS.c.session_key, encode_json(sorted(keys))))
    return [Life(*row) for row in db.core.execute(found)]


def _of_names(db: Transaction, namespace: str, names: Sequence[str]) -> list[tuple[int, str, str]]:
    """The keys, names and beginnings of all sessions of some names, in the order in which they began."""
    found: list[tuple[int, str, str]] = []
    named = sa.and_(SESSIONS.c.namespace == namespace, in_json(SESSIONS.c.session_id, encode_json(list(names))))
    # Each half has an index of its own.
    for half in (HOLDS_NAME, SESSIONS.c.status == sa.literal_column("'expired'")):
        columns = (SESSIONS.c.session_key, SESSIONS.c.session_id, as_stored(SESSIONS.c.created_at))
        found += [(key, name, began) for key, name, began in db.core.execute(sa.select(*columns).where(named, half))]
    return sorted(found, key=lambda each: (each[2], each[0]))


def _forks(db: Transaction, lives: Sequence[Life]) -> dict[int, str]:
    """The keys and names of the sessions that descend from others, or read their rows, and that are none of them."""
    reached = frontier = {life.key for life in lives}
    forks: dict[int, str] = {}
    columns = (SESSIONS.c.session_key, SESSIONS.c.session_id)
    while frontier:
        keys = encode_json(sorted(frontier))
        reads = sa.select(RANGES.c.session_key).where(in_json(RANGES.c.owner_key, keys))
        found: dict[int, str] = {}
        # Each has an index of its own.
        for condition in (in_json(SESSIONS.c.parent_key, keys), SESSIONS.c.session_key.in_(reads)):
            found.update((key, name) for key, name in db.core.execute(sa.select(*columns).where(condition)))
        frontier = found.keys() - reached
        reached = reached | frontier
        forks.update({key: found[key] for key in frontier})
    return forks


def _refusal(lives: Sequence[Life], forks: Mapping[int, str]) -> ConflictError:
    names = _written(sorted(set(forks.values())))
    first = min(lives).session_id
    who = f"session {first!r} was" if len(lives) == 1 else "some of these sessions were"
    how = 'forks="erase" erases these, too; forks="keep" leaves them the messages that they share'
    return ConflictError(first, f"{who} forked: {names}; {how}. Nothing was erased")


def _spans(
    db: Transaction, namespace: str, lives: Sequence[Life], names: Sequence[str]
) -> tuple[dict[str, list[Span]], frozenset[str]]:
    """When each name meant what is to go, and the names that have lives which stay."""
    going = {life.key for life in lives}
    lives_of: dict[str, list[tuple[int, str]]] = {}
    for key, name, began in _of_names(db, namespace, names):
        lives_of.setdefault(name, []).append((key, began))
    spans: dict[str, list[Span]] = {}
    for name, every in lives_of.items():
        if all(key in going for key, _ in every):
            continue
        begins = [_FIRST, *(began for _, began in every[1:])]
        ends = [*begins[1:], _LAST]
        spans[name] = [Span(*span) for (key, _), *span in zip(every, begins, ends, strict=True) if key in going]
    return spans, frozenset(spans)


def _remove(db: Transaction, lives: Sequence[Life]) -> tuple[int, set[str]]:
    """Remove sessions; how many superseded messages they had, and the names of those that hold messages of theirs still."""
    shared: list[lineage.Piece] = []
    superseded = 0
    holders = erasing_kin.holders(db, [life.key for life in lives])
    for life in reversed(lives):
        # Forks go before what they were forked from: then nothing is kept for them.
        shared += lineage.inherited(db, life.key)
        superseded += message_rows.discard_superseded(db, life.key)
        removal.remove(db, life.key)
    for piece in shared:
        if lineage.count(db, piece):
            readers = db.driver.execute(sql.SHARED_RANGES, (piece.owner, piece.first, piece.last)).fetchall()
            holders.update((piece.owner, *(reader for reader, _, _ in readers)))
    holders.update(life.parent_key for life in lives if life.parent_key is not None and _holds(db, life.parent_key, life.forked_at))
    found = sa.select(SESSIONS.c.session_id).where(in_json(SESSIONS.c.session_key, encode_json(sorted(holders))))
    return superseded, set(db.core.execute(found).scalars())


def _holds(db: Transaction, parent_key: int, forked_at: int | None) -> bool:
    """Whether a session holds messages that a fork of it began with, also if the fork had copies."""
    if not forked_at or not db.driver.execute(sql.HAS_SESSION, (parent_key,)).fetchall():
        return False
    return any(lineage.count(db, piece) for piece in lineage.pieces(db, parent_key, 1, forked_at))


def _clean_index(db: Transaction, keys: Iterable[int]) -> bool:
    """Begin the search index anew if it still has words of rows that are gone; False if this SQLite cannot."""
    if search_index.is_out_of_reach(db):
        return False
    bounds = ((message_rows.first_id(key), message_rows.first_id(key) + MAX_SEQ + 1) for key in keys)
    if any(search_index.has_strays(db, after, before) for after, before in bounds):
        # A row was damaged: by other words than those that went in, nothing goes out.
        search_index.begin_anew(db)
    return True


def _reasons(forks: Sequence[str], shared_with: Sequence[str], *, is_refused: bool, is_clean: bool) -> Iterable[str]:
    if is_refused:
        yield f"forks are in the way, so that nothing would be erased: {_written(forks)}"
    elif forks:
        yield f"forks keep the messages that they share: {_written(forks)}"
    if shared_with:
        yield f"messages that were shared are also those of: {_written(shared_with)}"
    if not is_clean:
        yield "this SQLite was built without FTS5 and cannot take the words out of the search index"


def _written(names: Sequence[Any]) -> str:
    shown = ", ".join(map(repr, names[:_SHOWN]))
    return shown if len(names) <= _SHOWN else f"{shown} and {len(names) - _SHOWN} more"
