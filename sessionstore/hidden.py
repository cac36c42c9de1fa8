"""What secrets have in common: they show nowhere by accident, and nothing carries them along."""

from __future__ import annotations

from typing import NoReturn


class Hidden:
    """Holds a secret. It refuses to be copied or pickled, so that `dataclasses.asdict()` and the like leave it where it is."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} ****>"

    def __str__(self) -> str:
        return repr(self)

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError(f"{_a(type(self).__name__)} cannot be copied or pickled")

    def __getstate__(self) -> NoReturn:
        raise TypeError(f"{_a(type(self).__name__)} cannot be copied or pickled")


def _a(name: str) -> str:
    return f"an {name}" if name[0] in "AEIOU" else f"a {name}"
