"""The 100 real conversations replayed through the tracker: every figure equals one that plain Python takes of the same data."""

from __future__ import annotations

import math
import random
import statistics
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import sessionstore
from sessionstore import AgentPerformanceTracker, SessionStore, clock

SEED = 20_260_501
BEGIN = datetime(2026, 5, 1, 6, tzinfo=UTC)
MODEL = "m-1"


@dataclass
class Replayed:
    """What was told of one conversation, kept beside the store."""

    session_id: str
    agent_id: str
    began: datetime
    ended: datetime
    solved: bool
    quality: int | None
    answers: list[tuple[datetime, float]] = field(default_factory=list)
    tokens: list[tuple[int, int]] = field(default_factory=list)


@dataclass
class Replay:
    """The replayed conversations and where they are."""

    store: SessionStore
    perf: AgentPerformanceTracker
    conversations: list[Replayed]


@pytest.fixture(scope="module")
def replay(airline_conversations: list[dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replay]:
    """All conversations, told with a clock of the test's own: answers take a second to a minute, the whole takes days."""
    print(f"seed {SEED}")
    chance = random.Random(SEED)
    now = BEGIN
    path: Path = tmp_path_factory.mktemp("replay") / "agent.db"
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(clock, "utc_now", lambda: now)
        with sessionstore.open(path) as store, AgentPerformanceTracker(None, store=store, background=False) as perf:
            told: list[Replayed] = []
            for number, conversation in enumerate(airline_conversations):
                now += timedelta(seconds=chance.randrange(3_600))
                agent_id = f"agent_{number % 5}"
                session_id = perf.start_conversation(agent_id, f"user-{conversation['task_id']}")
                mine = Replayed(session_id, agent_id, now, now, conversation["reward"] == 1.0, None)
                asked: datetime | None = None
                for message in conversation["messages"]:
                    now += timedelta(microseconds=chance.randrange(10**6, 6 * 10**7))
                    details: dict[str, Any] = {}
                    if message["role"] == "user":
                        asked = now
                    if message["role"] == "assistant":
                        given = chance.choice((None, chance.uniform(100, 9_000)))
                        tokens = (chance.randrange(5_000), chance.randrange(500))
                        details = {"model": MODEL, "input_tokens": tokens[0], "output_tokens": tokens[1]}
                        details |= {} if given is None else {"response_time_ms": given}
                        mine.tokens.append(tokens)
                        if given is not None:
                            mine.answers.append((now, given))
                        elif asked is not None:
                            mine.answers.append((now, (now - asked) / timedelta(milliseconds=1)))
                    store.append(session_id, message, **details)
                now += timedelta(seconds=chance.randrange(1, 60))
                mine.ended = now
                if mine.solved:
                    mine.quality = chance.choice((None, 1, 2, 3, 4, 5))
                    perf.end_conversation(session_id, mine.quality)
                else:
                    perf.record_failed_session(session_id, f"error {chance.randrange(3)}")
                told.append(mine)
            yield Replay(store, perf, told)


def nearest_rank(values: list[float], percent: int) -> float:
    return sorted(values)[math.ceil(len(values) * percent / 100) - 1]


def by_agent(conversations: list[Replayed]) -> dict[str, list[Replayed]]:
    found: defaultdict[str, list[Replayed]] = defaultdict(list)
    for each in conversations:
        found[each.agent_id].append(each)
    return dict(sorted(found.items()))


def rates(conversations: list[Replayed]) -> dict[str, Any]:
    solved = sum(each.solved for each in conversations)
    return {
        "total": len(conversations), "completed": solved, "failed": len(conversations) - solved, "expired": 0, "active": 0,
        "success_rate": solved / len(conversations),
    }  # fmt: skip


def times(values: list[float], unit: str = "ms") -> dict[str, Any]:
    ranks = {f"p{percent}_{unit}": nearest_rank(values, percent) for percent in (50, 95, 99)}
    return {
        "count": len(values), f"mean_{unit}": pytest.approx(statistics.fmean(values)),
        **{name: pytest.approx(value) for name, value in ranks.items()},
        f"min_{unit}": pytest.approx(min(values)), f"max_{unit}": pytest.approx(max(values)),
    }  # fmt: skip


def test_the_data_hold_what_the_figures_are_about(replay: Replay) -> None:
    assert len(replay.conversations) == 100
    assert 0 < sum(each.solved for each in replay.conversations) < 100
    assert sum(len(each.answers) for each in replay.conversations) > 900


def test_success_rates_are_those_of_the_rewards(replay: Replay) -> None:
    answer = replay.perf.get_success_rates()
    assert answer["overall"] == rates(replay.conversations)
    assert answer["agents"] == [
        {"agent_id": agent_id, **rates(theirs)} for agent_id, theirs in by_agent(replay.conversations).items()
    ]
    assert replay.perf.get_success_rates("agent_3")["overall"] == rates(by_agent(replay.conversations)["agent_3"])


def test_response_times_are_those_that_were_given_or_passed(replay: Replay) -> None:
    answer = replay.perf.get_response_times()
    assert answer["overall"] == times([value for each in replay.conversations for _, value in each.answers])
    for agent, (agent_id, theirs) in zip(answer["agents"], by_agent(replay.conversations).items(), strict=True):
        assert agent == {"agent_id": agent_id, **times([value for each in theirs for _, value in each.answers])}
    durations = [(each.ended - each.began).total_seconds() for each in replay.conversations]
    assert answer["conversation_duration_s"]["overall"] == times(durations, "s")


def test_a_period_holds_what_began_and_was_answered_in_it(replay: Replay) -> None:
    day = date(2026, 5, 2)
    first, last = datetime(2026, 5, 2, tzinfo=UTC), datetime(2026, 5, 3, tzinfo=UTC)
    begun = [each for each in replay.conversations if first <= each.began < last]
    assert 0 < len(begun) < 100
    period: dict[str, Any] = {"start_date": day, "end_date": last}
    assert replay.perf.get_success_rates(**period)["overall"] == rates(begun)
    answered = [value for each in replay.conversations for moment, value in each.answers if first <= moment < last]
    assert replay.perf.get_response_times(**period)["overall"] == times(answered)


def test_qualities_are_those_that_were_told(replay: Replay) -> None:
    scores = [each.quality for each in replay.conversations if each.quality is not None]
    counts = Counter(scores)
    assert replay.perf.get_conversation_quality()["overall"] == {
        "count": len(scores), "mean": pytest.approx(statistics.fmean(scores)),
        "distribution": {str(score): counts[score] for score in range(1, 6)},
    }  # fmt: skip


def test_failures_are_all_listed_page_by_page(replay: Replay) -> None:
    failed = [each for each in replay.conversations if not each.solved]
    listed: list[str] = []
    cursor = None
    while True:
        page = replay.perf.get_failed_sessions(limit=7, cursor=cursor)
        assert page["total"] == len(failed)
        listed += [each["session_id"] for each in page["sessions"]]
        cursor = page["next"]
        if cursor is None:
            break
    assert listed == [each.session_id for each in sorted(failed, key=lambda each: each.ended, reverse=True)]
    assert sum(each["count"] for each in page["by_error"]) == len(failed)


def test_tokens_add_up(replay: Replay) -> None:
    overall = replay.store.tokens()["overall"]
    spent = [tokens for each in replay.conversations for tokens in each.tokens]
    assert (overall["messages"], overall["input_tokens"], overall["output_tokens"]) == (
        len(spent), sum(read for read, _ in spent), sum(written for _, written in spent)
    )  # fmt: skip


def test_the_buckets_of_days_add_up(replay: Replay) -> None:
    buckets = replay.store.success_rates(bucket="day")["buckets"]
    days = Counter(each.began.date().isoformat() for each in replay.conversations)
    assert {bucket["start"][:10]: bucket["overall"]["total"] for bucket in buckets} == dict(days)
