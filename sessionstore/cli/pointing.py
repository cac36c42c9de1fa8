"""The verb remote: which remote API the store tells its events to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final

import typer

from ..errors import ConfigError
from .console import counted, say, size, write_fields, write_json

if TYPE_CHECKING:
    from ..store import SessionStore
    from .target import Target

EXAMPLES: Final = (
    "Examples:\n\n  sessionstore remote --json\n\n  sessionstore remote https://api.example.com/v1 --replace\n\n"
    "  sessionstore remote --none"
)


def remote(
    context: typer.Context,
    url: Annotated[str | None, typer.Argument(metavar="URL", help="The remote API to tell events to from now on.")] = None,
    *,
    replace: Annotated[bool, typer.Option("--replace", help="Leave the remote that the store has for this one.")] = False,
    none: Annotated[bool, typer.Option("--none", help="Take the remote away: no more events are kept.")] = False,
    allow_http: Annotated[
        bool, typer.Option("--allow-http", help="Permit plain HTTP to another machine: everybody on the way can read along.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Write JSON instead of text.")] = False,
) -> None:
    """Show, set, change or take away the remote API that events are told to. Nothing is sent."""
    if url is None and (replace or allow_http):
        raise typer.BadParameter("--replace and --allow-http go with a URL.")
    if none and url is not None:
        raise typer.BadParameter("give either a URL or --none.")
    if json and (none or url is not None):
        raise typer.BadParameter("--json shows the remote; it goes without a URL and --none.")
    if none:
        _take_away(context.obj)
    elif url is not None:
        _set(context.obj, url, replace=replace, allow_http=allow_http)
    else:
        _show(context.obj, as_json=json)


def _show(target: Target, *, as_json: bool) -> None:
    from .. import queries

    with target.open() as store:
        known = store._read(queries.subscription.current)  # noqa: SLF001 - a part of the library
        stats = store.outbox.stats()
    fields = {"remote": known.url, "sync_messages": known.sync_messages, "max_outbox_bytes": stats.quota, "on_full": known.on_full}
    if known.url is None:
        fields = dict.fromkeys(fields)
    fields["pending"] = stats.pending
    if as_json:
        write_json(fields)
        return
    if known.url is not None:
        fields |= {"sync_messages": "yes" if known.sync_messages else "no", "max_outbox_bytes": size(stats.quota)}
    write_fields({name: "-" if value is None else value for name, value in fields.items()})


def _set(target: Target, url: str, *, replace: bool, allow_http: bool) -> None:
    from ..delivery.joining import joined
    from ..remote.settings import Remote
    from .syncing import in_words_of_the_command_line, is_same

    with target.open(migrate=True) as store:
        before = store.outbox.stats().remote
        try:
            # What the file has was permitted when it was set.
            wanted = Remote(url, allow_http=allow_http or is_same(url, before))
        except ConfigError as error:
            raise in_words_of_the_command_line(error, "URL") from None
        if before not in (None, wanted.base_url) and not replace:
            raise ConfigError(f"the store tells its events to {before}, and one store has one remote; --replace leaves that one")
        store.set_remote(joined(store, wanted), replace=replace)
        say(f"events are told to {wanted.base_url}{_waiting(store, 'for it: sessionstore drain')}")
        # Setting it sends nothing.
        store.close(drain_timeout=0)


def _take_away(target: Target) -> None:
    with target.open(migrate=True) as store:
        before = store.outbox.stats().remote
        store.set_remote(None, replace=True)
        waiting = _waiting(store, "for the next remote")
    say((f"no more events are told to {before}" if before is not None else "the store has no remote") + waiting)


def _waiting(store: SessionStore, what_for: str) -> str:
    pending = store.outbox.stats().pending
    return f"; {counted(pending, 'event')} wait{'s' if pending == 1 else ''} {what_for}" if pending else ""
