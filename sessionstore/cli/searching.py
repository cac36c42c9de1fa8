"""The verb search."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import typer

if TYPE_CHECKING:
    from rich.text import Text

    from ..values.search import SearchHit

SEARCH_EXAMPLES: Final = (
    'Examples:\n\n  sessionstore search "capital of France"\n\n  sessionstore search refund --role user --since 7d\n\n'
    "  sessionstore search refund --json | jq -r .session_id"
)
_FOUND: Final = "bold yellow"


def search(
    context: typer.Context,
    query: Annotated[str, typer.Argument(metavar="QUERY", help="Words that a message must hold, all of them. Nothing is syntax.")],
    *,
    session: Annotated[str | None, typer.Option("--session", metavar="ID", help="Only in this session.")] = None,
    agent: Annotated[str | None, typer.Option("--agent", metavar="ID", help="Only in sessions of this agent.")] = None,
    user: Annotated[str | None, typer.Option("--user", metavar="ID", help="Only in sessions of this user.")] = None,
    role: Annotated[str | None, typer.Option("--role", metavar="ROLE", help="Only in messages of this role.")] = None,
    tag: Annotated[
        list[str] | None, typer.Option("--tag", metavar="TAG", help="Only in sessions with this tag. May be repeated.")
    ] = None,
    since: Annotated[
        str | None,
        typer.Option("--since", metavar="WHEN", help="Only what was written since: 90m, 12h, 7d, 2w, a date or an ISO 8601 time."),
    ] = None,
    prefix: Annotated[bool, typer.Option("--prefix", help="Also find words that begin like those of QUERY.")] = False,
    raw: Annotated[bool, typer.Option("--raw", help="QUERY is in the syntax of SQLite's FTS5.")] = False,
    order: Annotated[
        Literal["rank", "newest"], typer.Option("--order", help="The best fit first, or what was changed last first.")
    ] = "rank",
    limit: Annotated[int, typer.Option("--limit", min=1, max=1000, metavar="N", help="How many to show at most.")] = 20,
    json: Annotated[bool, typer.Option("--json", help="Write a JSON object a hit.")] = False,
) -> None:
    """Find messages by their words, in whatever session they are."""
    from .looking import moment

    if raw and prefix:
        raise typer.BadParameter("--raw and --prefix exclude each other.")
    given: dict[str, Any] = {
        "session_id": session,
        "agent_id": agent,
        "user_id": user,
        "role": role,
        "tag": tag or None,
        "since": None if since is None else moment(since, "--since"),
    }
    filters: Any = {name: value for name, value in given.items() if value is not None}
    with context.obj.open() as store:
        if raw:
            page = store.search_raw(query, order=order, limit=limit, **filters)
        else:
            page = store.search(query, match="prefix" if prefix else "words", order=order, limit=limit, **filters)
    _print(page.items, as_json=json)
    _talk(found=len(page.items), more=page.next_cursor is not None, not_indexed=page.not_indexed)


def _print(hits: tuple[SearchHit, ...], *, as_json: bool) -> None:
    from .console import one_line, output, plain, print_indented, write_json

    console = output()
    for hit in hits:
        if as_json:
            write_json(plain(hit))
            continue
        who = hit.role or hit.kind
        console.print(
            one_line(f"{hit.session_id} #{hit.seq}  {who}  {hit.created_at:%Y-%m-%d %H:%M}"), style="bold", soft_wrap=True
        )
        print_indented(console, _highlighted(hit))


def _highlighted(hit: SearchHit) -> Text:
    """The snippet on one line, with what was found in color."""
    from rich.text import Text

    from .console import one_line

    line = Text()
    place = 0
    for first, last in hit.highlights:
        line.append(one_line(hit.snippet[place:first])).append(one_line(hit.snippet[first:last]), _FOUND)
        place = last
    return line.append(one_line(hit.snippet[place:]))


def _talk(*, found: int, more: bool, not_indexed: int) -> None:
    from .console import counted, say

    if not found:
        say("nothing was found", "dim")
    if more:
        say("there are more; --limit shows more of them", "dim")
    if not_indexed:
        say(f"{counted(not_indexed, 'message')} are not indexed yet and were not looked at; search again", "yellow")
