"""A side seen from the benchmark: a process in an environment of its own that obeys commands, and its calls as a `timing.Side`."""

from __future__ import annotations

import json
import math
import subprocess
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from ..timing import Side

_ROOT = Path(__file__).parent.parent.parent
_MOST_SECONDS_TO_END = 20
_TAIL = 2_000


class PeerError(Exception):
    """A peer could not do what it was told."""


class Process:
    """A running side.

    Args:
        python: The interpreter of its environment.
        driver: The driver's name, such as "huey:Storage".
        errors: Where its standard error goes.
        sync: What drivers that can be told are told.
        forced: What is forced on the connections of the others.
    """

    def __init__(self, python: Path, driver: str, errors: Path, *, sync: str = "", forced: str = "") -> None:
        self._errors = errors
        command = [str(python), "-m", "benchmarks.peers.obey", driver, sync, forced]
        with errors.open("w") as stderr:
            self._process = subprocess.Popen(
                command, cwd=_ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr, text=True
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.end()

    def ask(self, command: str, **arguments: Any) -> Any:
        """Have a command done."""
        self.send(command, **arguments)
        return self.answer()

    def send(self, command: str, **arguments: Any) -> None:
        """Begin a command, without waiting for its end."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # answer() tells why
            self._process.stdin.write(json.dumps({"do": command, **arguments}) + "\n")
            self._process.stdin.flush()

    def answer(self) -> Any:
        """The answer to the oldest command that was sent."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise PeerError(f"ended with {self._process.wait()}: {self._errors.read_text()[-_TAIL:]}")
        said = json.loads(line)
        if "error" in said:
            raise PeerError(said["error"])
        return said["answer"]

    def end(self) -> None:
        """Close the file and end the process."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(_MOST_SECONDS_TO_END)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()


class Turns:
    """The repeated command of a side; once it has failed, it takes no time and is left out in the end.

    Attributes:
        failure: Why it failed.
    """

    def __init__(self, process: Process, command: str, *, seconds: float, **arguments: Any) -> None:
        self._process = process
        self._command = command
        self._arguments = {**arguments, "seconds": seconds}
        self.failure = ""

    def side(self) -> Side:
        """What `timing.interleave` calls."""
        return self._laps

    def _laps(self, count: int) -> list[float]:
        if not self.failure:
            try:
                laps: list[float] = self._process.ask(self._command, count=count, **self._arguments)
            except PeerError as error:
                self.failure = str(error)
            else:
                return laps
        return [math.nan]
