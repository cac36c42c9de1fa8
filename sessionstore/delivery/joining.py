"""A remote that is named once more: what the file and this program have set for it stays, unless it is said anew."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import TYPE_CHECKING, cast

from .. import queries
from ..config import DEFAULT_MAX_OUTBOX_BYTES, DROP_OLDEST_METRICS, key_of_environment
from ..remote.settings import Remote

if TYPE_CHECKING:
    from ..config import OnFull
    from ..store.syncing import SyncCalls


def joined(store: SyncCalls, named: Remote, *, said: Collection[str] = ()) -> Remote:
    """A remote with the settings that its URL has in the file and in this program.

    Args:
        store: The store whose remote it is to be.
        named: The URL and, if one was given, the key.
        said: The names of other settings that were given with it.
    """
    known = store._database.remote  # noqa: SLF001 - a part of the library
    if known is None or known.base_url != named.base_url:
        return replace(_as_in_file(store, named), api_key=named.api_key or key_of_environment(named.base_url))
    key = named.api_key or known.api_key or key_of_environment(named.base_url)
    return replace(known, api_key=key, **{name: getattr(named, name) for name in said})


def _as_in_file(store: SyncCalls, named: Remote) -> Remote:
    file = store._read(queries.subscription.current)  # noqa: SLF001
    if file.url != named.base_url:
        return named
    return replace(
        named,
        sync_messages=file.sync_messages,
        max_outbox_bytes=file.max_bytes or DEFAULT_MAX_OUTBOX_BYTES,
        on_full=cast("OnFull", file.on_full or DROP_OLDEST_METRICS),
    )
