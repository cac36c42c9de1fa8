"""The collector: the remote API over a store, as an ASGI app. It needs the extra `collector`; `sessionstore serve` runs it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .access import LOOPBACK_NAMES, ApiKeys

if TYPE_CHECKING:
    from fastapi import FastAPI

    from ..aio import AsyncSessionStore

__all__ = ["create_app"]


def create_app(store: AsyncSessionStore, *, keys: ApiKeys | None = None, names: frozenset[str] | None = LOOPBACK_NAMES) -> FastAPI:
    """The app over a store, which its caller opens and closes.

    Args:
        store: Where all that comes in is kept. It must have no remote itself.
        keys: Who may use it; without any, everybody who reaches it may.
        names: Refuse requests whose Host is none of these, in lower case; None for any.

    Raises:
        MissingExtraError: The extra is not installed.
    """
    from ..errors import MissingExtraError

    try:
        import fastapi
    except ImportError as error:
        raise MissingExtraError("the collector", "collector") from error
    del fastapi
    from .app import make_app

    return make_app(store, keys or ApiKeys(), names=names)
