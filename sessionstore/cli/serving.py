"""The verb that runs a collector."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from ..errors import ConfigError

if TYPE_CHECKING:
    from .target import Target


def serve(
    target: Target, *, db: str | None, key_file: Path | None, host: str, port: int, allowed_hosts: Sequence[str] = ()
) -> None:
    """Serve until SIGTERM or Ctrl-C."""
    if db is not None and target.location is not None:
        raise typer.BadParameter("--db and --store exclude each other.")
    try:
        from ..collector import app, server
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("fastapi", "uvicorn", "starlette"):
            raise
        sys.stderr.write('error: serve needs fastapi and uvicorn: pip install "sessionstore[cli,collector]"\n')
        raise typer.Exit(2) from None
    del app
    try:
        server.serve(
            target.location if db is None else db,
            key=target.key,
            key_file=key_file,
            host=host,
            port=port,
            allowed_hosts=allowed_hosts,
            listening=_tell,
        )
    except ConfigError as error:
        raise typer.BadParameter(str(error)) from error


def _tell(url: str) -> None:
    sys.stderr.write(f"listening on {url}\n")
    sys.stderr.flush()
