"""SessionHandle: the calls of a store, bound to one session."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, Concatenate, Generic, Literal, ParamSpec, TypeVar

from . import hints
from .store import SessionStore

P = ParamSpec("P")
T = TypeVar("T")
AnyStore = TypeVar("AnyStore")
AnyStore_co = TypeVar("AnyStore_co", covariant=True)


class BoundHandle(Generic[AnyStore_co]):
    """A store and the id of one of its sessions. It holds nothing else, so it stays good as long as the store is open."""

    __slots__ = ("_session_id", "_store")

    def __init__(self, store: AnyStore_co, session_id: str) -> None:
        self._store = store
        self._session_id = session_id

    @property
    def session_id(self) -> str:
        """The session's id."""
        return self._session_id

    @property
    def store(self) -> AnyStore_co:
        """The store that it is a session of."""
        return self._store

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._session_id!r} of {self._store!r})"


def bound(method: Callable[Concatenate[AnyStore, str, P], T]) -> Callable[Concatenate[BoundHandle[AnyStore], P], T]:
    """The method of a store as a method of its handles, with the session's id filled in."""

    @functools.wraps(method)
    def call(self: BoundHandle[AnyStore], /, *args: P.args, **kwargs: P.kwargs) -> T:
        return method(self._store, self._session_id, *args, **kwargs)

    call.__signature__ = _without_session_id(method)  # type: ignore[attr-defined]
    return call


def within(method: Callable[Concatenate[AnyStore, str, P], T]) -> Callable[Concatenate[BoundHandle[AnyStore], str, P], T]:
    """The search of a store as a method of its handles, which looks into their session only."""

    @functools.wraps(method)
    def call(self: BoundHandle[AnyStore], query: str, /, *args: P.args, **kwargs: P.kwargs) -> T:
        filters: Any = {**kwargs, "session_id": self.session_id}
        return method(self.store, query, *args, **filters)

    call.__signature__ = inspect.signature(method)  # type: ignore[attr-defined]
    return call


def _without_session_id(method: Callable[..., Any]) -> inspect.Signature:
    signature = inspect.signature(method)
    kept = [parameter for name, parameter in signature.parameters.items() if name != "session_id"]
    return signature.replace(parameters=kept)


class SessionHandle(BoundHandle[SessionStore]):
    """One session of a store; each method is the store's own, without the id."""

    __slots__ = ()

    get = bound(SessionStore.get)
    update = bound(SessionStore.update)
    fork = bound(SessionStore.fork)
    branches = bound(SessionStore.branches)
    parent = bound(SessionStore.parent)
    end = bound(SessionStore.end)
    pin = bound(SessionStore.pin)
    archive = bound(SessionStore.archive)
    reopen = bound(SessionStore.reopen)
    touch = bound(SessionStore.touch)
    set_ttl = bound(SessionStore.set_ttl)
    remaining = bound(SessionStore.remaining)
    tag = bound(SessionStore.tag)
    untag = bound(SessionStore.untag)
    append = bound(SessionStore.append)
    append_many = bound(SessionStore.append_many)
    messages = bound(SessionStore.messages)
    iterate = bound(SessionStore.iterate)
    pop = bound(SessionStore.pop)
    truncate = bound(SessionStore.truncate)
    clear = bound(SessionStore.clear)
    replace_range = bound(SessionStore.replace_range)
    superseded = bound(SessionStore.superseded)
    clear_superseded = bound(SessionStore.clear_superseded)
    state = bound(SessionStore.state)
    get_state = bound(SessionStore.get_state)
    set_state = bound(SessionStore.set_state)
    increment_state = bound(SessionStore.increment_state)
    delete_state = bound(SessionStore.delete_state)
    open_tool_calls = bound(SessionStore.open_tool_calls)
    check = bound(SessionStore.check)
    repair = bound(SessionStore.repair)
    search = within(SessionStore.search)
    search_raw = within(SessionStore.search_raw)

    def rename(self, new_session_id: str) -> None:
        """Give the session another id, which the handle then goes by.

        Raises:
            ConflictError: There is a live session of that id.
        """
        self._session_id = self._store.rename(self._session_id, new_session_id).session_id

    def delete(self) -> bool:
        """Delete the session and its messages; False if it was gone already."""
        return self._store.delete(self._session_id).sessions > 0

    def erase(
        self, *, forks: Literal["raise", "erase", "keep"] = "raise", tell: bool = True, rebuild: bool = True, dry_run: bool = False
    ) -> hints.EraseReceipt:
        """Delete the session so that no byte of it is left in the file. The arguments are those of the store's method."""
        return self._store.erase(self._session_id, forks=forks, tell=tell, rebuild=rebuild, dry_run=dry_run)
