"""Imports in the middle of a program come out whole, or raise what they met."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from sessionstore.loading import load


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    made = tmp_path / "imported_late"
    made.mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    yield made / "__init__.py"
    for name in [name for name in sys.modules if name.partition(".")[0] == "imported_late"]:
        del sys.modules[name]


def test_an_interrupt_in_the_middle_of_an_import_ends_the_call_and_not_the_import(package: Path) -> None:
    package.with_name("ran.txt").touch()
    package.write_text(
        "import pathlib, signal\n"
        "with (pathlib.Path(__file__).with_name('ran.txt')).open('a') as ran: ran.write('x')\n"
        "signal.raise_signal(signal.SIGINT)\n"
        "is_whole = True\n"
    )
    with pytest.raises(KeyboardInterrupt):
        load("imported_late")
    assert load("imported_late").is_whole
    assert package.with_name("ran.txt").read_text() == "x"


def test_what_an_import_raises_is_raised(package: Path) -> None:
    package.write_text("raise LookupError('told')")
    for _ in range(2):
        with pytest.raises(LookupError, match=r"^told$"):
            load("imported_late")


def test_a_module_is_imported_where_no_thread_can_be_started(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As at the end of a program, from Python 3.12 on."""

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    package.write_text("is_whole = True")
    monkeypatch.setattr(threading.Thread, "start", refuse)
    assert load("imported_late").is_whole


def test_another_thread_imports_it_by_itself(package: Path) -> None:
    package.write_text("import threading\nby = threading.current_thread().name")
    thread = threading.Thread(target=load, args=("imported_late",), name="another")
    thread.start()
    thread.join()
    assert load("imported_late").by == "another"
