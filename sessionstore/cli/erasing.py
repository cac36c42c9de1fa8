"""The verb erase."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import typer

from ..errors import ConflictError
from .console import WRONG_USAGE, complain, counted, plain, say, write_json

if TYPE_CHECKING:
    from ..values.receipts import EraseReceipt
    from .target import Target

ERASE_EXAMPLES: Final = (
    "Examples:\n\n  sessionstore erase user-alice --dry-run\n\n  sessionstore erase --user alice --yes\n\n"
    "  sessionstore erase --tag private --forks erase --yes --json"
)


def erase(
    context: typer.Context,
    session_ids: Annotated[list[str] | None, typer.Argument(metavar="ID", help="These sessions; else what options choose.")] = None,
    *,
    agent: Annotated[str | None, typer.Option("--agent", metavar="ID", help="Those of this agent.")] = None,
    user: Annotated[
        str | None, typer.Option("--user", metavar="ID", help="Those of this user; alone, all that is the user's.")
    ] = None,
    status: Annotated[
        Literal["open", "completed", "failed", "expired"] | None, typer.Option("--status", help="Those in this state.")
    ] = None,
    tag: Annotated[list[str] | None, typer.Option("--tag", metavar="TAG", help="Those with this tag. May be repeated.")] = None,
    text: Annotated[
        str | None, typer.Option("--text", metavar="WORDS", help="Those with these words in a message or the title.")
    ] = None,
    since: Annotated[str | None, typer.Option("--since", metavar="WHEN", help="Those changed since, as in `sessions`.")] = None,
    until: Annotated[str | None, typer.Option("--until", metavar="WHEN", help="Those changed before, likewise.")] = None,
    forks: Annotated[
        Literal["raise", "erase", "keep"],
        typer.Option("--forks", help="Forks of them: refuse, erase them, too, or leave them the messages that they share."),
    ] = "raise",
    no_tell: Annotated[bool, typer.Option("--no-tell", help="Do not tell the remote to forget them.")] = False,
    no_rebuild: Annotated[
        bool, typer.Option("--no-rebuild", help="Do not write the whole file anew; pieces may be left in it.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only tell what would be erased.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Write the receipt as JSON.")] = False,
) -> None:
    """Delete sessions so that no byte of them is left in the file. Exits with 1 if something is left, and says what."""
    from .looking import Choice

    choice = Choice(agent=agent, user=user, status=status, tags=tag, text=text, since=since, until=until)
    filters = choice.filters()
    if bool(session_ids) == bool(filters):
        raise typer.BadParameter("give either IDs or filters.")
    if not (yes or dry_run or sys.stdin.isatty()):
        complain("nothing brings erased sessions back; add --yes")
        raise typer.Exit(WRONG_USAGE)
    options = {"forks": forks, "tell": not no_tell, "rebuild": not no_rebuild, **filters}
    try:
        receipt = _erase(context.obj, session_ids or None, options, dry_run=dry_run, asks=not yes)
    except ConflictError as error:
        complain(str(error).replace('forks="erase"', "--forks erase").replace('forks="keep"', "--forks keep"))
        raise typer.Exit(1) from None
    if json:
        write_json({**plain(receipt), "sessions": receipt.sessions})
    else:
        _say_what_went(receipt)
    if not (receipt.complete or dry_run):
        raise typer.Exit(1)


def _erase(target: Target, ids: list[str] | None, options: dict[str, Any], *, dry_run: bool, asks: bool) -> EraseReceipt:
    with target.open(migrate=True) as store:
        if dry_run:
            return store.erase(ids, dry_run=True, **options)
        if asks:
            would = store.erase(ids, dry_run=True, **options)
            if would.forks_in_the_way:
                return would
            typer.confirm(f"Erase {_counted(would)} for good?", abort=True, err=True)
        return store.erase(ids, **options)


def _say_what_went(receipt: EraseReceipt) -> None:
    say(f"{'would erase' if receipt.dry_run else 'erased'} {_counted(receipt)}")
    if receipt.missing:
        say(f"there was no session: {', '.join(receipt.missing)}")
    if receipt.told_remote:
        say("the remote is told with the next delivery")
    if receipt.untold:
        say(f"the remote is not told to forget {', '.join(receipt.untold)}: other sessions of the same id stay")
    for reason in receipt.reasons:
        say(f"not complete: {reason}")
    if receipt.forks_in_the_way:
        say("--forks erase erases these, too; --forks keep leaves them the messages that they share")


def _counted(receipt: EraseReceipt) -> str:
    sessions, messages = counted(receipt.sessions, "session"), counted(receipt.messages, "message")
    others = ((receipt.checkpoints, "checkpoint"), (receipt.events, "event"), (receipt.metrics, "figure"))
    return ", ".join((sessions, messages, *(counted(number, name) for number, name in others)))
