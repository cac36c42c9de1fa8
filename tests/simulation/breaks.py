"""Deliberate breaks of the library, one for each promise: the simulation must find every one of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any, Final

import pytest

from sessionstore import AsyncSessionStore, clock, sql
from sessionstore.delivery import claims, key_pause
from sessionstore.queries import deliveries, outbox, outbox_upkeep
from sessionstore.remote import answers, delivery, settlement
from sessionstore.remote.answers import Answer, Failure, Meaning, Verdict
from sessionstore.remote.settlement import QueuedEvent, Settlement, Trouble

Break = Callable[[pytest.MonkeyPatch], None]


def settles_what_others_hold(patch: pytest.MonkeyPatch) -> None:
    """A late sender marks events whose streams it has lost."""
    patch.setattr(Settlement, "of_streams", lambda self, _: self)


def makes_new_keys(patch: pytest.MonkeyPatch) -> None:
    """An event that is tried again has another key."""
    claim, tried = deliveries.claim, set[int]()

    def claimed(*args: Any, **kwargs: Any) -> list[QueuedEvent]:
        found = [each._replace(key=clock.new_key()) if each.id in tried else each for each in claim(*args, **kwargs)]
        tried.update(each.id for each in found)
        return found

    patch.setattr(deliveries, "claim", claimed)


def claims_in_any_order(patch: pytest.MonkeyPatch) -> None:
    """The newest events of a stream go first."""
    claim = deliveries.claim
    patch.setattr(deliveries, "claim", lambda *args, **kwargs: claim(*args, **kwargs)[::-1])


def claims_what_others_hold(patch: pytest.MonkeyPatch) -> None:
    """A lease keeps nobody out."""
    for name in ("CLAIM", "CLAIMABLE", "CLAIM_OLDEST"):
        statement = getattr(sql, name)
        broken = statement.replace("outbox_holds.token IS NOT ?", "outbox_holds.token IS NULL AND ? IS NOT NULL")
        assert broken != statement
        patch.setattr(sql, name, broken)


def believes_every_answer(patch: pytest.MonkeyPatch) -> None:
    """A batch that was answered counts as delivered, whichever events the answer names."""
    acknowledged = answers._acknowledged

    def broken(answer: Answer, request: Any) -> Verdict:
        verdict = acknowledged(answer, request)
        return verdict._replace(unmarked=frozenset()) if verdict.meaning is Meaning.DELIVERED else verdict

    patch.setattr(answers, "_acknowledged", broken)


def believes_pages(patch: pytest.MonkeyPatch) -> None:
    """Every 2xx is an acknowledgement, also that of a hotel's network."""
    patch.setattr(answers, "_acknowledged", lambda answer, _: Verdict(Meaning.DELIVERED, status=answer.status))


def counts_attempts_offline(patch: pytest.MonkeyPatch) -> None:
    """No answer is taken for a refusal."""
    judge = delivery.judge

    def broken(answer: Answer | Failure, *rest: Any) -> Verdict:
        verdict = judge(answer, *rest)
        return verdict._replace(meaning=Meaning.REFUSED) if verdict.meaning is Meaning.OFFLINE else verdict

    patch.setattr(delivery, "judge", broken)


def counts_attempts_of_the_key(patch: pytest.MonkeyPatch) -> None:
    """A refused API key is held against the events."""
    judge = delivery.judge

    def broken(answer: Answer | Failure, *rest: Any) -> Verdict:
        verdict = judge(answer, *rest)
        return verdict._replace(meaning=Meaning.REFUSED) if verdict.meaning is Meaning.AUTH else verdict

    patch.setattr(delivery, "judge", broken)


def gives_up_early(patch: pytest.MonkeyPatch) -> None:
    """An event is dead after two refusals."""
    patch.setattr(settlement, "MAX_ATTEMPTS", 2)


def goes_on_with_a_refused_key(patch: pytest.MonkeyPatch) -> None:
    """A sender whose key was refused tries it again at once."""
    patch.setattr(key_pause.KeyPause, "begin", lambda _: None)


def asks_a_dead_server_all_the_time(patch: pytest.MonkeyPatch) -> None:
    """There is no backoff."""
    patch.setattr(Trouble, "wait_after", lambda *_: timedelta(seconds=0.5))


def forgets_events(patch: pytest.MonkeyPatch) -> None:
    """Now and then a message is stored without its event."""
    enqueue, calls = outbox.enqueue, [0]

    def broken(*args: Any) -> None:
        calls[0] += 1
        if calls[0] % 7:
            enqueue(*args)

    patch.setattr(outbox, "enqueue", broken)


def tells_of_an_erasure_at_once(patch: pytest.MonkeyPatch) -> None:
    """An erasure lets others send of a stream whose events are on their way."""

    def broken(db: Any, namespace: str, streams: Sequence[str]) -> None:
        for stream in streams:
            db.driver.execute("DELETE FROM outbox_holds WHERE namespace = ? AND stream = ?", (namespace, stream))

    patch.setattr(outbox_upkeep, "take_from_senders", broken)


def forgets_what_may_arrive(patch: pytest.MonkeyPatch) -> None:
    """The news of an erasure overtakes a request that nobody waits for any more."""
    patch.setattr(deliveries, "_note_unanswered", lambda *_: None)


def counts_what_was_erased(patch: pytest.MonkeyPatch) -> None:
    """Delivered events that were erased meanwhile count as sent all the same."""
    settle = deliveries.settle

    def broken(db: Any, settled: Settlement) -> int:
        left = settle(db, settled)
        if left:
            db.driver.execute(sql.COUNT_SENT, (left, db.now_text))
        return left

    patch.setattr(deliveries, "settle", broken)


def holds_for_ever(patch: pytest.MonkeyPatch) -> None:
    """A wait may last for days, and one of a clock that was ahead is kept."""
    patch.setattr(deliveries, "_latest", lambda db: clock.to_text(db.now + timedelta(days=400)))


def settles_before_the_answer(patch: pytest.MonkeyPatch) -> None:
    """An event leaves the outbox when it is claimed."""
    claim = deliveries.claim

    def broken(db: Any, *args: Any, **kwargs: Any) -> list[QueuedEvent]:
        found = claim(db, *args, **kwargs)
        db.driver.executemany(sql.DELETE_EVENT, [(each.id,) for each in found])
        return found

    patch.setattr(deliveries, "claim", broken)


def believes_its_lease_for_ever(patch: pytest.MonkeyPatch) -> None:
    """A sender that slept goes on with what others may have taken over, and does not look who holds it."""
    patch.setattr(claims.Lease, "is_safe", lambda _: True)
    patch.setattr(
        deliveries, "held", lambda db, _: frozenset(tuple(row) for row in db.driver.execute("SELECT namespace, stream FROM outbox"))
    )


def counts_twice(patch: pytest.MonkeyPatch) -> None:
    """Each delivered event is counted once more."""
    settle = deliveries.settle

    def broken(db: Any, settled: Settlement) -> int:
        left = settle(db, settled)
        db.driver.execute(sql.COUNT_SENT, (len(settled.sent) - left, db.now_text))
        return left

    patch.setattr(deliveries, "settle", broken)


def forgets_answers_when_it_is_cancelled(patch: pytest.MonkeyPatch) -> None:
    """A drain whose time is over leaves what was answered in the outbox."""

    run = AsyncSessionStore._run

    async def broken(store: AsyncSessionStore, recorded: Any, **_: object) -> Any:
        return await run(store, recorded)

    patch.setattr(AsyncSessionStore, "_run", broken)


# Each with a seed that finds it soon; where the library has changed, one of those after it does.
BREAKS: Final[dict[Break, int]] = {
    settles_what_others_hold: 11,
    makes_new_keys: 0,
    claims_in_any_order: 0,
    claims_what_others_hold: 0,
    believes_every_answer: 29,
    believes_pages: 2,
    counts_attempts_offline: 0,
    counts_attempts_of_the_key: 5,
    gives_up_early: 4,
    goes_on_with_a_refused_key: 5,
    asks_a_dead_server_all_the_time: 19,
    forgets_events: 0,
    tells_of_an_erasure_at_once: 28,
    forgets_what_may_arrive: 79,
    counts_what_was_erased: 4,
    holds_for_ever: 12,
    settles_before_the_answer: 0,
    believes_its_lease_for_ever: 5,
    counts_twice: 0,
    forgets_answers_when_it_is_cancelled: 97,
}
