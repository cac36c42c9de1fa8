"""What must hold at each step: who may change which event, what the remote may be told, and that nothing is lost or counted twice.

After each commit the outbox is compared with what it was before, and each difference must have a reason.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final, NamedTuple

from machine import Machine, Process
from remote_model import TIMEOUT, Parcel, Reply

from sessionstore import clock
from sessionstore.remote.backoff import LONGEST_WAIT
from sessionstore.remote.delivery import UNSUPPORTED
from sessionstore.remote.settlement import MAX_ATTEMPTS, SHORTEST_LEASE

_NO_FAULT_OF_AN_EVENT: Final = (401, 403, 429, 503, 302)
_SHORTEST_KEY_PAUSE: Final = 149.0
_LEASE: Final = SHORTEST_LEASE.total_seconds()
_SETTLES_WITHIN: Final = 5.0
_TRACE_TAIL: Final = 60


class BrokenPromiseError(AssertionError):
    """A promise was broken."""


class _Row(NamedTuple):
    key: str
    namespace: str
    stream: str
    state: str
    attempts: int
    last_error: str | None


@dataclass
class Known:
    """An event that was ever in the outbox.

    Attributes:
        number: Its id: the order of its stream.
        row: As it is, or was last.
        body: As it was frozen.
        fate: What became of it once it has left the outbox: "sent", "dropped" or "purged".
        was_dead: Whether it was given up once; if it is requeued, others have gone before it.
        answers: How many answers there were that may count as an attempt.
        too_large: Whether the remote said so of it alone.
    """

    number: int
    row: _Row
    kind: str
    body: str
    fate: str | None = None
    was_dead: bool = False
    answers: int = 0
    attempts: int = 0
    too_large: bool = False

    @property
    def place(self) -> tuple[str, str]:
        """The stream that it was stored in."""
        return self.row.namespace, self.row.stream


@dataclass
class Sight:
    """What a process was told by the remote."""

    acknowledged: dict[str, float] = field(default_factory=dict)
    key_refused_at: float | None = None
    key_refused_clock: timedelta = timedelta(0)


class Invariants:
    """The observer of a run. It sees every commit and every request."""

    def __init__(self, machine: Machine) -> None:
        self.trace: list[str] = []
        self.known: dict[str, Known] = {}
        # What the remote has; it tells.
        self.stored: dict[str, str] = {}
        self.dropped = self.sent = 0
        self.counts: Counter[str] = Counter()
        self.requests_of: Counter[Process] = Counter()
        self.loosely_ordered: set[str] = set()
        self.may_drop_new = False
        self._machine = machine
        self._rows: dict[str, _Row] = {}
        self._holds: dict[tuple[str, str], tuple[str | None, str]] = {}
        self._messages: set[int] = set()
        self._newest = 0
        self._seen: dict[str, None] = {}
        self._streams: dict[tuple[str, str], list[Known]] = {}
        self._seen_up_to: dict[tuple[str, str], int] = {}
        self._erased_up_to: dict[tuple[str, str], int] = {}
        self._sights: dict[Process, Sight] = {}
        self.standing: set[Process] = set()
        self.unsupported: frozenset[str] = frozenset()
        # No drain gives up what a remote does not take that answers with pages.
        self.undecided: frozenset[str] = frozenset()
        self._taken_away: set[tuple[str, str]] = set()

    # -- the trace

    def note(self, who: object, what: str) -> None:
        """One line of the trace."""
        self.trace.append(f"{self._machine.loop.time():10.3f} {who}: {what}")

    def tail(self) -> str:
        """The end of the trace, to be read."""
        return "\n".join(self.trace[-_TRACE_TAIL:])

    def require(self, condition: bool, promise: str, *facts: object) -> None:
        """A promise that must hold now."""
        if not condition:
            violation = BrokenPromiseError(f"{promise}: {', '.join(map(str, facts))}")
            # Who is told of it may be the library, which goes on after errors.
            self._machine.loop.errors.append(violation)
            raise violation

    # -- what is committed

    def committed(self, process: Process) -> None:
        """Compare the file with what it was before a process committed, maybe several calls at once."""
        execute = self._machine.bench.look.execute
        before, holds_before = self._rows, self._holds
        rows = {
            row[0]: _Row._make(row)
            for row in execute("SELECT key, namespace, stream, state, attempts, last_error FROM outbox ORDER BY id")
        }
        # A lease that was taken from its sender is nobody's: its token is empty.
        self._holds = {(row[0], row[1]): (row[2] or None, row[3]) for row in execute("SELECT * FROM outbox_holds")}
        sent, dropped, retry_at = execute("SELECT sent, dropped, retry_at FROM sync_state").fetchone()
        self._rows = rows
        self._check_holds(process, holds_before)
        self._check_new(process, dropped - self.dropped)
        self._check_gone(process, before, holds_before, sent - self.sent, dropped - self.dropped)
        for key, row in rows.items():
            if (old := before.get(key)) is not None and old != row:
                self._check_change(process, self.known[key], old, row, holds_before)
        if retry_at is not None and clock.from_text(retry_at) > self._machine.now() + LONGEST_WAIT:
            # One that was made by a clock that was ahead may be there still; nobody heeds it.
            self.counts["waits of another clock"] += 1
        self.sent, self.dropped = sent, dropped

    def _check_new(self, process: Process, dropped: int) -> None:
        execute = self._machine.bench.look.execute
        told = 0
        found = execute("SELECT id, key, kind, body FROM outbox WHERE id > ? ORDER BY id", (self._newest,)).fetchall()
        for number, key, kind, body in found:
            row = self._rows[key]
            self.require(key not in self.known, "a key is made once", key)
            self.require((row.state, row.attempts) == ("pending", 0), "an event begins fresh", row)
            known = self.known[key] = Known(number, row, kind, body)
            self._streams.setdefault(known.place, []).append(known)
            self._newest = number
            told += kind == "message" or (kind == "metric" and "seq" in (json.loads(body).get("attributes") or ()))
            self.note(process, f"stores {number} {kind} of {row.stream}")
        messages = {row[0] for row in execute("SELECT id FROM messages")}
        new = len(messages - self._messages)
        self._messages = messages
        if not (self.may_drop_new and dropped):
            self.require(new == told, "a message and its event are there both or neither", process, new, told)

    def _check_gone(
        self, process: Process, before: dict[str, _Row], holds: dict[Any, tuple[str | None, str]], sent: int, dropped: int
    ) -> None:
        gone = [self.known[key] for key in before if key not in self._rows]
        for each in self.known.values():
            if each.fate is None and each.row.key not in self._rows and each.row.key not in before:
                # Stored and gone in one commit of several calls.
                gone.append(each)
        acknowledged = self._sight(process).acknowledged
        told = [each for each in gone if each.row.state == "pending" and each.row.key in acknowledged]
        self.require(sent >= 0 and dropped >= 0, "counts only grow", sent, dropped)
        self.require(sent <= len(told), "what is counted as sent is what was acknowledged and left", process, sent, len(told))
        # Who lost the stream before the answer came may purge the event later: then it counts as dropped, like what nobody took.
        told.sort(key=lambda each: acknowledged[each.row.key])
        delivered = told[len(told) - sent :]
        others = [each for each in gone if each not in delivered]
        lost = [each for each in others if each.row.state == "pending"]
        self.require(len(lost) <= dropped, "no event leaves without an acknowledgement, but those that are counted", *lost[:3])
        for each in delivered:
            self._require_holder(process, each, holds, "settles")
            each.fate = "sent"
        for each in others:
            each.fate = "dropped" if each in lost else "purged"
        if gone:
            self.note(process, f"lets go of {[each.number for each in gone]}, {sent} sent, {dropped} dropped")

    def _check_change(self, process: Process, known: Known, old: _Row, row: _Row, holds: dict[Any, tuple[str | None, str]]) -> None:
        known.row = row._replace(stream=known.row.stream)
        if row.attempts != old.attempts and row.state != "pending" and old.state == row.state:
            self.require(False, "a settled event does not change", row)
        change = (old.state, row.state)
        self.note(process, f"{known.number} {old.state}/{old.attempts} -> {row.state}/{row.attempts} {row.last_error or ''}")
        if row.state == "erased":
            return
        if change == ("dead", "pending"):
            self.require(row.attempts == 0, "what is requeued begins anew", row)
            return
        self._require_holder(process, known, holds, "refuses")
        if row.attempts != old.attempts:
            known.attempts += row.attempts - old.attempts
            self.require(known.attempts <= known.answers, "an attempt is an answer that refused it", known)
        if row.state == "dead":
            known.was_dead = True
            unsupported = self._is_unsupported(known)
            self.require(
                row.attempts >= MAX_ATTEMPTS or known.too_large or unsupported, "nothing is given up before its time", known
            )
            self.counts["dead"] += 1
            self.loosely_ordered.add(row.key)

    def _require_holder(self, process: Process, known: Known, holds: dict[Any, tuple[str | None, str]], does: str) -> None:
        token = holds.get(known.place, (None, ""))[0]
        owner = None if token is None else self._machine.tokens.get(token)
        self.require(owner is process, f"who {does} an event holds its stream", process, owner, known.number, known.place)

    def _check_holds(self, process: Process, before: dict[Any, tuple[str | None, str]]) -> None:
        now = self._machine.now()
        now_text, latest = clock.to_text(now), clock.to_text(now + LONGEST_WAIT)
        for place, (token, _) in before.items():
            if place not in self._holds and token is not None and self._machine.tokens.get(token) is not process:
                self._taken_away.add(place)
        for place, (token, until) in self._holds.items():
            old_token, old_until = before.get(place, (None, ""))
            if (token, until) == (old_token, old_until):
                continue
            if token != old_token or until != old_until:
                self.require(until <= latest, "nothing is held for longer than an hour", process, place, until)
            is_another = self._machine.tokens.get(old_token or "") is not process
            if old_token is not None and (is_another or (token is None and until == old_until)):
                # By an erasure, maybe of its own process: what its holder says of the stream counts for nothing.
                self._taken_away.add(place)
            is_live = old_token is not None and now_text < old_until <= latest
            # Two calls of one process in one commit: one claim of its was settled, and the other one went on with its streams.
            was_free = not is_another and (old_token, old_until) not in self._holds.values()
            if is_live and token is not None and token != old_token and not was_free:
                owner = self._machine.tokens.get(old_token)
                self.require(False, "two senders never hold one stream", process, owner, place, old_until, now_text)
            self.note(process, f"holds {place[1]} as {token and token[:8]} until {until[11:23]}")

    def sessions_held(self) -> list[str]:
        """The sessions whose events somebody is sending."""
        prefix = "session:"
        return [
            stream.removeprefix(prefix) for (_, stream), (token, _) in self._holds.items() if token and stream.startswith(prefix)
        ]

    def sessions_let_go_of(self, parcels: Iterable[Parcel]) -> list[str]:
        """The sessions of which a request will arrive, although nobody holds their streams."""
        prefix = "session:"
        places = {self.known[key].place: None for parcel in parcels for key in parcel.bodies}
        return [
            place[1].removeprefix(prefix)
            for place in places
            if place[1].startswith(prefix) and not self._holds.get(place, (None, ""))[0]
        ]

    # -- what passes between the processes and the remote

    def sending(self, parcel: Parcel) -> None:
        """A request leaves a process."""
        process, sight, at = parcel.process, self._sight(parcel.process), self._machine.loop.time()
        numbers = [self.known[key].number if key in self.known else key for key in parcel.bodies]
        self.note(process, f"sends #{parcel.number} {parcel.path} {numbers}")
        self.counts["requests"] += 1
        self.requests_of[process] += 1
        for key, body in parcel.bodies.items():
            known = self.known.get(key)
            if known is None:
                self.require(False, "what is sent is stored, with the key that it has", process, key)
                continue
            self.require(body == known.body, "the same key has the same bytes", known, body)
            self._check_sent_again(process, known)
        if sight.key_refused_at is not None and process in self.standing:
            waited = at - sight.key_refused_at
            is_even = sight.key_refused_clock == self._machine.clock_is_off
            self.require(
                waited >= _SHORTEST_KEY_PAUSE or waited < 0.05 or not is_even or self._is_out_of_step(process),
                "after a refused key nothing is sent for a while", process, waited,
            )  # fmt: skip

    def _check_sent_again(self, process: Process, known: Known) -> None:
        """What was acknowledged is about to be settled, unless something has come between."""
        if known.place in self._taken_away or self._is_out_of_step(process):
            return
        for other, sight in self._sights.items():
            told_at = sight.acknowledged.get(known.row.key)
            if told_at is not None and not (other.is_dead or self._is_out_of_step(other, told_at)):
                self.require(False, "what was acknowledged is not sent again", process, other, known)

    def _is_out_of_step(self, process: Process, at: float | None = None) -> bool:
        """Whether its lease may be over without its knowledge, now or soon after an answer: it stalled, or the clock was set."""
        at = self._machine.loop.time() if at is None else at
        return any(begun - _SETTLES_WITHIN <= at <= over + 2 * _LEASE + TIMEOUT for begun, over in process.lapses)

    def seen(self, parcel: Parcel, key: str) -> None:
        """The remote looks at an event, to store it or to refuse it."""
        known = self.known[key]
        if key in self._seen:
            self.counts["seen again"] += 1
            return
        self._seen[key] = None
        self.note("remote", f"sees {known.number} in #{parcel.number}")
        place = known.place
        if known.kind == "erase":
            self._erased_up_to[place] = max(known.number, self._erased_up_to.get(place, 0))
        elif not self._is_out_of_step(parcel.process):
            erased = self._erased_up_to.get(place, 0)
            self.require(
                known.number > erased, "what was erased does not come after the news of that", known, erased, parcel.process
            )
        if key in self.loosely_ordered or known.kind in self.unsupported or known.row.state == "erased":
            return
        if known.fate is not None and self._is_out_of_step(parcel.process):
            # It was purged while it was on its way, and a clock that was set let others go on with its stream.
            return
        newest = self._seen_up_to.get(place, 0)
        self.require(known.number > newest, "a stream is told in its order", known.number, newest, place, parcel.process)
        for earlier in self._streams[place]:
            if earlier.number >= known.number:
                break
            self.require(
                earlier.row.key in self.stored or earlier.row.key in parcel.bodies or earlier.row.state != "pending" or
                earlier.fate is not None or earlier.row.key in self.loosely_ordered or earlier.kind in self.unsupported,
                "nothing overtakes an event of its stream that waits", known.number, earlier.number, place, parcel.process,
            )  # fmt: skip
        self._seen_up_to[place] = known.number

    def answered(self, parcel: Parcel, reply: Reply) -> None:
        """An answer has come to a process that can heed it."""
        process, sight = parcel.process, self._sight(parcel.process)
        named = sorted(self.known[key].number for key in reply.named)
        self.note(process, f"is answered #{parcel.number} {reply.status} {named}")
        self.counts[f"HTTP {reply.status}"] += 1
        for key in reply.named:
            sight.acknowledged[key] = self._machine.loop.time()
        at, refused_at = self._machine.loop.time(), sight.key_refused_at
        # Requests that were on their way together are refused once.
        if reply.status in (401, 403) and (refused_at is None or at - refused_at > TIMEOUT):
            sight.key_refused_at, sight.key_refused_clock = at, self._machine.clock_is_off
        elif reply.status < 300 and reply.named:
            sight.key_refused_at = None
        if reply.status not in _NO_FAULT_OF_AN_EVENT:
            for key in parcel.bodies:
                known = self.known[key]
                known.answers += 1
                known.too_large = known.too_large or (reply.status == 413 and len(parcel.bodies) == 1)

    def _sight(self, process: Process) -> Sight:
        return self._sights.setdefault(process, Sight())

    # -- at the end

    def check_end(self, stored: dict[str, str], poison: set[str]) -> None:
        """Everything was healed and drained: each event has its end, and the remote has what it should."""
        states = Counter(each.fate or each.row.state for each in self.known.values())
        self.require(sum(states.values()) == len(self.known), "counts add up", states)
        self.require(not self.left(), "everything that can be delivered is, once all is well", self.left())
        self.require(self.sent == states["sent"], "what was sent is counted once", self.sent, states)
        self.require(stored.keys() <= self.known.keys(), "the remote has nothing of which nobody knows")
        for key, known in self.known.items():
            if known.fate == "sent":
                self.require(key in stored, "what was acknowledged is at the remote", known)
            if key in stored:
                self.require(stored[key] == known.body, "the same key has the same bytes", known)
            if known.row.state == "dead" and known.fate is None:
                unsupported = self._is_unsupported(known)
                self.require(key in poison or known.too_large or unsupported, "only poison is given up", known)

    def _is_unsupported(self, known: Known) -> bool:
        """Whether it was given up because the remote takes none of its kind, and so it is."""
        return known.kind in self.unsupported and (known.row.last_error or "").startswith(UNSUPPORTED)

    def left(self) -> list[str]:
        """The first events that wait, and must not for ever."""
        return [f"{each.number} {each.row.stream} {each.row.last_error}" for each in self.known.values()
                if each.fate is None and each.row.state == "pending" and each.kind not in self.undecided][:10]  # fmt: skip
