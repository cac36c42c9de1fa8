"""The verb outbox with its own verbs: list, show, retry, purge and backfill."""

from __future__ import annotations

from typing import Annotated, Final, Literal

import typer

_Json = Annotated[bool, typer.Option("--json", help="Write JSON instead of text.")]
_Kind = Annotated[
    str | None, typer.Option("--kind", metavar="KIND", help="Only those that tell this, such as conversation_start or metric.")
]
_State = Literal["pending", "dead", "erased"]

outbox: Final = typer.Typer(add_completion=False, rich_markup_mode="rich")


@outbox.callback(
    invoke_without_command=True, epilog="Examples:\n\n  sessionstore outbox\n\n  sessionstore outbox list --state dead"
)
def _outbox(context: typer.Context, json: _Json = False) -> None:
    """Show how deliveries to the remote stand, and what to do if they do not go on."""
    if context.invoked_subcommand is None:
        from .events import show_stats

        show_stats(context.obj, as_json=json)
    elif json:
        raise typer.BadParameter("--json stands behind the verb of outbox.")


@outbox.command(
    "list",
    epilog="Examples:\n\n  sessionstore outbox list --state dead\n\n  sessionstore outbox list --session user-alice --json",
)
def _list(
    context: typer.Context,
    *,
    state: Annotated[_State | None, typer.Option("--state", help="Only those in this state.")] = None,
    kind: _Kind = None,
    session: Annotated[str | None, typer.Option("--session", metavar="ID", help="Only those about this session.")] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=1000, help="How many to list at most.")] = 50,
    cursor: Annotated[str | None, typer.Option("--cursor", metavar="CURSOR", help="Go on where an earlier list ended.")] = None,
    json: _Json = False,
) -> None:
    """List events that wait, were given up or were erased, oldest first."""
    from .events import list_events

    list_events(context.obj, state=state, kind=kind, session_id=session, limit=limit, cursor=cursor, as_json=json)


@outbox.command("show", epilog="Example:  sessionstore outbox show 019f3c2e-5b1a-7c3d-8e4f-0123456789ab")
def _show(
    context: typer.Context,
    key: Annotated[str, typer.Argument(metavar="KEY", help="The event, as the list names it.")],
    json: _Json = False,
) -> None:
    """Show an event with what is sent."""
    from .events import show_event

    raise typer.Exit(show_event(context.obj, key, as_json=json))


@outbox.command(
    "retry", epilog="Examples:\n\n  sessionstore outbox retry --all\n\n  sessionstore outbox retry --kind conversation_expired"
)
def _retry(
    context: typer.Context,
    keys: Annotated[list[str] | None, typer.Argument(metavar="KEY", help="Only these events.")] = None,
    *,
    everything: Annotated[bool, typer.Option("--all", help="All events that were given up.")] = False,
    kind: _Kind = None,
) -> None:
    """Let events that were given up be delivered after all."""
    from .events import retry_events

    if everything == bool(keys or kind):
        raise typer.BadParameter("give either KEYs, --kind or --all.")
    retry_events(context.obj, keys, kind=kind)


@outbox.command("purge", epilog="Example:  sessionstore outbox purge --older-than 30d --yes")
def _purge(
    context: typer.Context,
    *,
    state: Annotated[_State, typer.Option("--state", help="Those in this state. Pending ones are lost to the remote.")] = "dead",
    older_than: Annotated[
        str | None,
        typer.Option("--older-than", metavar="WHEN", help="Only those that are so since before: 12h, 30d, 2w ago, or a date."),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Delete them; needed, for nothing brings them back.")] = False,
) -> None:
    """Delete events that were given up, or others, for good."""
    from .console import WRONG_USAGE, complain
    from .events import purge_events

    if not yes:
        complain("nothing brings purged events back; add --yes")
        raise typer.Exit(WRONG_USAGE)
    purge_events(context.obj, state=state, older_than=older_than)


@outbox.command("backfill", epilog="Example:  sessionstore outbox backfill && sessionstore drain")
def _backfill(
    context: typer.Context,
    limit: Annotated[int | None, typer.Option("--limit", min=1, metavar="N", help="At most so many sessions.")] = None,
) -> None:
    """Keep the events of what happened before the store had a remote. It sends nothing itself."""
    from .events import backfill_events

    backfill_events(context.obj, limit=limit)
