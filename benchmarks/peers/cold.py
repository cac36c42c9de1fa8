"""The fresh process of a cold start: it imports nothing before the clock that a side does not import itself."""

import time

_BEGUN = time.time()

import sys  # noqa: E402 - the clock comes first
from typing import Any  # noqa: E402

from ..cold import resident_mb  # noqa: E402

_TURN = [{"role": "user", "content": "And of Italy?"}, {"role": "assistant", "content": "Rome."}]


def main() -> None:
    """Open an existing file and save a turn: driver, file, time of the spawn. Prints ms since the spawn, ms inside, MB."""
    from . import driver

    name, path, spawned = sys.argv[1:]
    kind = driver.load(name)
    side = kind(path, "")
    if _waits(kind):
        import asyncio

        asyncio.run(_append_awaited(side, spawned))
    else:
        side.open()
        side.resume("session", [])
        side.turn("session", side.ready("session", _TURN))
        _tell(spawned)
        side.close()


def _waits(kind: type) -> bool:
    code = 0x80  # inspect.CO_COROUTINE, without importing inspect
    return bool(kind.turn.__code__.co_flags & code)


async def _append_awaited(side: Any, spawned: str) -> None:
    from .driver import done

    await done(side.open())
    await done(side.resume("session", []))
    await side.turn("session", side.ready("session", _TURN))
    _tell(spawned)
    await done(side.close())


def _tell(spawned: str) -> None:
    now = time.time()
    print([(now - float(spawned)) * 1e3, (now - _BEGUN) * 1e3, resident_mb()], file=sys.__stdout__, flush=True)


if __name__ == "__main__":
    main()
