"""The verb fork."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final

import typer

if TYPE_CHECKING:
    from .target import Target

FORK_EXAMPLES: Final = (
    "Examples:\n\n  sessionstore fork user-alice\n\n  sessionstore fork user-alice try-again --at 12\n\n"
    "  sessionstore fork user-alice --branches"
)


def fork(
    context: typer.Context,
    session: Annotated[str, typer.Argument(metavar="ID", help="The session to begin with.")],
    new_session: Annotated[
        str | None, typer.Argument(metavar="NEW_ID", help="The id of the fork; one that begins with ID by default.")
    ] = None,
    *,
    at: Annotated[
        int | None, typer.Option("--at", min=0, metavar="SEQ", help="The last message that it takes over; all by default.")
    ] = None,
    copy: Annotated[bool, typer.Option("--copy", help="Copy the messages instead of sharing them.")] = False,
    branches: Annotated[bool, typer.Option("--branches", help="Make none: list those that there are.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Write JSON instead of text.")] = False,
) -> None:
    """Begin a new session with the messages of another one, up to one of them."""
    if not branches:
        _make(context.obj, session, new_session, at=at, copy=copy, as_json=json)
    elif new_session is None and at is None and not copy:
        _list(context.obj, session, as_json=json)
    else:
        raise typer.BadParameter("--branches goes with ID alone.")


def _make(target: Target, session: str, new_session: str | None, *, at: int | None, copy: bool, as_json: bool) -> None:
    from .console import counted, say, write_json

    with target.open(migrate=True) as store:
        made = store.fork(session, new_session, at=at, copy=copy)
        info = made.get()
    if as_json:
        write_json({"session_id": made.session_id, "messages": info.message_count if info else 0})
    else:
        typer.echo(made.session_id)
        say(f"a fork of {session} with {counted(info.message_count if info else 0, 'message')}")


def _list(target: Target, session: str, *, as_json: bool) -> None:
    from .looking import print_sessions

    with target.open() as store:
        print_sessions(store.branches(session), as_json=as_json, none="no session was forked from this one")
