"""The verb copy."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from .console import counted, one_line, plain, progress_bar, say, write_json
from .target import Target

if TYPE_CHECKING:
    from ..values.receipts import CopyReceipt

COPY_EXAMPLES: Final = (
    "Examples:\n\n  sessionstore copy agent.db archive.db\n\n"
    "  sessionstore --key-file a.key copy agent.db other.db --target-key-file b.key --json"
)
_FEW: Final = 10


def copy(
    context: typer.Context,
    source: Annotated[str, typer.Argument(metavar="FROM", help="The store to copy: a path or an sqlite:/// URL.")],
    place: Annotated[str, typer.Argument(metavar="TO", help="The store to copy to; it is made if it is not there.")],
    *,
    target_key_file: Annotated[
        Path | None,
        typer.Option("--target-key-file", metavar="FILE", help="The key of TO. By default it is encrypted as FROM is."),
    ] = None,
    to_plain: Annotated[bool, typer.Option("--plain", help="TO is not encrypted, even if FROM is.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Write the receipt as JSON.")] = False,
) -> None:
    """Copy all namespaces of a store into another one and compare them; exit code 1 if they differ.

    Killed, it goes on where it was when it is run again. What waits for the remote stays behind.
    """
    given: Target = context.obj
    if given.location is not None:
        raise typer.BadParameter("FROM names the store; --store is not needed.")
    if target_key_file is not None and to_plain:
        raise typer.BadParameter("--target-key-file and --plain exclude each other.")
    options: dict[str, Any] = {"key": None} if to_plain else {}
    if target_key_file is not None:
        from ..keys import file_key

        options["key"] = file_key(target_key_file)
    target = Target(source, "", given.key_file)
    try:
        with target.open() as store, progress_bar(f"copying {source}") as report:
            receipt = store.copy_to(place, progress=report, **options)
    except KeyboardInterrupt:
        say("interrupted; run the same again, and it goes on where it was")
        raise
    if json:
        write_json({**plain(receipt), "equal": receipt.equal})
    else:
        _say_what_is_there(receipt)
    if not receipt.equal:
        raise typer.Exit(1)


def _say_what_is_there(receipt: CopyReceipt) -> None:
    held = f"{counted(receipt.sessions, 'session')}, {counted(receipt.messages, 'message')}, {counted(receipt.blobs, 'blob')}"
    say(f"{receipt.target}: {held}; {receipt.copied:,} of the sessions copied now, the others were there")
    others = ("metrics", "agents", "activities", "received_events")
    state = f"{counted(receipt.state_values, 'state value')} of users and applications"
    say(", ".join([*(f"{getattr(receipt, name):,} {name.replace('_', ' ')}" for name in others), state]))
    if receipt.equal:
        say("compared: the copy has all of it")
        return
    for namespace, session_id in receipt.kept[:_FEW]:
        say(one_line(f"left as it is in the copy: {session_id!r}" + (f" of {namespace!r}" if namespace else "")))
    if len(receipt.kept) > _FEW:
        say(f"... and {len(receipt.kept) - _FEW:,} more; --json tells all")
    for name in receipt.unequal:
        say(f"the copy does not have all {name.replace('_', ' ')}")
