"""How well agents do: the answers of analytics, for a scope, as of the transaction's present. Their shapes are in `answers`."""

from __future__ import annotations

from dataclasses import astuple, replace
from functools import partial
from typing import Final, cast

from ... import clock
from ...database.transaction import Transaction
from ...periods import Scope
from ...values.answers import Failures, Overview, QualityScores, ResponseTimes, SuccessRates, TokenUsage
from ..cursors import opened, sealed
from . import figures, rows
from .rows import Failure

_CURSOR_KIND: Final = "failures 1"


def success_rates(db: Transaction, scope: Scope) -> SuccessRates:
    """How sessions went."""
    return cast(SuccessRates, figures.answer(rows.statuses(db, scope), scope.bucket, figures.success))


def response_times(db: Transaction, scope: Scope) -> ResponseTimes:
    """How long answers took, and sessions that completed or failed."""
    times = figures.answer(rows.response_times(db, scope), scope.bucket, figures.response_times)
    lengths = figures.answer(rows.durations(db, scope), scope.bucket, figures.durations)
    return cast(ResponseTimes, figures.with_durations(times, lengths))


def quality(db: Transaction, scope: Scope) -> QualityScores:
    """How sessions were scored."""
    return cast(QualityScores, figures.answer(rows.scores(db, scope), scope.bucket, figures.quality))


def tokens(db: Transaction, scope: Scope) -> TokenUsage:
    """What messages cost."""
    return cast(TokenUsage, figures.answer(rows.usage(db, scope), scope.bucket, figures.tokens))


def failures(db: Transaction, scope: Scope, *, limit: int, cursor: str | None = None) -> Failures:
    """Which sessions failed, and why.

    Raises:
        InvalidInputError: The cursor is damaged or belongs to another scope.
    """
    before = None if cursor is None else _place(cursor, scope)
    counted = figures.answer(rows.errors(db, scope), scope.bucket, partial(figures.failures, most_errors=limit))
    found = rows.failed_page(db, scope, most=limit + 1, before=before)
    shown = found[:limit]
    sessions = [
        {
            "session_id": each.session_id,
            "agent_id": each.agent_id,
            "error_message": each.error,
            "ended_at": clock.from_text(each.ended_at).isoformat(),
        }
        for each in shown
    ]
    following = _cursor(shown[-1], scope) if len(found) > limit else None
    return cast(Failures, {**counted, "sessions": sessions, "next": following})


def overview(db: Transaction, scope: Scope, *, limit: int) -> Overview:
    """All of it."""
    start, end = (None if at is None else at.isoformat() for at in (scope.start, scope.end))
    return {
        "period": {"start": start, "end": end},
        "success_rates": success_rates(db, scope),
        "response_times": response_times(db, scope),
        "quality": quality(db, scope),
        "failures": failures(db, scope, limit=limit),
        "tokens": tokens(db, scope),
    }


def _cursor(last: Failure, scope: Scope) -> str:
    return sealed([last.ended_at, last.key], _filters(scope))


def _place(cursor: str, scope: Scope) -> tuple[str, int]:
    ended_at, key = opened("next", cursor, _filters(scope))
    return ended_at, key


def _filters(scope: Scope) -> tuple[object, ...]:
    return _CURSOR_KIND, astuple(replace(scope, bucket=None))
