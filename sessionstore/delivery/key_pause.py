"""How long a sender leaves a remote alone that refused its key. Other senders may have another one."""

from __future__ import annotations

from datetime import datetime

from .. import clock
from ..remote.backoff import LONGEST_WAIT, pause


class KeyPause:
    """How long a sender whose key was refused leaves the remote alone: longer with each refusal."""

    def __init__(self) -> None:
        self._refusals = 0
        self._until: datetime | None = None
        self._is_cut_short = False
        self.may_be_cut_short = False

    def begin(self) -> None:
        """After a refusal."""
        self._refusals += 1
        self._until = clock.utc_now() + pause(self._refusals)
        self.may_be_cut_short, self._is_cut_short = not self._is_cut_short, False

    def cut_short(self) -> None:
        """Before another key is tried."""
        self._until = None
        self.may_be_cut_short, self._is_cut_short = False, True

    def end(self) -> None:
        """After the remote took something."""
        self._refusals, self._until = 0, None
        self.may_be_cut_short = self._is_cut_short = False

    def seconds_left(self) -> float:
        """0 if there is no pause. A clock that was far ahead makes none."""
        seconds = 0.0 if self._until is None else (self._until - clock.utc_now()).total_seconds()
        return seconds if 0 < seconds <= LONGEST_WAIT.total_seconds() else 0.0
