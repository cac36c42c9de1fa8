"""A sender: what one drain does with the outbox until nothing is left to send, or the remote cannot be used."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

import anyio
import httpx
from anyio.abc import TaskGroup

from .. import clock
from ..errors import AuthError
from ..logs import log
from ..remote.answers import Answer, Failure, Verdict, is_json, judge
from ..remote.capabilities import CAPABILITIES_PATH, PLAIN, Capabilities, parsed
from ..remote.delivery import PAUSES, UNSUPPORTED, Delivery, Remembered
from ..remote.pace import Pace
from ..remote.requests import Request
from ..remote.settings import Remote
from ..remote.settlement import Refusal, Settlement, Trouble, lease_for
from ..values.receipts import DrainReceipt
from .claims import Claim, Lease
from .courier import Courier
from .key_pause import KeyPause

if TYPE_CHECKING:
    from ..aio import AsyncSessionStore
    from ..queries.deliveries import Outlook

_CLAIMED_ALONE: Final = 50
_ASKED_IN_DOUBT: Final = 3
_SERVER_ERROR: Final = "HTTP 5"
_RELEASE_SECONDS: Final = 5.0
_NOTHING: Final = Request(CAPABILITIES_PATH, b"", {}, (), True)


@dataclass(slots=True)
class _Counts:
    sent: int = 0
    refused: int = 0
    dead: int = 0
    requests: int = 0


class Sender:
    """Sends the events of a store to its remote. It asks what the remote can do once, and keeps one client."""

    def __init__(self, store: AsyncSessionStore, remote: Remote, *, transport: httpx.AsyncBaseTransport | None = None) -> None:
        self._store = store
        self._remote = remote
        self._courier = Courier(remote, transport=transport)
        self._lease = lease_for(remote.timeout)
        self._known: Remembered | None = None
        self._pace = Pace()
        self._counts = _Counts()
        self._key_pause = KeyPause()
        self._kinds_given_up: set[str] = set()
        self._trouble: Trouble | None = None
        self._limit: int | None = None
        self._workers = 0
        # By their claims: until when the last request may arrive, if it was not answered.
        self._under_way: dict[str, datetime | None] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self._courier.__aexit__(kind, error, trace)

    @property
    def trouble(self) -> Trouble | None:
        """Why the last pass ended before its time."""
        return self._trouble

    async def send_all(self, *, limit: int | None = None) -> None:
        """One pass: send what can be sent now, at most so many events."""
        self._trouble, self._limit = None, limit
        outlook = await self._store._outlook()  # noqa: SLF001 - a part of the library
        if not outlook.pending:
            return
        try:
            await self._send_what_can_be(outlook)
            if self._known is not None and self._known.is_doubtful and self._may_go_on():
                # What could be sent without knowing who answered is. What else there is must not wait for another pass: each drain
                # of a program would begin with the same doubt.
                await self._send_what_can_be(outlook)
        except AuthError as error:
            await self._note(Trouble(str(error), paused="auth"))

    async def receipt(self) -> DrainReceipt:
        """What all passes did, and what is left."""
        outlook = await self._store._outlook()  # noqa: SLF001
        error, paused = _standing(outlook) if self._trouble is None and not self._counts.sent else (None, None)
        if self._trouble is not None:
            error, paused = self._trouble.error, self._trouble.paused
        return DrainReceipt(
            sent=self._counts.sent,
            refused=self._counts.refused,
            dead=self._counts.dead,
            requests=self._counts.requests,
            left=outlook.pending,
            error=error,
            paused=paused,
            retry_at=outlook.retry_at or outlook.free_at if outlook.pending else None,
        )

    async def seconds_until_key_is_tried(self) -> float:
        """How long the remote is still left alone because it refused the key of this sender; others may have another one."""
        seconds = self._key_pause.seconds_left()
        return 0.0 if seconds and await self.has_new_key() else seconds

    async def has_new_key(self) -> bool:
        """Whether there is another key than the refused one, which may be tried before the pause is over.

        Once in each pause: there are callables that return another token each time.
        """
        if not self._key_pause.may_be_cut_short:
            return False
        try:
            is_new = await self._courier.key_is_new()
        except AuthError:
            return False
        if is_new:
            self._key_pause.cut_short()
        return is_new

    async def _send_what_can_be(self, outlook: Outlook) -> None:
        before = self._known
        if before is None or before.is_doubtful or before.is_believed:
            self._known = None
            if outlook.failures and (outlook.last_error or "").startswith(_SERVER_ERROR):
                self._pace.go_on_after(outlook.failures)
            await self._get_to_know(outlook, before)
        if self._known is not None:
            self._known.sent = max(self._known.sent, outlook.sent)
            await self._work_together(self._known)

    async def _get_to_know(self, outlook: Outlook, before: Remembered | None) -> None:
        """Ask what the remote can do. An answer that says nothing is that of a plain backend; no answer is trouble.

        A page may be that of a hotel's network. Where one answered before, and does so each time, it is believed to be the
        remote's own; a pass later it is.
        """
        answer = await self._answer_about_itself(1 if before is None else _ASKED_IN_DOUBT)
        capabilities = _capabilities(answer)
        if capabilities is None:
            await self._note(_trouble(judge(answer, _NOTHING, clock.utc_now()), self._remote))
            return
        self._known = Remembered(
            capabilities=capabilities,
            source=outlook.source,
            base=self._remote.retry_delay,
            compressed=not self._remote.is_here,
            sent=outlook.sent if before is None else before.sent,
            is_doubtful=before is None and _is_page(answer),
            is_believed=before is not None and before.is_doubtful and _is_page(answer),
            pace=self._pace,
            timeout=timedelta(seconds=self._remote.timeout),
        )

    async def _answer_about_itself(self, times: int) -> Answer | Failure:
        """The remote's first answer that is no page, or a page if it answers with one each time."""
        while True:
            self._counts.requests += 1
            answer = await self._courier.get(CAPABILITIES_PATH)
            times -= 1
            if not times or not _is_page(answer):
                return answer

    async def _work_together(self, known: Remembered) -> None:
        self._workers = 1
        try:
            async with anyio.create_task_group() as workers:
                workers.start_soon(self._work, known, workers)
        except BaseExceptionGroup as group:
            # What one of them raised, as it is.
            raise _first_error(group) from None

    async def _work(self, known: Remembered, workers: TaskGroup) -> None:
        """Claim, send, settle, and claim again in the transaction that settles."""
        token = clock.new_id()
        try:
            # Within: a cancellation that arrives while it commits leaves its streams held.
            claim = await self._claimed(token, known)
            while claim.events:
                claim = await self._deliver(claim, known, workers)
        except BaseException:
            await self._release(token)
            raise
        finally:
            self._under_way.pop(token, None)
            self._workers -= 1

    async def _claimed(self, token: str, known: Remembered) -> Claim:
        """A claim of what nobody else has."""
        events = None
        while events is None:
            lease = Lease(self._lease, self._remote.timeout)
            events = await self._store._claim(token, *self._next_claim(known))  # noqa: SLF001
        return Claim(token, events, lease)

    async def _settled_and_claimed(self, settlement: Settlement, known: Remembered) -> Claim:
        lease = Lease(self._lease, self._remote.timeout)
        events = await self._store._settle_and_claim(settlement, *self._next_claim(known))  # noqa: SLF001
        if events:
            return Claim(settlement.token, events, lease)
        # Others may have been faster, with more behind what they took.
        return await self._claimed(settlement.token, known)

    async def _next_request(self, delivery: Delivery, claim: Claim) -> Request | None:
        if not claim.lease.is_safe() or self._trouble is not None:
            return None
        # What was erased meanwhile is not to be told any more.
        delivery.keep_to(await self._store._held(claim.token))  # noqa: SLF001
        return delivery.next_request()

    async def _deliver(self, claim: Claim, known: Remembered, workers: TaskGroup) -> Claim:
        """Deliver the events of a claim, and return the next one."""
        delivery = Delivery(claim.token, claim.events, known, clock.utc_now)
        over = False
        while not over and (request := await self._next_request(delivery, claim)) is not None:
            self._counts.requests += 1
            self._under_way[claim.token] = delivery.arrives_until
            settlement = delivery.take(await self._courier.post(request))
            # Kept until the next request: if it cannot be stored with the settlement, it is with the release.
            self._under_way[claim.token] = settlement.arrives_until
            self._count(settlement)
            if settlement.trouble is not None:
                await self._settle(settlement)
                return claim.without_events()
            over = settlement.over
            if self._workers < known.pace.requests and self._may_go_on():
                self._workers += 1
                workers.start_soon(self._work, known, workers)
            if not over:
                await self._settle(settlement)
        if not over:
            settlement = delivery.finish()
            self._count(settlement)
        # In doubt nothing is decided of what was not sent: the next claim would find it again.
        if self._trouble is not None or settlement.trouble is not None or known.is_doubtful or not self._may_go_on():
            await self._settle(settlement)
            return claim.without_events()
        return await self._settled_and_claimed(settlement, known)

    def _next_claim(self, known: Remembered) -> tuple[int, int, timedelta]:
        """How many events, how many bytes, and for how long."""
        most = known.pace.events if known.capabilities.is_ours else _CLAIMED_ALONE
        if self._limit is not None:
            most = max(1, min(most, self._limit - self._counts.sent))
        return most, known.capabilities.max_bytes, self._lease

    def _may_go_on(self) -> bool:
        return self._limit is None or self._counts.sent < self._limit

    async def _settle(self, settlement: Settlement) -> None:
        if (trouble := settlement.trouble) is not None:
            if self._trouble is None or (self._trouble.paused is None and trouble.paused is not None):
                self._remember(trouble)
            else:
                # Two requests that fail together are one failure; what only somebody can set right is not to be missed.
                settlement = replace(settlement, trouble=None)
        await self._store._settle(settlement)  # noqa: SLF001

    def _remember(self, trouble: Trouble) -> None:
        self._trouble = trouble
        if trouble.paused == "auth":
            self._key_pause.begin()
        if trouble.paused == "config" or (self._known is not None and not self._known.capabilities.is_ours):
            # Another server may be there the next time, or the same one behind a gateway that is well again.
            self._known = None
        _log(trouble)

    async def _note(self, trouble: Trouble) -> None:
        self._remember(trouble)
        await self._store._note_trouble(trouble)  # noqa: SLF001

    async def _release(self, token: str) -> None:
        """Let others have what is not sent. If that fails, the lease ends by itself."""
        with anyio.move_on_after(_RELEASE_SECONDS, shield=True):
            await self._store._release(token, self._under_way.get(token))  # noqa: SLF001

    def _count(self, settlement: Settlement) -> None:
        self._counts.sent += len(settlement.sent)
        if settlement.sent:
            self._key_pause.end()
        for refusal in settlement.refused:
            if refusal.is_last:
                self._counts.dead += 1
                self._tell_given_up(refusal)
            else:
                self._counts.refused += 1

    def _tell_given_up(self, refusal: Refusal) -> None:
        kind = refusal.event.kind
        if refusal.error.startswith(UNSUPPORTED):
            if kind in self._kinds_given_up:
                return
            self._kinds_given_up.add(kind)
        message = f"an event of the kind {kind} was given up, and is kept as a dead letter: {refusal.error}"
        log(logging.WARNING, "event_given_up", message, key=refusal.event.key, kind=kind, status=refusal.status,
            reason=refusal.error)  # fmt: skip


def _capabilities(answer: Answer | Failure) -> Capabilities | None:
    """What a remote can do; None if its answer leaves that open."""
    if isinstance(answer, Failure):
        return None
    if 200 <= answer.status < 300:
        return (parsed(answer.body) if answer.body is not None else None) or PLAIN
    return PLAIN if (400 <= answer.status < 500 and answer.status not in _NOT_AN_ANSWER) or answer.status == 501 else None


def _is_page(answer: Answer | Failure) -> bool:
    """Whether an answer is neither an error nor JSON."""
    return isinstance(answer, Answer) and 200 <= answer.status < 300 and (answer.body is None or not is_json(answer.body))


# Whoever says this says nothing about what there is.
_NOT_AN_ANSWER: Final = (401, 403, 408, 409, 425, 429)


def _trouble(verdict: Verdict, remote: Remote) -> Trouble:
    return Trouble(verdict.error, verdict.status, PAUSES.get(verdict.meaning), verdict.asked, remote.retry_delay)


def _standing(outlook: Outlook) -> tuple[str | None, str | None]:
    """The trouble that was there before, where nothing could be tried: all that is left waits for its next try."""
    return (outlook.last_error, outlook.paused) if outlook.pending and outlook.failures else (None, None)


def _log(trouble: Trouble) -> None:
    if trouble.paused is not None:
        message = f"deliveries pause until somebody sets this right: {trouble.error}"
        log(logging.ERROR, "sync_paused", message, paused=trouble.paused, status=trouble.status, reason=trouble.error)
    else:
        message = f"the remote cannot be used now, deliveries go on later: {trouble.error}"
        log(logging.INFO, "sync_failed", message, status=trouble.status, reason=trouble.error)


def _first_error(error: BaseException) -> BaseException:
    """The first error in a group of them."""
    while isinstance(error, BaseExceptionGroup):
        error = (error.subgroup(Exception) or error).exceptions[0]
    return error
