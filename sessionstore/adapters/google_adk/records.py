"""What the store does for the session service: work in one transaction each, in terms of names and JSON."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from pydantic_core import from_json

from ... import clock, queries
from ...arguments import NewSession
from ...content import decoded
from ...database.transaction import Transaction
from ...errors import NotFoundError
from ...inputs import encode_json
from ...queries.metrics import Figure
from ...queries.state import ValuesByScope
from ...rows import PreparedMessage
from ...values import MAX_SEQ, SEQ_BITS, Message, SessionInfo
from .events import EVENT_KIND, Json
from .histories import texts_of
from .names import Name, name_prefix, parts_of

APP_PREFIX: Final = "app:"
USER_PREFIX: Final = "user:"
# As an agent of `sessionstore.chat` tells of its own.
_FAILED: Final = "turn.failed"
_MICROSECOND: Final = 1e-6
# Text, as on the hot path: the tables of SQLAlchemy would double the time that a program takes to start.
_LISTED: Final = (
    "s.namespace = :namespace AND s.agent_id = :app_name AND s.user_id {} :user_id AND s.status != 'expired' "
    "AND (s.expires_at IS NULL OR s.expires_at > :now)"
)
# The instant is that of the last message of its own.
_LIST: Final = f"""
SELECT s.session_key, s.session_id, s.user_id, s.created_at, s.updated_at, s.next_seq, s.message_count,
CASE WHEN s.next_seq > 1 THEN (
    SELECT m.created_at FROM messages m
    WHERE m.id > (s.session_key << {SEQ_BITS}) AND m.id <= (s.session_key << {SEQ_BITS} | {MAX_SEQ}) ORDER BY m.id DESC LIMIT 1
) END FROM sessions s WHERE {_LISTED}"""  # noqa: S608 - put together from constants only
_STATE_OF_SESSIONS: Final = (
    "SELECT v.owner, v.name, v.value FROM sessions s CROSS JOIN state_values v ON v.namespace = s.namespace "  # noqa: S608 - as above
    f"AND v.scope = 'session' AND v.owner = CAST(s.session_key AS TEXT) WHERE {_LISTED}"
)
_STATE_OF_USERS: Final = (
    "SELECT v.owner, v.name, v.value FROM (SELECT DISTINCT s.namespace, s.user_id FROM sessions s "  # noqa: S608 - as above
    f"WHERE {_LISTED}) s CROSS JOIN state_values v ON v.namespace = s.namespace AND v.scope = 'user' AND v.owner = s.user_id"
)


class Record(NamedTuple):
    """A session as ADK sees it.

    Attributes:
        state: All that it sees, with ADK's prefixes.
        updated_at: When its last event happened, in seconds; or when it was made.
        marker: Another one after each change of its messages, and for another session of the same name.
        messages: Those of its events, and maybe some that are none; see `histories.texts_of`.
    """

    name: Name
    state: Json
    updated_at: float
    marker: str
    messages: Sequence[Message] = ()


class Wanted(NamedTuple):
    """Which events of a session are asked for: the newest so many of those that did not happen earlier."""

    last: int | None = None
    since: float | None = None


class Seen(NamedTuple):
    """What a caller has of a session: its marker, or, where it was not loaded, its time and its last event."""

    marker: str | None
    updated_at: float
    last_event_id: str | None


class Appended(NamedTuple):
    """What became of an event.

    Attributes:
        marker: The session's, with the event; None if others appended behind it.
        is_new: Whether it was not there before.
    """

    marker: str | None
    is_new: bool


class StaleError(Exception):
    """What a caller has of a session is not what is stored."""


def create(db: Transaction, new: NewSession, name: Name, values: ValuesByScope) -> Record:
    """Make a session with its first state.

    Raises:
        ConflictError: There is one.
    """
    info = queries.lifecycle.create(db, new)
    place = queries.state.to_change(db, new.namespace, new.session_id)
    for scope, texts in values.items():
        queries.state.put(db, place, scope, texts)
    return Record(name, _state(db, place, name.app_name), info.created_at.timestamp(), _marker(info))


def load(db: Transaction, namespace: str, name: Name, wanted: Wanted) -> Record | None:
    """A session with its events; None if there is none."""
    info = queries.sessions.find(db, namespace, name.stored_id)
    if info is None or not _is_of(info, name):
        return None
    messages = [] if wanted.last == 0 else _messages(db, info, wanted)
    state = _state(db, queries.state.place_of(db, namespace, name.stored_id), name.app_name)
    return Record(name, state, _updated_at(db, info), _marker(info), messages)


def listed(db: Transaction, namespace: str, app_name: str, user_id: str | None) -> Iterator[Record]:
    """The sessions of an application, or of one of its users, without their events; made one by one of what is read at once."""
    wanted = {"namespace": namespace, "app_name": app_name, "user_id": user_id, "now": db.now_text}
    of_user = "IS NOT" if user_id is None else "="
    rows = db.driver.execute(_LIST.format(of_user), wanted).fetchall()
    of_app = _prefixed(APP_PREFIX, {each.name: decoded(each.value) for each in queries.state.of(db, namespace, "app", app_name)})
    found = _by_owner(db, _STATE_OF_USERS.format(of_user), wanted)
    of_users = {user: _prefixed(USER_PREFIX, _of_app(theirs, app_name)) for user, theirs in found.items()}
    of_sessions = _by_owner(db, _STATE_OF_SESSIONS.format(of_user), wanted)

    def made() -> Iterator[Record]:
        for key, session_id, user, created_at, updated_at, next_seq, count, last_written in rows:
            name = parts_of(session_id)
            if name is not None and (name.app_name, name.user_id) == (app_name, user):
                state = {**of_sessions.get(str(key), {}), **of_app, **of_users.get(user, {})}
                written_at = last_written or (updated_at if count else created_at)
                marker = f"{created_at} {next_seq - 1} {count}"
                yield Record(name, state, clock.from_text(written_at).timestamp(), marker)

    return made()


def state_of_user(db: Transaction, namespace: str, app_name: str, user_id: str) -> Json:
    """A user's values in an application, by their names without a prefix."""
    stored = queries.state.of(db, namespace, "user", user_id)
    return _of_app({each.name: decoded(each.value) for each in stored}, app_name)


def append(
    db: Transaction,
    namespace: str,
    name: Name,
    seen: Seen,
    new: Sequence[PreparedMessage],
    values: ValuesByScope,
    failure: str | None,
) -> Appended:
    """Store an event with the state that it changes, and a figure if it tells of a failure. One that is there changes nothing.

    Raises:
        NotFoundError: There is no such session.
        SessionExpiredError: Its life is over.
        StaleError: What the caller has of it is not what is stored.
        ConflictError: There is another event of the same id.
    """
    session_id = name.stored_id
    key, info = queries.sessions.to_change(db, namespace, session_id)
    if not _is_of(info, name):
        raise NotFoundError(session_id)
    identity = new[0].dedupe_key
    is_new = identity is None or not queries.messages.of_dedupe_key(db, key, identity, is_fork=info.forked_at is not None)
    if is_new:
        _require_fresh(db, info, seen)
    stored = queries.messages.append(db, namespace, session_id, new, values=values)
    if not is_new:
        return Appended(_marker(info) if stored[-1].seq == info.last_seq else None, is_new=False)
    if failure is not None:
        _note_failure(db, namespace, name, failure, stored[0].elapsed_ms)
    return Appended(_marker(info, more=len(stored)), is_new=True)


def delete(db: Transaction, namespace: str, name: Name) -> None:
    """Delete a session, if there is one."""
    info = queries.sessions.find(db, namespace, name.stored_id)
    if info is None or _is_of(info, name):
        queries.changes.delete(db, namespace, (name.stored_id,), dry_run=False)


def _is_of(info: SessionInfo, name: Name) -> bool:
    """Whether a session is of the user and the application that its id tells: a fork, for example, stays with its parent's."""
    return (info.agent_id, info.user_id) == (name.app_name, name.user_id)


def _require_fresh(db: Transaction, info: SessionInfo, seen: Seen) -> None:
    if seen.marker is not None:
        if seen.marker != _marker(info):
            raise StaleError
    elif _updated_at(db, info) > seen.updated_at + _MICROSECOND:
        # It was not loaded from here. Its clock is behind: it is good if it has the last event all the same.
        newest = [from_json(text)["id"] for text in texts_of(_messages(db, info, Wanted(last=1)), "")]
        if (newest[-1] if newest else None) != seen.last_event_id:
            raise StaleError


def _note_failure(db: Transaction, namespace: str, name: Name, code: str, elapsed_ms: float | None) -> None:
    """A turn that failed is counted; its session goes on."""
    attributes = encode_json({"error": code})
    told = Figure(_FAILED, elapsed_ms or 0.0, "ms", attributes, name.app_name, name.stored_id)
    queries.metrics.record(db, namespace, (told,))


def _messages(db: Transaction, info: SessionInfo, wanted: Wanted) -> list[Message]:
    """The messages of the wanted events, oldest first, and maybe a few more before them."""
    if wanted.last is None or wanted.since is not None:
        messages = queries.messages.read(db, info.namespace, info.session_id)
        return messages if wanted.since is None else _since(messages, wanted.since)
    most = wanted.last
    while True:
        # Results of their own follow their event, so that a page may begin with some whose event is not in it.
        messages = queries.messages.read(db, info.namespace, info.session_id, last=most)
        if sum(message.kind == EVENT_KIND for message in messages) >= wanted.last or len(messages) < most:
            return messages
        most *= 2


def _since(messages: Sequence[Message], since: float) -> list[Message]:
    """Those that may have happened at or after an instant; the column is rounded to microseconds."""
    return [message for message in messages if message.created_at.timestamp() > since - _MICROSECOND]


def _state(db: Transaction, place: queries.state.Place, app_name: str) -> Json:
    scopes = {scope: _values(queries.state.texts_of(db, place, scope)) for scope in ("session", "app", "user")}
    of_user = _of_app(scopes["user"], app_name)
    return {**scopes["session"], **_prefixed(APP_PREFIX, scopes["app"]), **_prefixed(USER_PREFIX, of_user)}


def _values(texts: Mapping[str, str]) -> Json:
    return {name: decoded(text) for name, text in texts.items()}


def _prefixed(prefix: str, values: Mapping[str, Any]) -> dict[str, Any]:
    return {prefix + name: value for name, value in values.items()}


def _of_app(values: Mapping[str, Any], app_name: str) -> Json:
    """Those of a user's values that are an application's, by their names there."""
    prefix = name_prefix(app_name)
    return {name.removeprefix(prefix): value for name, value in values.items() if name.startswith(prefix)}


def _by_owner(db: Transaction, statement: str, wanted: Mapping[str, Any]) -> dict[str, Json]:
    by_owner: dict[str, Json] = {}
    for owner, name, value in db.driver.execute(statement, wanted):
        by_owner.setdefault(owner, {})[name] = decoded(value)
    return by_owner


def _updated_at(db: Transaction, info: SessionInfo) -> float:
    newest: Sequence[Message] = ()
    if info.message_count:
        newest = queries.messages.read(db, info.namespace, info.session_id, last=1, blobs=False)
    return (newest[0].created_at if newest else info.created_at).timestamp()


def _marker(info: SessionInfo, *, more: int = 0) -> str:
    """What changes with each append, and with what takes messages out; a session made anew has another one."""
    return f"{clock.to_text(info.created_at)} {info.last_seq + more} {info.message_count + more}"
