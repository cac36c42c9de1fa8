"""What an analysis looks at: a namespace, an agent or a session, a half-open period, and the buckets that time is cut into."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Final, Literal, TypeAlias, cast

from . import clock, inputs
from .errors import InvalidInputError

Bucket: TypeAlias = Literal["hour", "day", "week", "month"]

BUCKETS: Final = ("hour", "day", "week", "month")
# How much of a stored instant tells in which bucket it is; a week is told by its day.
PREFIX_CHARS: Final = {"hour": len("2026-01-01 00"), "day": len("2026-01-01"), "week": len("2026-01-01"), "month": len("2026-01")}

_FIRST_INSTANT: Final = "0001-01-01 00:00:00.000000"


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """What is looked at. `agent_id` and `session_id` None mean all; so do open ends of the period.

    With `namespace_end` it is not one namespace, but all from `namespace` on that sort before it.
    """

    namespace: str
    namespace_end: str | None = None
    agent_id: str | None = None
    session_id: str | None = None
    start: datetime | None = None
    end: datetime | None = None
    bucket: Bucket | None = None

    @property
    def values(self) -> Mapping[str, str]:
        """What is given, as it is stored."""
        texts = {
            "namespace": self.namespace,
            "namespace_end": self.namespace_end,
            "agent_id": self.agent_id,
            "session_id": self.session_id,
        }
        instants = {"start": self.start, "end": self.end}
        return {
            **{name: text for name, text in texts.items() if text is not None},
            **{name: clock.to_text(instant) for name, instant in instants.items() if instant is not None},
        }


def scope(
    namespace: str,
    *,
    agent_id: str | None = None,
    session_id: str | None = None,
    start_date: date | None = None,
    end_date: date | None = None,
    bucket: Bucket | None = None,
) -> Scope:
    """Check what a call is to look at."""
    start, end = _instant("start_date", start_date), _instant("end_date", end_date)
    if start is not None and end is not None and end < start:
        raise InvalidInputError("end_date", "must not be before start_date")
    return Scope(
        namespace=namespace,
        agent_id=inputs.optional_identifier("agent_id", agent_id),
        session_id=inputs.optional_identifier("session_id", session_id),
        start=start,
        end=end,
        bucket=None if bucket is None else cast(Bucket, inputs.choice("bucket", bucket, BUCKETS)),
    )


def bucket_start(prefix: str, bucket: Bucket) -> datetime:
    """When the bucket of a stored instant begins, of which `prefix` is the beginning. Weeks begin on Monday."""
    start = clock.from_text(prefix + _FIRST_INSTANT[len(prefix) :])
    return start - timedelta(days=start.weekday()) if bucket == "week" else start


def _instant(field: str, value: object) -> datetime | None:
    if value is None:
        return None
    if isinstance(value, datetime):
        return inputs.instant(field, value)
    if isinstance(value, date):
        return datetime.combine(value, time(), UTC)
    raise InvalidInputError(field, "must be a date or an aware datetime")
