"""Modules that are imported late, in the middle of a program, where an interrupt must not leave them half."""

from __future__ import annotations

import sys
import threading
from importlib import import_module
from types import ModuleType


def load(name: str) -> ModuleType:
    """Import a module with all that it needs, also if an interrupt (Ctrl-C) comes: what waits for it ends, the import goes on.

    A large package that was interrupted half way cannot be imported again in the same process.
    """
    if name not in sys.modules and threading.current_thread() is threading.main_thread():
        _load_aside(name)
    return import_module(name)


def _load_aside(name: str) -> None:
    """In a thread, which no interrupt reaches."""
    failures: list[Exception] = []

    def run() -> None:
        try:
            import_module(name)
        except Exception as error:  # noqa: BLE001 - raised again by the caller
            failures.append(error)

    thread = threading.Thread(target=run, name="sessionstore-import")
    try:
        thread.start()
    except RuntimeError:
        # At the end of a program no thread can be started.
        return
    thread.join()
    if failures:
        raise failures[0]
