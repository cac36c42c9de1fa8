"""What the verbs of outbox do: they show events and how deliveries stand, requeue and purge."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, Literal

import typer
from rich.table import Table
from rich.text import Text

from .. import clock
from .console import (
    complain,
    counted,
    harmless,
    one_line,
    output,
    plain,
    print_indented,
    print_trimmed,
    say,
    size,
    write_fields,
    write_json,
)
from .looking import moment

if TYPE_CHECKING:
    from ..values.outbox import OutboxEvent, OutboxStats
    from .target import Target

_State = Literal["pending", "dead", "erased"]
_FAILED: Final = 1
_CALLED: Final = {"attempts": "most_refusals"}
_TO_DO: Final = {
    "auth": "the remote refuses the key: give the programs that deliver the right one",
    "config": "the remote's address is wrong, or it is no such API: sessionstore remote URL --replace sets another one",
    "redirect": "the remote sends its clients elsewhere, and is never followed: sessionstore remote URL --replace sets another one",
    "certificate": "the remote's certificate is not trusted: set it right, or name its authority: drain --ca-file FILE, or "
    "Remote(URL, ca_file=FILE)",
}


def show_stats(target: Target, *, as_json: bool) -> None:
    """How deliveries stand."""
    with target.open() as store:
        stats = store.outbox.stats()
    fields = plain(stats)
    if as_json:
        write_json(fields)
        return
    fields["pending_bytes"], fields["quota"] = size(stats.pending_bytes), size(stats.quota)
    fields["oldest_age"] = None if stats.oldest_age is None else f"{stats.oldest_age:.0f} s"
    fields |= {name: _shown(getattr(stats, name)) for name in ("last_sent_at", "failing_since", "retry_at")}
    write_fields({_CALLED.get(name, name): "-" if value is None else value for name, value in fields.items()})
    for advice in _advice(stats):
        say(advice, "dim")


def list_events(
    target: Target, *, state: _State | None, kind: str | None, session_id: str | None, limit: int, cursor: str | None, as_json: bool
) -> None:
    """One page of events."""
    with target.open() as store:
        page = store.outbox.list(state, kind, session_id, limit=limit, cursor=cursor)
    if not page.items:
        say("no more events" if cursor else "no event matches" if state or kind or session_id else "the outbox is empty", "dim")
    elif as_json:
        for event in page:
            write_json(_without_body(event))
    else:
        _print_table(page.items)
    if page.next_cursor is not None:
        say(f"more: --cursor {page.next_cursor}", "dim")


def show_event(target: Target, key: str, *, as_json: bool) -> int:
    """An event with its body; the exit code says whether it is there."""
    with target.open() as store:
        event = store.outbox.get(key)
    if event is None:
        complain(f"there is no event {key!r}; it was delivered or purged, or never was")
        return _FAILED
    if as_json:
        write_json(plain(event))
        return 0
    fields = {name: getattr(event, name) for name in _without_body(event)}
    write_fields({name: _shown(value) for name, value in fields.items() if value is not None})
    if event.body is not None:
        print_indented(output(), Text(harmless(json.dumps(event.body, indent=2, ensure_ascii=False))))
    return 0


def retry_events(target: Target, keys: Sequence[str] | None, *, kind: str | None) -> None:
    """Let dead events wait again."""
    with target.open() as store:
        count = store.outbox.requeue(keys or None, kind=kind)
    say(f"{counted(count, 'event')} will be delivered again" if count else "no such event was given up", "dim")


def purge_events(target: Target, *, state: _State, older_than: str | None) -> None:
    """Delete events of a state."""
    age = None if older_than is None else (clock.utc_now() - moment(older_than, "--older-than")).total_seconds()
    if age is not None and age < 0:
        raise typer.BadParameter("must be in the past.", param_hint="--older-than")
    with target.open() as store:
        count = store.outbox.purge(state=state, older_than=age)
    say(f"{counted(count, 'event')} purged", "dim")


def backfill_events(target: Target, *, limit: int | None) -> None:
    """Keep the events of what happened before there was a remote."""
    with target.open() as store:
        receipt = store.outbox.backfill(limit=limit)
    say(f"{counted(receipt.events, 'event')} of {counted(receipt.sessions, 'session')} wait for their delivery", "dim")
    if receipt.more:
        say("there are more: deliver these first, then call it again", "dim")


def _advice(stats: OutboxStats) -> Iterator[str]:
    """What to do, where anything is to be done."""
    if stats.remote is None:
        yield "no remote is set: events are not kept, and nothing is delivered; sessionstore remote URL sets one"
    elif stats.paused is not None:
        yield f"deliveries pause: {_TO_DO[stats.paused]}"
    elif stats.failures and stats.retry_at is not None and stats.pending:
        yield _next_try(stats.retry_at)
    if stats.dead:
        given_up = f"{counted(stats.dead, 'event')} given up"
        yield f"{given_up}: see outbox list --state dead; outbox retry --all lets them be delivered after all"
    if stats.dropped:
        yield f"{counted(stats.dropped, 'event')} dropped, for the outbox was full or was purged"


def _next_try(due: datetime) -> str:
    if due > clock.utc_now():
        return f"the remote could not be used; it is tried again from {_shown(due)} on, or now by: sessionstore drain"
    return (
        f"the remote could not be used; the next try was due at {_shown(due)}, and no program has made it: if none delivers, "
        "sessionstore drain does"
    )


def _print_table(events: Sequence[OutboxEvent]) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("KEY", no_wrap=True)
    table.add_column("STORED", no_wrap=True)
    for name in ("STATE", "KIND", "STREAM"):
        table.add_column(name, overflow="ellipsis")
    for name in ("SIZE", "REFUSED"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("ERROR", overflow="ellipsis")
    for event in events:
        cells = (event.key, _shown(event.created_at), event.state, event.kind, event.stream, str(event.size_bytes),
                 str(event.attempts), event.last_error or "")  # fmt: skip
        table.add_row(*(Text(one_line(cell), no_wrap=True, overflow="ellipsis") for cell in cells))
    print_trimmed(output(), table)


def _without_body(event: OutboxEvent) -> dict[str, Any]:
    return {name: value for name, value in plain(event).items() if name != "body"}


def _shown(value: Any) -> Any:
    """An instant in local time; other values as they are."""
    return value.astimezone().strftime("%Y-%m-%d %H:%M:%S") if isinstance(value, datetime) else value
