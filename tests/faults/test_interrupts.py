"""An interrupt (Ctrl-C, the end of the program, a cancellation) of opening, closing or writing leaves nothing in the way."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from trials import Trial

import sessionstore
from sessionstore.database import locks
from sessionstore.store import calls

Campaign = Callable[..., dict[str, Any]]
pytestmark = pytest.mark.timeout(3600)

# Every how many of its lines, which are a few hundred, a call is interrupted in the usual run; making a file takes longest,
# and loads the tables first ("import").
STEPS = {"open": 50, "close": 10, "append": 16, "make": 150, "import": 200}

APPEND = """
import sys
import sessionstore

with sessionstore.open(sys.argv[1], busy_timeout=0.5) as store:
    store.session("s").append("user", "from another process")
"""


def append_in_another_process(path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", APPEND, str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def append_here(path: Path) -> None:
    with sessionstore.open(path, busy_timeout=0.5) as store:
        store.session("s").append("user", "from this process")
        assert store.doctor().ok


@pytest.mark.fault("F11")
def test_ctrl_c_just_after_the_lock_is_taken_does_not_keep_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.db"
    sessionstore.open(path).close()
    take = locks._try_lock

    def take_and_stop(*given: Any) -> bool:
        monkeypatch.undo()
        assert take(*given)
        raise KeyboardInterrupt

    monkeypatch.setattr(locks, "_try_lock", take_and_stop)
    # What was raised, and with it the frames it passed, is still there when others go on.
    with pytest.raises(KeyboardInterrupt) as raised:
        sessionstore.open(path)
    append_in_another_process(path)
    append_here(path)
    assert raised.tb is not None


@pytest.mark.fault("F11")
def test_ctrl_c_before_the_lock_is_released_at_the_close_is_made_good(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.db"
    store = sessionstore.open(path)
    store.session("s").append("user", "acknowledged")

    def stop(*_: Any) -> None:
        monkeypatch.undo()
        raise KeyboardInterrupt

    monkeypatch.setattr(locks, "_unlock", stop)
    with pytest.raises(KeyboardInterrupt) as raised:
        store.close()
    append_in_another_process(path)
    append_here(path)
    store.close()
    append_here(path)
    assert raised.tb is not None
    with sessionstore.open(path) as store:
        texts = [message.text for message in store.messages("s")]
    assert texts == ["acknowledged", "from another process", "from this process", "from this process"]


@pytest.mark.fault("F11")
def test_closing_again_after_an_interrupt_closes_under_nobody_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.db"
    interrupted, other = sessionstore.open(path), sessionstore.open(path)

    def release_and_stop(*given: Any, **named: Any) -> None:
        monkeypatch.undo()
        release(*given, **named)
        raise KeyboardInterrupt

    release = calls.release
    monkeypatch.setattr(calls, "release", release_and_stop)
    with pytest.raises(KeyboardInterrupt):
        interrupted.close()
    interrupted.close()
    assert other.session("s").append("user", "x").seq == 1
    other.close()


@pytest.mark.fault("F11")
@pytest.mark.parametrize("call", STEPS)
def test_after_an_interrupt_at_any_line_this_process_and_others_go_on(
    tmp_path: Path, campaign: Campaign, trial: Trial, call: str
) -> None:
    step = max(1, STEPS[call] // trial.size(push=1, nightly=4, release=20))
    first = random.Random(f"{trial.seed} {call}").randrange(1, step + 1)
    # A short sample is interrupted in both ways in turn.
    interrupted = lines = 0
    for how in trial.size(push=("both",), nightly=("both",), release=("arrives", "raised")):
        folder = tmp_path / how
        folder.mkdir()
        figures = campaign("interrupts", folder=str(folder), call=call, how=how, where="own", first=first, step=step)
        assert figures["problems"] == []
        assert figures["outcomes"]["interrupted"] > 1
        interrupted += figures["outcomes"]["interrupted"]
        lines += figures["lines"]
    told = f"interrupts of {call} at {interrupted} of {lines:,} lines: 0 locked, 0 half done"
    trial.report(told, skipped=f"a sample: every {step} lines" if step > 1 else None)


@pytest.mark.fault("F12")
@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_an_interrupt_while_the_tables_are_made_comes_out_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: type[BaseException]
) -> None:
    path = tmp_path / "a.db"

    def interrupted(config: Any, _: str) -> None:
        connection = config.attributes["connection"]
        connection.exec_driver_sql("CREATE TABLE half (id INTEGER)")
        rows = connection.exec_driver_sql("SELECT 1 UNION SELECT 2")
        # As SQLAlchemy does where an interrupt reaches it, while cursors live on.
        connection.invalidate(kind())
        assert rows is not None
        raise kind

    with monkeypatch.context() as patched:
        patched.setattr(command, "upgrade", interrupted)
        with pytest.raises(kind) as raised:
            sessionstore.open(path, busy_timeout=0.5)
        # The traceback and its cursors are still there.
        patched.undo()
        with sessionstore.open(path, busy_timeout=0.5) as store:
            assert store.session("s").append("user", "x").seq == 1
            assert store.doctor().ok
    assert raised.value.__class__ is kind


def test_a_new_file_whose_tables_cannot_be_made_is_not_called_an_upgrade(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("no")

    monkeypatch.setattr(command, "upgrade", fail)
    with pytest.raises(sessionstore.UpgradeError, match=r"tables could not be made \(RuntimeError\)") as raised:
        sessionstore.open(tmp_path / "a.db")
    assert "upgrade to schema" not in str(raised.value)
