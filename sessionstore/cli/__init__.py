"""The command line `sessionstore`. It needs the extra `cli`; importing it loads neither that nor SQLAlchemy."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Final

INTERRUPTED: Final = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code: 0 done, 1 a failed check or store error, 2 wrong usage, 130 interrupted."""
    try:
        return _run(arguments)
    except KeyboardInterrupt:
        # While modules were loaded; who interrupts a verb is answered by it.
        return INTERRUPTED


def _run(arguments: Sequence[str] | None) -> int:
    try:
        import rich
        import typer
    except ModuleNotFoundError:
        sys.stderr.write('error: the command line needs typer and rich: pip install "sessionstore[cli]"\n')
        return 2
    del rich, typer
    from .app import run

    return run(arguments)
