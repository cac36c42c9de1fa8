"""Frameworks read the annotations of what they are given as a tool: every public call tells its types, at no cost for the start."""

from __future__ import annotations

import inspect
import subprocess
import sys
import typing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import sessionstore
from sessionstore import hints

CLASSES = (
    sessionstore.SessionStore,
    sessionstore.AsyncSessionStore,
    sessionstore.SessionHandle,
    sessionstore.AsyncSessionHandle,
    sessionstore.Outbox,
    sessionstore.AsyncOutbox,
    sessionstore.Background,
    sessionstore.AsyncBackground,
    sessionstore.Timer,
    sessionstore.AsyncTimer,
    sessionstore.AgentPerformanceTracker,
    sessionstore.AgentOperationsTracker,
    sessionstore.ChatAgent,
    sessionstore.EncryptionKey,
)


def public_calls() -> Iterator[Any]:
    for owner in CLASSES:
        for name in dir(owner):
            found = inspect.getattr_static(owner, name)
            if not name.startswith("_") or name == "__init__":
                yield pytest.param(
                    found.fget if isinstance(found, property) else getattr(owner, name), id=f"{owner.__name__}.{name}"
                )
    for name in sessionstore.__all__:
        if inspect.isfunction(found := getattr(sessionstore, name)):
            yield pytest.param(found, id=name)


@pytest.mark.parametrize("call", [each for each in public_calls() if callable(each.values[0])])
def test_every_public_call_tells_its_types(call: Callable[..., object]) -> None:
    told = typing.get_type_hints(call)
    assert told.keys() == getattr(call, "__annotations__", {}).keys()
    assert not any(isinstance(each, str) for each in told.values())


def test_the_types_are_those_of_the_front_door() -> None:
    assert typing.get_type_hints(sessionstore.SessionStore.search)["return"] is sessionstore.SearchPage
    assert typing.get_type_hints(sessionstore.AsyncSessionStore.session)["return"] is sessionstore.AsyncSessionHandle
    assert typing.get_type_hints(sessionstore.SessionHandle.fork)["return"] is sessionstore.SessionHandle
    assert {name for name in hints.__all__ if not hasattr(sessionstore, name)} == hints._NOT_PUBLIC.keys()
    assert [name for name in hints.__all__ if not hasattr(hints, name)] == []


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = hints.no_such_name  # type: ignore[attr-defined]


LOADED_LATE = """
import sys, sessionstore
with sessionstore.open(sys.argv[1]) as store:
    store.session("s").append("user", "x")
print(*(name for name in sys.argv[2:] if name in sys.modules))
"""


def test_nothing_is_loaded_for_annotations_that_nobody_asks_for(tmp_path: Path) -> None:
    sessionstore.open(tmp_path / "a.db").close()
    places = {getattr(hints, name).__module__ for name in hints.__all__} - {"typing", "sessionstore.handle", "sessionstore.store"}
    assert "sessionstore.values.receipts" in places
    command = [sys.executable, "-c", LOADED_LATE, str(tmp_path / "a.db"), *places]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
