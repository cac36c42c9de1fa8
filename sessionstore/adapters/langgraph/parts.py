"""The parts in which a listing of checkpoints is read: many small checkpoints at once, of large ones one by one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Final

from ...values.checkpoints import Found, Listed

_MOST: Final = 64
# A part of so many stored bytes is large enough: what each call costs is little beside them.
_ENOUGH_BYTES: Final = 1 << 18


class Parts:
    """How many checkpoints to read at once, given what those before them weighed. The first part is one checkpoint."""

    def __init__(self) -> None:
        self._size = 1

    def next_of(self, places: Iterator[Listed]) -> list[Listed]:
        """The places of the next part."""
        return list(islice(places, self._size))

    def weigh(self, found: Sequence[Found]) -> None:
        """Note what a part was; the next one is at most twice as long."""
        weight = sum(_bytes_of(each) for each in found)
        by_weight = self._size * _ENOUGH_BYTES // max(weight, 1)
        self._size = max(1, min(_MOST, 2 * self._size, by_weight))


def _bytes_of(found: Found) -> int:
    return len(found.row.checkpoint) + sum(len(piece.value) for pieces in found.values.values() for piece in pieces)
