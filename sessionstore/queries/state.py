"""State: named JSON values of a session, of its user and of its application. The hot path: compiled SQL only.

Values of a session belong to its key, so that they survive a new name and go with the session. Those of a user belong to the
`user_id` and those of an application to the `agent_id` within the namespace, whatever sessions there are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, NamedTuple

from .. import sql
from ..content import decoded
from ..database.transaction import Transaction
from ..errors import ConflictError, InvalidInputError, NotFoundError, QuotaError
from ..inputs import encode_json, exact_number
from ..values import STATE_SCOPES, SessionInfo
from . import sessions

# JSON texts by name, by scope.
ValuesByScope = Mapping[str, Mapping[str, str]]

# All values of one owner together, with their names.
MAX_BYTES: Final = 4 << 20
_SESSION, _, _APP = STATE_SCOPES


class Place(NamedTuple):
    """Whose state a session sees.

    Attributes:
        key: The session's key, which owns its own state.
        user_id: Who owns the user's.
        agent_id: Which application owns the application's; "" for sessions without one.
    """

    session_id: str
    namespace: str
    key: int
    user_id: str | None
    agent_id: str

    def owner(self, scope: str) -> str:
        """The owner of the values of a scope.

        Raises:
            InvalidInputError: The scope is "user", and the session has none.
        """
        if scope == _APP:
            return self.agent_id
        if scope == _SESSION:
            return str(self.key)
        if self.user_id is None:
            raise InvalidInputError("scope", f'"user" is for sessions with a user_id, and session {self.session_id!r} has none')
        return self.user_id


class StoredValue(NamedTuple):
    """A value as it stands in the table: its JSON text, and the stored instant of its last change."""

    name: str
    value: str
    updated_at: str


def place_of(db: Transaction, namespace: str, session_id: str) -> Place:
    """Whose state a live session sees.

    Raises:
        NotFoundError: There is no such session.
    """
    rows = db.driver.execute(sql.FIND_SESSION, (namespace, session_id, db.now_text)).fetchall()
    if not rows:
        raise NotFoundError(session_id)
    return seen_by(rows[0][sessions.KEY], sessions.info(rows[0], ()))


def to_change(db: Transaction, namespace: str, session_id: str) -> Place:
    """As `place_of`, for a session whose state is about to be changed.

    Raises:
        NotFoundError: There is no such session.
        SessionExpiredError: Its life is over.
    """
    return seen_by(*sessions.to_change(db, namespace, session_id))


def seen_by(key: int, info: SessionInfo) -> Place:
    """Whose state a session sees that was found already."""
    return Place(info.session_id, info.namespace, key, info.user_id, info.agent_id or "")


def merged_texts(db: Transaction, place: Place) -> dict[str, str]:
    """All that a session sees, as JSON texts: its own values over its user's over its application's."""
    owners = (place.agent_id, place.user_id, str(place.key))
    given = [each for owner in owners for each in (place.namespace, owner)]
    return dict(db.driver.execute(sql.MERGED_STATE, given).fetchall())


def texts_of(db: Transaction, place: Place, scope: str) -> dict[str, str]:
    """The values of one scope, as JSON texts."""
    return {stored.name: stored.value for stored in of(db, place.namespace, scope, place.owner(scope))}


def put(db: Transaction, place: Place, scope: str, values: Mapping[str, str], expected: Mapping[str, Any] | None = None) -> None:
    """Set values, given as JSON texts; others stay.

    Args:
        db: The transaction.
        place: Whose state it is.
        scope: Which part of it.
        values: What to set.
        expected: What values must be before; None also stands for a value that is not there.

    Raises:
        ConflictError: A value is not what was expected.
        QuotaError: The owner would have too much.
    """
    owner = place.owner(scope)
    require_expected(place, expected or {}, lambda name: _value(db, place, scope, owner, name))
    put_rows(db, place.namespace, scope, owner, (StoredValue(name, value, db.now_text) for name, value in values.items()))


def put_rows(db: Transaction, namespace: str, scope: str, owner: str, values: Iterable[StoredValue]) -> None:
    """Set values of an owner, as they come from another store.

    Raises:
        QuotaError: The owner would have too much.
    """
    db.driver.executemany(sql.PUT_STATE, [(namespace, scope, owner, *value) for value in values])
    check_room(db, namespace, scope, owner)


def increment(db: Transaction, place: Place, scope: str, name: str, by: int | float) -> int | float:
    """Add to a number, which is 0 where there is none, and return the sum.

    Raises:
        ConflictError: The value is no number.
        InvalidInputError: The sum is none that JSON has, or beyond 64 bits.
        QuotaError: The owner would have too much.
    """
    owner = place.owner(scope)
    if isinstance(by, int):
        row = (place.namespace, scope, owner, name, str(by), db.now_text, by, by)
        if rows := db.driver.execute(sql.ADD_TO_STATE, row).fetchall():
            check_room(db, place.namespace, scope, owner)
            return int(rows[0][0])
    # SQLite writes a number that has a fraction with too few digits. Nobody else writes while this transaction does.
    total = sum_of(place, name, _value(db, place, scope, owner, name), by)
    put_rows(db, place.namespace, scope, owner, (StoredValue(name, encode_json(total), db.now_text),))
    return total


def sum_of(place: Place, name: str, stored: str | None, by: int | float) -> int | float:
    """The sum of a stored number, or 0 for None, and another one.

    Raises:
        ConflictError: The stored value is no number.
        InvalidInputError: The sum is none that JSON has, or beyond 64 bits.
    """
    value = 0 if stored is None else decoded(stored)
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise ConflictError(place.session_id, f"the state {name!r} of session {place.session_id!r} is no number")
    return exact_number("value", value + by)


def require_expected(place: Place, expected: Mapping[str, Any], stored: Callable[[str], str | None]) -> None:
    """Check that values are what a caller takes them for; None also stands for a value that is not there.

    Raises:
        ConflictError: One is not.
    """
    for name, wanted in expected.items():
        found = stored(name)
        if (None if found is None else decoded(found)) != wanted:
            session_id = place.session_id
            raise ConflictError(session_id, f"the state {name!r} of session {session_id!r} is another one; read it and try again")


def require_room(size_bytes: int) -> None:
    """Check the size of all values of an owner.

    Raises:
        QuotaError: They are too large together.
    """
    if size_bytes > MAX_BYTES:
        raise QuotaError(f"the state of one owner holds at most {MAX_BYTES} bytes", limit=MAX_BYTES)


def delete(db: Transaction, place: Place, scope: str, names: Iterable[str]) -> int:
    """Delete values, and return how many were there."""
    owner = place.owner(scope)
    return sum(
        db.driver.execute(sql.DELETE_STATE_VALUE, (place.namespace, scope, owner, name)).rowcount for name in dict.fromkeys(names)
    )


def of(db: Transaction, namespace: str, scope: str, owner: str) -> list[StoredValue]:
    """All values of an owner, by name. A session's owner is its key as a text."""
    return [StoredValue(*row) for row in db.driver.execute(sql.STATE_OF, (namespace, scope, owner)).fetchall()]


def discard(db: Transaction, namespace: str, scope: str, owner: str) -> int:
    """Delete all values of an owner, and return how many they were."""
    return db.driver.execute(sql.DELETE_STATE, (namespace, scope, owner)).rowcount


def copy(db: Transaction, from_key: int, to_key: int) -> None:
    """Let a session that has no state begin with a copy of another one's own state; both are in one namespace."""
    db.driver.execute(sql.COPY_STATE, (to_key, from_key, from_key))


def has_session(db: Transaction, key: int) -> bool:
    """Whether there is a session of a key."""
    return bool(db.driver.execute(sql.HAS_SESSION, (key,)).fetchall())


def _value(db: Transaction, place: Place, scope: str, owner: str, name: str) -> str | None:
    rows = db.driver.execute(sql.STATE_VALUE, (place.namespace, scope, owner, name)).fetchall()
    return rows[0][0] if rows else None


def check_room(db: Transaction, namespace: str, scope: str, owner: str) -> None:
    """Check the size of all that an owner has.

    Raises:
        QuotaError: It is too much.
    """
    ((size_bytes,),) = db.driver.execute(sql.STATE_SIZE, (namespace, scope, owner)).fetchall()
    require_room(size_bytes)
