"""Interrupts a call at its lines, one after the other, and looks each time whether this process and another one can go on.

Run with one argument, a JSON object: `folder`, `call` (a name in `Lab.prepare`), `how` ("arrives": Ctrl-C comes at that line, and
Python tells of it where it can; "raised": the line raises, also where no signal can; "both" in turn), `where` ("own": lines of
this library; "all": of SQLAlchemy and Alembic, too), `first` and `step` choose the lines. It prints figures as JSON.
"""

from __future__ import annotations

import _thread
import asyncio
import gc
import importlib
import json
import operator
import shutil
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import sessionstore

BUSY_TIMEOUT = 0.5
MODELS = "sessionstore.models"
KINDS = (KeyboardInterrupt, SystemExit, asyncio.CancelledError)

OTHER_PROCESS = """
import sys
import sessionstore

for line in sys.stdin:
    try:
        with sessionstore.open(line.rstrip("\\n"), busy_timeout=0.5) as store:
            store.session("s").append("user", "from another process")
        print("fine", flush=True)
    except sessionstore.SessionStoreError as error:
        print(type(error).__name__, error, flush=True)
"""


class _Signal:
    """Reading `arrive` is Ctrl-C; no bytecode runs in between at which Python would tell of it early."""

    _interrupt = staticmethod(_thread.interrupt_main)
    arrive = property(operator.methodcaller("_interrupt"))


class Interrupt:
    """Runs a call, and interrupts it once."""

    def __init__(self, at: int, *, how: str, where: str) -> None:
        self.place = ""
        self._left = at
        self._how = how
        self._names = ("/sessionstore/",) if where == "own" else ("/sessionstore/", "/sqlalchemy/", "/alembic/")
        self._kind = KINDS[at % len(KINDS)] if how == "raised" else KeyboardInterrupt
        self._signal = _Signal()

    def run(self, call: Callable[[], object]) -> str:
        """What came out: "done", "interrupted", or the name of an error."""
        outcome = "done"
        try:
            try:
                sys.settrace(self._trace)
                call()
            finally:
                sys.settrace(None)
        except self._kind:
            outcome = "interrupted"
        except Exception as error:
            outcome = "".join(traceback.format_exception_only(error)).strip()
        return outcome

    def _trace(self, frame: FrameType, event: str, _: object) -> Any:
        if not any(name in frame.f_code.co_filename for name in self._names):
            return None
        if event == "line":
            self._left -= 1
            if self._left == 0:
                self.place = f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno} {frame.f_code.co_name}"
                sys.settrace(None)
                if self._how == "raised":
                    raise self._kind
                self._signal.arrive  # noqa: B018 - reading it is the deed
                return None
        return self._trace


class Lab:
    """A file, another process, and the calls that are interrupted."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.made = folder / "made.db"
        with sessionstore.open(self.made) as store:
            store.session("s").append("user", "acknowledged")
        self.other = subprocess.Popen(
            [sys.executable, "-c", OTHER_PROCESS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def prepare(self, call: str, number: int) -> tuple[Path, Callable[[], object], sessionstore.SessionStore | None]:
        """The file, what is interrupted, and the store that was opened for it."""
        path = self.folder / f"{number}.db"
        if call == "import":
            forget_models()
            return path, lambda: importlib.import_module(MODELS), None
        if call == "make":
            return path, lambda: sessionstore.open(path, busy_timeout=BUSY_TIMEOUT), None
        shutil.copy(self.made, path)
        if call == "open":
            return path, lambda: sessionstore.open(path, busy_timeout=BUSY_TIMEOUT), None
        store = sessionstore.open(path, busy_timeout=BUSY_TIMEOUT)
        if call == "append":
            return path, lambda: store.append("s", "user", "interrupted"), store
        store.append("s", "user", "just before")
        store.messages("s")
        return path, store.close, store

    def problems(self, path: Path, *, acknowledged: bool) -> list[str]:
        """What does not work now."""
        assert self.other.stdin is not None
        assert self.other.stdout is not None
        found = []
        print(path, file=self.other.stdin, flush=True)
        answer = self.other.stdout.readline().strip()
        if answer != "fine":
            found.append(f"another process: {answer}")
        try:
            if not acknowledged:
                # Tables are made here, too: only that needs the models.
                sessionstore.open(in_memory=True).close()
            with sessionstore.open(path, busy_timeout=BUSY_TIMEOUT) as store:
                store.session("s").append("user", "from this process")
                texts = [message.text for message in store.messages("s")]
        except Exception as error:
            return [*found, f"this process: {traceback.format_exception_only(error)}"]
        expected = [*(["acknowledged"] if acknowledged else []), "from another process", "from this process"]
        if [text for text in texts if text in expected] != expected:
            found.append(f"stored: {texts}")
        return found

    def forget(self, path: Path) -> None:
        """Remove a file that was looked at."""
        gc.collect()
        for beside in self.folder.glob(f"{path.name}*"):
            beside.unlink()


def forget_models() -> None:
    """Be as a process that has not made tables yet."""
    for name in [name for name in sys.modules if name == MODELS or name.startswith(f"{MODELS}.")]:
        del sys.modules[name]


def main(folder: str, call: str, how: str, where: str, first: int, step: int) -> None:
    """Interrupt the call at each of the chosen lines."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    lab = Lab(Path(folder))
    # The modules that are loaded late are not what this is about.
    lab.problems(lab.prepare("make", 0)[0], acknowledged=False)
    outcomes: dict[str, int] = {}
    problems: list[str] = []
    number = first
    while True:
        path, run, store = lab.prepare(call, number)
        ways = ("arrives", "raised") if how == "both" else (how,)
        interrupt = Interrupt(number, how=ways[(number - first) // step % len(ways)], where=where)
        outcome = interrupt.run(run)
        del run
        found = lab.problems(path, acknowledged=call not in ("make", "import"))
        if store is not None:
            store.close()
        if outcome not in ("done", "interrupted"):
            found.append(outcome)
        outcomes[outcome] = outcomes.get(outcome, 0) + 1
        problems += [f"{number} {interrupt.place}: {problem}" for problem in found]
        lab.forget(path)
        if not interrupt.place:
            break
        number += step
    lab.other.communicate()
    print(json.dumps({"lines": number, "outcomes": outcomes, "problems": problems}))


if __name__ == "__main__":
    main(**json.loads(sys.argv[1]))
