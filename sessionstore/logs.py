"""How this library logs: an event by its name, with facts that formatters and filters can use, and no secrets."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, TypeAlias

if TYPE_CHECKING:
    AnyLogger: TypeAlias = logging.Logger | logging.LoggerAdapter[Any]

LOGGER: Final = logging.getLogger("sessionstore")
# A program that set up no logging hears nothing; a library does not write to somebody else's stderr.
LOGGER.addHandler(logging.NullHandler())

# Who called log(), which called _emit().
_CALLER: Final = 3
_SET_BY_FORMATTERS: Final = ("message", "asctime")


def log(level: int, event: str, message: str, /, *, logger: AnyLogger = LOGGER, **facts: object) -> None:
    """Log an event. The text of messages is never passed here; ids, numbers and sizes are.

    Args:
        level: One of logging's levels.
        event: A name that stays the same, for programs.
        message: What happened, for people.
        logger: Where to; the library's own by default.
        facts: Become attributes of the log record, without secrets. An error is passed as it is. One whose name a record has
            already goes by `fact_` and its name.
    """
    if logger.isEnabledFor(level):
        _emit(logger, level, message, {**facts, "event": event})


def _emit(logger: AnyLogger, level: int, message: str, facts: Mapping[str, object]) -> None:
    # Its patterns take milliseconds to compile, and most programs never get here.
    from .masking import mask, masked_facts

    while isinstance(logger, logging.LoggerAdapter):
        message, options = logger.process(message, {})
        facts = {**(options.get("extra") or {}), **facts}
        logger = logger.logger
    path, line, function, _ = logger.findCaller(stacklevel=_CALLER)
    # Not by `extra`: that raises where the program's own record factory has set an attribute of the same name.
    record = logger.makeRecord(logger.name, level, path, line, mask(str(message)), (), None, function)
    for name, value in masked_facts(facts).items():
        taken = hasattr(record, name) or name in _SET_BY_FORMATTERS
        setattr(record, f"fact_{name}" if taken else name, value)
    logger.handle(record)
