"""The calls about state: named JSON values of a session, of its user, of its application, and of this open store only."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

from .. import inputs, queries
from ..config import StoreSettings
from ..content import decoded
from ..database.database import Database
from ..database.full_disk import Freeing
from ..database.transaction import Transaction
from ..errors import InvalidInputError
from ..inputs import encode_json
from ..queries.state import Place
from ..values import STATE_SCOPES, StateScope
from .calls import Calls

_TEMP = "temp"
_SCOPES = (*STATE_SCOPES, _TEMP)
# With values of so many sessions, those of sessions that are gone are looked for.
_MANY = 1_000


class TempState:
    """The values of the scope "temp": JSON texts by session key and name. They are never written anywhere."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._texts: dict[int, dict[str, str]] = {}
        self._many = _MANY

    def texts_of(self, key: int) -> dict[str, str]:
        """The values of a session, as JSON texts."""
        with self._lock:
            return dict(self._texts.get(key, {}))

    def put(self, db: Transaction, place: Place, values: Mapping[str, str], expected: Mapping[str, Any]) -> None:
        """As `queries.state.put`."""
        with self._lock:
            there = self._texts.get(place.key, {})
            queries.state.require_expected(place, expected, there.get)
            self._keep(db, place.key, {**there, **values})

    def increment(self, db: Transaction, place: Place, name: str, by: int | float) -> int | float:
        """As `queries.state.increment`."""
        with self._lock:
            there = self._texts.get(place.key, {})
            total = queries.state.sum_of(place, name, there.get(name), by)
            self._keep(db, place.key, {**there, name: encode_json(total)})
            return total

    def delete(self, db: Transaction, key: int, names: tuple[str, ...]) -> int:
        """Delete values of a session and return how many were there."""
        with self._lock:
            there = self._texts.get(key, {})
            left = {name: text for name, text in there.items() if name not in names}
            self._keep(db, key, left)
            return len(there) - len(left)

    def _keep(self, db: Transaction, key: int, texts: dict[str, str]) -> None:
        queries.state.require_room(sum(len(name.encode()) + len(text.encode()) for name, text in texts.items()))
        self._texts[key] = texts
        if not texts:
            del self._texts[key]
        if len(self._texts) > self._many:
            self._texts = {key: kept for key, kept in self._texts.items() if queries.state.has_session(db, key)}
            self._many = max(_MANY, 2 * len(self._texts))


class StateCalls(Calls):
    """State.

    Values are named, 1 to 256 printable characters, and are what JSON has. A `scope` says whose they are: "session" (they go with
    it), "user" (of all sessions of its `user_id`), "app" (of all sessions of its `agent_id`), or "temp" (of the session, in the
    memory of this open store: never in the file, and gone when it closes).
    """

    def __init__(
        self, database: Database, settings: StoreSettings, *, parent: Calls | None = None, user: object | None = None
    ) -> None:
        super().__init__(database, settings, parent=parent, user=user)
        self._temp: TempState = parent._temp if isinstance(parent, StateCalls) else TempState()  # noqa: SLF001 - the same store

    def state(self, session_id: str, *, scope: StateScope | None = None) -> dict[str, Any]:
        """The values that a session sees, by name.

        Args:
            session_id: A session that is there.
            scope: Only those of this scope. By default all: temp ones over the session's over its user's over its application's.

        Raises:
            NotFoundError: There is no such session, or it has expired.
            InvalidInputError: The scope is "user", and the session has no `user_id`.
        """
        wanted, part = inputs.identifier("session_id", session_id), _optional_scope(scope)
        return self._read(lambda db: {name: decoded(text) for name, text in sorted(self._texts_of(db, wanted, part).items())})

    def get_state(self, session_id: str, name: str, default: Any = None, *, scope: StateScope | None = None) -> Any:
        """One value of `state`, or the default if there is none."""
        wanted, part = inputs.identifier("session_id", session_id), _optional_scope(scope)
        named = inputs.identifier("name", name)

        def read(db: Transaction) -> Any:
            text = self._texts_of(db, wanted, part).get(named)
            return default if text is None else decoded(text)

        return self._read(read)

    def set_state(
        self,
        session_id: str,
        values: Mapping[str, Any],
        *,
        scope: StateScope = "session",
        expected: Mapping[str, Any] | None = None,
    ) -> None:
        """Set values, all or none; others stay, and None is a value.

        It does not count the session's version on and does not lengthen its life.

        Args:
            session_id: A session that is there.
            values: By name; at most 1 MiB of JSON in a call, and 4 MiB in a scope of one owner.
            scope: Whose they are to be.
            expected: What values of this scope must be now; None also stands for one that is not there.

        Raises:
            NotFoundError: There is no such session.
            SessionExpiredError: It has expired.
            ConflictError: A value is not what was expected.
            InvalidInputError: The scope is "user", and the session has no `user_id`.
            QuotaError: The owner would have more than 4 MiB.
        """
        wanted, part = inputs.identifier("session_id", session_id), inputs.choice("scope", scope, _SCOPES)
        texts = _texts("values", values)
        known = {} if expected is None else _checked("expected", expected)
        namespace = self._settings.namespace
        if part == _TEMP:
            return self._read(lambda db: self._temp.put(db, queries.state.to_change(db, namespace, wanted), texts, known))
        return self._write(lambda db: queries.state.put(db, queries.state.to_change(db, namespace, wanted), part, texts, known))

    def increment_state(self, session_id: str, name: str, by: int | float = 1, *, scope: StateScope = "session") -> int | float:
        """Add to a number, which is 0 where there is none, and return the sum. However many do so at once, nothing is lost.

        Raises:
            NotFoundError: There is no such session.
            SessionExpiredError: It has expired.
            ConflictError: The value is no number.
            InvalidInputError: The sum is beyond what JSON holds; or the scope is "user", and the session has no `user_id`.
            QuotaError: The owner would have more than 4 MiB.
        """
        wanted, part = inputs.identifier("session_id", session_id), inputs.choice("scope", scope, _SCOPES)
        named, amount = inputs.identifier("name", name), inputs.exact_number("by", by)
        namespace = self._settings.namespace
        if part == _TEMP:
            return self._read(lambda db: self._temp.increment(db, queries.state.to_change(db, namespace, wanted), named, amount))
        return self._write(
            lambda db: queries.state.increment(db, queries.state.to_change(db, namespace, wanted), part, named, amount)
        )

    def delete_state(self, session_id: str, *names: str, scope: StateScope = "session") -> int:
        """Delete values of a scope, and return how many were there.

        Raises:
            NotFoundError: There is no such session.
            SessionExpiredError: It has expired.
            InvalidInputError: The scope is "user", and the session has no `user_id`.
        """
        wanted, part = inputs.identifier("session_id", session_id), inputs.choice("scope", scope, _SCOPES)
        named = tuple(inputs.identifier("name", name) for name in names)
        namespace = self._settings.namespace
        if part == _TEMP:
            return self._read(lambda db: self._temp.delete(db, queries.state.to_change(db, namespace, wanted).key, named))
        return self._write(
            Freeing(lambda db: queries.state.delete(db, queries.state.to_change(db, namespace, wanted), part, named))
        )

    def _texts_of(self, db: Transaction, session_id: str, scope: str | None) -> dict[str, str]:
        place = queries.state.place_of(db, self._settings.namespace, session_id)
        if scope is not None and scope != _TEMP:
            return queries.state.texts_of(db, place, scope)
        temp = self._temp.texts_of(place.key)
        return temp if scope == _TEMP else {**queries.state.merged_texts(db, place), **temp}


def texts_by_scope(state: Mapping[StateScope, Mapping[str, Any]] | None) -> dict[str, dict[str, str]]:
    """The checked values of a call that sets state beside what else it does, as JSON texts.

    Raises:
        InvalidInputError: The scope "temp", which is in no transaction, or none that there is; a name or a value is refused.
    """
    if state is None:
        return {}
    if not isinstance(state, Mapping):
        raise InvalidInputError("state", "must be a dict of dicts: by scope, then by name")
    return {inputs.choice("state", scope, STATE_SCOPES): _texts(f"state.{scope}", values) for scope, values in state.items()}


def _texts(field: str, values: Mapping[str, Any]) -> dict[str, str]:
    return {inputs.identifier("name", name): encode_json(value) for name, value in _checked(field, values).items()}


def _optional_scope(scope: object) -> str | None:
    return None if scope is None else inputs.choice("scope", scope, _SCOPES)


def _checked(field: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """A dict as JSON has it, which its owner may change meanwhile."""
    found: dict[str, Any] = decoded(inputs.json_object(field, values, max_bytes=inputs.MAX_METADATA_BYTES))
    return found
