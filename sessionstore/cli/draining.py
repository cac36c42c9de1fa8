"""The verb drain and its options."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import typer

EXAMPLES: Final = (
    "Examples:\n\n  sessionstore drain --remote https://api.example.com/v1 --api-key-file key.txt\n\n  sessionstore drain --watch"
)


def drain(
    context: typer.Context,
    *,
    remote: Annotated[
        str | None,
        typer.Option(
            "--remote", metavar="URL", help="The remote API. By default SESSIONSTORE_SYNC_URL, else the one that the store has."
        ),
    ] = None,
    api_key_file: Annotated[
        Path | None,
        typer.Option("--api-key-file", metavar="FILE", help="A file with its key alone. By default SESSIONSTORE_SYNC_TOKEN."),
    ] = None,
    ca_file: Annotated[
        Path | None,
        typer.Option("--ca-file", metavar="FILE", help="Trust the certificates in this file (PEM) instead of the usual ones."),
    ] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Go on with what is stored later, until Ctrl-C or SIGTERM.")] = False,
    timeout: Annotated[
        float | None, typer.Option("--timeout", min=0, metavar="SECONDS", help="At most so long; as long as it takes by default.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Write JSON instead of text.")] = False,
) -> None:
    """Send the events that wait to the remote. Exit code 1 if it could not be used."""
    from . import syncing

    if watch and json:
        raise typer.BadParameter("--watch and --json exclude each other.")
    given = syncing.Given(remote, api_key_file, ca_file)
    if watch:
        raise typer.Exit(syncing.watch(context.obj, given, timeout=timeout))
    raise typer.Exit(syncing.drain(context.obj, given, timeout=timeout, as_json=json))
