"""What is asked of a fork, checked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, cast

from . import clock, inputs
from .arguments import NewSession, SessionAttributes, new_session
from .config import OnExpire

CutPairs = Literal["snap", "refuse", "keep"]
_CUT_PAIRS: Final = ("snap", "refuse", "keep")
_ID_FORK: Final = "-fork-"
_TOKEN_DIGITS: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Fork:
    """A fork to be made.

    Attributes:
        new: Its name and the attributes that were given.
        given: The names of these; the others are the parent's.
        at: The last seq that it takes over; None for all.
        copy: Whether it gets rows of its own.
        cut_pairs: What to do if the place lies between a tool call and its result.
    """

    new: NewSession
    given: frozenset[str]
    at: int | None
    copy: bool
    cut_pairs: CutPairs


def fork_arguments(
    namespace: str,
    session_id: str,
    new_session_id: str | None,
    *,
    at: int | None,
    copy: bool,
    cut_pairs: str,
    on_expire: OnExpire,
    attributes: SessionAttributes,
) -> Fork:
    """Check what is asked of a fork; without an id it gets one that begins with its parent's."""
    if new_session_id is None:
        ending = _ID_FORK + clock.new_token(_TOKEN_DIGITS)
        new_session_id = session_id[: inputs.MAX_ID_CHARS - len(ending)] + ending
    else:
        inputs.identifier("new_session_id", new_session_id)
    return Fork(
        new=new_session(namespace, new_session_id, on_expire=on_expire, **attributes),
        given=frozenset(attributes),
        at=inputs.optional_whole_number("at", at),
        copy=inputs.flag("copy", copy),
        cut_pairs=cast(CutPairs, inputs.choice("cut_pairs", cut_pairs, _CUT_PAIRS)),
    )
