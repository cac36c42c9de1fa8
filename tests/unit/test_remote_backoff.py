"""How long a remote is left alone: what Retry-After may say, the limits of each wait, and how often a dead server is asked."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessionstore.remote import backoff as waits
from sessionstore.remote.backoff import LONGEST_WAIT, aside, backoff, pause, retry_after, short_wait
from sessionstore.remote.pace import MOST_EVENTS, MOST_REQUESTS, Pace
from sessionstore.remote.settlement import SHORTEST_LEASE, Pause, Trouble, lease_for

NOW = datetime(2026, 3, 28, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
# What a server that answers nothing but errors may be asked in an hour, once it has been failing for an hour.
MOST_REQUESTS_AN_HOUR = 60


@pytest.fixture(autouse=True)
def seeded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The draws; the seed is printed."""
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    monkeypatch.setattr(waits, "_draw", random.Random(seed))


@pytest.mark.parametrize(
    ("header", "wait"),
    [
        ("90", timedelta(seconds=90)),
        (" 90 ", timedelta(seconds=90)),
        ("007", timedelta(seconds=7)),
        ("3600", HOUR),
        ("3601", HOUR),
        ("1000000000000", HOUR),
        ("9" * 10_000, HOUR),
        ("Sat, 28 Mar 2026 12:02:00 GMT", timedelta(minutes=2)),
        ("Sat, 28 Mar 2026 14:02:00 +0200", timedelta(minutes=2)),
        ("Saturday, 28-Mar-26 12:02:00 GMT", timedelta(minutes=2)),
        ("Sat Mar 28 12:02:00 2026", timedelta(minutes=2)),
        ("Sat, 28 Mar 2026 12:02:00 -0000", timedelta(minutes=2)),
        ("Fri, 31 Dec 9999 23:59:59 GMT", HOUR),
        ("Fri, 31 Dec 9999 23:59:59 -2359", HOUR),
        ("Sat, 28 Mar 2026 11:59:00 GMT", None),
        ("Sat, 28 Mar 2026 12:00:00 GMT", None),
        ("Thu, 01 Jan 1970 00:00:00 GMT", None),
        ("0", None),
        ("-5", None),
        ("1.5", None),
        ("1e3", None),
        ("abc", None),
        ("", None),
        ("\u0661\u0662", None),
        ("Sat, 32 Mar 2026 12:02:00 GMT", None),
        ("Sat, 28 Mar 99999999999999999999 12:02:00 GMT", None),
        ("Sat, 28 Mar 2026 12:02:00 +99999999999999999999", None),
        ("Sat, 28 Mar 2026 99999999999999999999:02:00 GMT", None),
        (None, None),
    ],
)
def test_a_server_asks_for_at_most_an_hour_or_for_nothing(header: str | None, wait: timedelta | None) -> None:
    assert retry_after(header, NOW) == wait


DATES = st.builds(
    "{} {} {} {}:{}:{} {}".format,
    st.integers(-1, 40),
    st.sampled_from(["Jan", "Mar", "mar", "Xyz", ""]),
    st.integers(-1, 10**25),
    st.integers(-1, 10**25),
    st.integers(0, 70),
    st.integers(0, 70),
    st.sampled_from(["GMT", "+0100", "-9999", "EST", "", "+" + "9" * 30]),
)


@given(st.text(max_size=60) | DATES | st.integers().map(str))
def test_no_header_leads_to_an_error_or_to_a_longer_wait(header: str) -> None:
    wait = retry_after(header, NOW)
    assert wait is None or timedelta(0) < wait <= HOUR


@given(st.integers(1, 10**9), st.floats(0, 3_600), st.timedeltas(min_value=timedelta(0)))
def test_every_wait_is_between_nothing_and_an_hour(failures: int, base: float, failing_for: timedelta) -> None:
    limit = HOUR if failing_for >= timedelta(hours=24) else timedelta(minutes=5)
    assert timedelta(0) <= backoff(failures, base=base, failing_for=failing_for) <= limit
    assert timedelta(minutes=2.5) <= pause(failures) <= HOUR


@pytest.mark.parametrize(("failures", "limit"), [(1, 1), (2, 2), (3, 4), (9, 256), (10, 300), (1_000, 300)])
def test_the_limit_of_a_wait_doubles_and_the_wait_is_drawn_below_it(failures: int, limit: int) -> None:
    drawn = [backoff(failures, base=1.0).total_seconds() for _ in range(200)]
    assert max(drawn) <= limit
    # Full jitter: from the whole range, not only from its end.
    assert min(drawn) < limit / 4
    assert max(drawn) > 3 * limit / 4


def test_a_key_in_flight_is_asked_for_again_after_1_to_5_seconds() -> None:
    assert all(timedelta(seconds=1) <= short_wait() <= timedelta(seconds=5) for _ in range(200))


@pytest.mark.parametrize("paused", [None, "auth", "config", "redirect", "certificate"])
def test_nothing_is_sent_sooner_than_the_server_asked_for(paused: Pause | None) -> None:
    for failures in (1, 5, 20, 1_000):
        wait = Trouble("busy", 429, paused, timedelta(seconds=40)).wait_after(failures, timedelta(0))
        assert timedelta(seconds=40) <= wait <= HOUR


def test_a_trouble_that_asks_for_years_waits_an_hour() -> None:
    assert Trouble("busy", 429, None, timedelta(days=3_650)).wait_after(1, timedelta(0)) == LONGEST_WAIT


@pytest.mark.parametrize("asked", [None, timedelta(microseconds=1), timedelta(seconds=1), timedelta(minutes=10)])
@pytest.mark.parametrize("paused", [None, "auth"])
def test_a_dead_server_is_asked_at_most_60_times_an_hour(asked: timedelta | None, paused: Pause | None) -> None:
    trouble = Trouble("HTTP 503", 503, paused, asked)
    passed, failures, asked_at = timedelta(0), 0, []
    while passed < timedelta(days=3):
        failures += 1
        passed += trouble.wait_after(failures, passed)
        asked_at.append(passed)
    by_hour = [sum(hour * HOUR <= at < (hour + 1) * HOUR for at in asked_at) for hour in range(72)]
    assert max(by_hour) <= MOST_REQUESTS_AN_HOUR
    # After a day the limit of a wait is an hour.
    assert sum(by_hour[25:]) <= 5 * 47


def test_a_claim_holds_for_a_minute_or_for_two_requests() -> None:
    assert lease_for(1) == lease_for(30) == SHORTEST_LEASE
    assert lease_for(120) == timedelta(seconds=240)


def test_the_pace_doubles_with_each_success_and_falls_after_trouble() -> None:
    pace = Pace()
    assert not pace.strike(500)
    assert pace.strike(125)
    assert (pace.events, pace.requests) == (31, 1)
    for _ in range(4):
        pace.speed_up()
    assert (pace.events, pace.requests, pace.strikes) == (496, MOST_REQUESTS, 0)
    pace.speed_up()
    assert pace.events == MOST_EVENTS
    pace.slow_down()
    assert pace.requests == 1


def test_a_new_sender_goes_on_with_the_pace_of_those_that_failed() -> None:
    paces = []
    for failures in range(1, 5):
        pace = Pace()
        pace.go_on_after(failures)
        paces.append(pace.events)
    assert paces == [31, 1, 1, 1]


def test_a_size_that_was_too_large_is_not_tried_again() -> None:
    pace = Pace()
    pace.too_large(400)
    for _ in range(10):
        pace.speed_up()
    assert pace.events == 200


def test_one_giant_does_not_slow_all_the_others_for_ever() -> None:
    pace = Pace()
    for events in (500, 250, 125, 62, 31, 15, 7, 3, 1):
        pace.too_large(events)
    for _ in range(10):
        pace.speed_up()
    assert pace.events == MOST_EVENTS


def test_a_pace_never_falls_below_one_event() -> None:
    pace = Pace()
    pace.strike(1)
    pace.too_large(2)
    assert (pace.events, pace.most_events) == (1, 1)


def test_a_stream_set_aside_waits_longer_than_the_next_try_and_not_for_hours() -> None:
    for failures in range(1, 100):
        for _ in range(20):
            held = aside(failures + 1, base=1.0)
            assert backoff(failures, base=1.0) <= held <= timedelta(minutes=15)


def test_a_base_of_nothing_is_no_reason_to_ask_without_a_pause() -> None:
    assert max(backoff(20, base=0.0) for _ in range(50)) > timedelta(seconds=10)
