"""One seed's story: who writes and who delivers, what befalls them and the remote, and how it ends once all is well."""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Set
from dataclasses import dataclass
from datetime import timedelta

from invariants import Invariants
from machine import URL, Bench, Machine, Process
from remote_model import TIMEOUT, RemoteModel

from sessionstore import NewMessage
from sessionstore.config import StoreSettings
from sessionstore.delivery.standing import StandingDrain
from sessionstore.errors import ConflictError, NotFoundError, SessionExpiredError
from sessionstore.remote.settings import Remote

KEYS = ("key-of-the-first", "key-of-the-second")
SESSIONS = ("a", "b", "c", "d")
AGENTS = ("x", "y")
HORIZONS = (60.0,) * 8 + (200.0,) * 8 + (900.0,) * 3 + (3_600.0,)
JUMPS = (-86_400, -3_000, -90, -5, 5, 45, 90, 3_000, 7_200, 86_400, 30 * 86_400)
# Once all is well: an hour for the longest wait of all, and a quarter of one for the streams that were set aside.
LONGEST_AFTER = 2 * 3_600.0
LONGEST_WITH_POISON = 8 * 3_600.0
# Of one sender in an outage: the backoff's limit doubles from a second to five minutes, and waits are drawn from all of it.
MOST_OFFLINE = 20
MOST_OFFLINE_AN_HOUR = 60


@dataclass(frozen=True)
class Told:
    """What became of a seed."""

    seed: int
    digest: str
    events: int
    requests: int
    steps: int
    counts: Counter[str]


class SeedFailedError(AssertionError):
    """A seed found something. The message has the seed and the end of its trace."""

    def __init__(self, seed: int, error: BaseException, tail: str) -> None:
        super().__init__(seed, error, tail)
        self.seed = seed
        self.promise = str(error).partition(":")[0]

    def __str__(self) -> str:
        seed, error, tail = self.args
        return f"seed {seed}: {type(error).__name__}: {error}\n{tail}"


def play(bench: Bench, seed: int) -> Told:
    """Run one seed.

    Raises:
        SeedFailedError: A promise was broken.
    """
    story = Story(bench, seed)
    try:
        return story.play()
    except Exception as error:
        raise SeedFailedError(seed, error, story.invariants.tail()) from error
    finally:
        story.end()


class Story:
    """The parts of one seed. Everything is drawn from one generator."""

    def __init__(self, bench: Bench, seed: int) -> None:
        self.seed = seed
        self.bench = bench
        self.machine = Machine(bench, seed, self._observed)
        self.rng = rng = self.machine.rng
        self.invariants = Invariants(self.machine)
        self.is_ours = rng.random() < 0.75
        self.remote = RemoteModel(self.machine, rng, self.invariants, is_ours=self.is_ours)
        self.invariants.stored = self.remote.stored
        self.sync_messages = self.is_ours and rng.random() < 0.5
        self.has_quota = self.is_ours and rng.random() < 0.15
        self.horizon = rng.choice(HORIZONS)
        self.processes: dict[int, Process] = {}
        self.styles: dict[int, str] = {}
        self.poisoned = rng.random() < 0.3
        self.poison_of_old: set[str] = set()
        self.is_over = False
        self._offline_requests: Counter[Process] = Counter()

    def play(self) -> Told:
        self.bench.reset(sync_messages=self.sync_messages, max_bytes=1 << 16 if self.has_quota else None)
        self.invariants.may_drop_new = self.has_quota
        if not self.is_ours:
            self.remote.weather.poison_answer = self.rng.choice((400, 422, 500))
            missing = frozenset({"/conversations/expired"} if self.rng.random() < 0.3 else ())
            self.remote.weather.unknown = set(missing)
            self.remote.weather.answers_with_pages = self.rng.random() < 0.4
            kinds = {"metric", "message", "erase"} | ({"conversation_expired"} if missing else set())
            self.invariants.unsupported = frozenset(kinds)
            if self.remote.weather.answers_with_pages:
                self.invariants.undecided = self.invariants.unsupported
        else:
            self.remote.weather.poison_answer = self.rng.choice(("rejected", "rejected", 400, 500))
        with self.machine.installed(self.remote.transport):
            self.machine.loop.run(self._direct())
        trace = "\n".join(self.invariants.trace)
        counts = self.invariants.counts
        for each in self.invariants.known.values():
            counts[each.fate or each.row.state] += 1
        digest = hashlib.sha256(trace.encode()).hexdigest()
        return Told(self.seed, digest, len(self.invariants.known), counts["requests"], self.machine.loop.steps, counts)

    def end(self) -> None:
        """Nothing of it goes on."""
        asyncio._set_running_loop(self.machine.loop)
        try:
            for process in self.processes.values():
                if not process.is_dead:
                    process.kill()
        finally:
            asyncio._set_running_loop(None)

    def _observed(self, process: Process) -> None:
        known = len(self.invariants.known)
        self.invariants.committed(process)
        if self.poisoned and not self.is_over and not self.poison_of_old:
            new = [key for key, each in list(self.invariants.known.items())[known:] if each.kind != "erase"]
            if new and self.rng.random() < 0.3:
                self.remote.weather.poison.add(self.rng.choice(new))
                self.poison_of_old |= self.remote.weather.poison

    # -- the director

    async def _direct(self) -> None:
        rng, loop = self.rng, self.machine.loop
        shared = rng.random() < 0.5
        self._start(0, "writer+standing" if shared else "writer")
        self._start(1, "writer")
        for slot in (2, 3) if shared else (2, 3, 4):
            self._start(slot, rng.choice(("standing", "standing", "draining", "flushing")))
        self.remote.weather.calm = rng.choice((1.0, 0.9, 0.7, 0.4))
        self.remote.weather.most_events = rng.choice((500, 500, 500, 7, 3, 1))
        # They may overlap.
        befalling = [loop.start(loop.world, self._befall(at, incident)) for at, incident in self._incidents()]
        await asyncio.sleep(self.horizon)
        for task in befalling:
            await task
        await self._heal()
        await self._drain()
        self.invariants.check_end(self.remote.stored, self.poison_of_old)

    def _incidents(self) -> Iterator[tuple[float, Callable[[], Awaitable[None]]]]:
        rng = self.rng
        chosen = rng.choices(
            (self._kill, self._stall, self._jump, self._go_offline, self._refuse_key, self._change_weather),
            weights=(4, 3, 4, 4, 2, 4),
            k=rng.randint(0, 8),
        )
        ats = sorted(round(rng.uniform(0, self.horizon), 3) for _ in chosen)
        yield from zip(ats, chosen, strict=True)

    async def _befall(self, at: float, incident: Callable[[], Awaitable[None]]) -> None:
        await asyncio.sleep(at)
        await incident()

    def _start(self, slot: int, style: str) -> None:
        remote = Remote(
            URL, self.rng.choice(KEYS), timeout=TIMEOUT, sync_messages=self.sync_messages,
            **({"max_outbox_bytes": 1 << 16} if self.has_quota else {}),
        )  # fmt: skip
        settings = StoreSettings(durability="normal", on_expire=self.rng.choice(("keep", "keep", "delete")))
        process = self.processes[slot] = self.machine.process(slot, style, remote, settings)
        self.styles[slot] = style
        self.invariants.note(process, "starts")
        if style.startswith("writer"):
            process.start(self._write(process, self.rng.randint(3, 12)))
        if style.endswith("standing"):
            self.invariants.standing.add(process)
            process.start(StandingDrain(process.store).run())
        elif style in ("draining", "flushing"):
            process.start(self._deliver(process, style))

    async def _write(self, process: Process, calls: int) -> None:
        """A program that uses its store."""
        rng, store = self.rng, process.store
        pause = self.horizon / (calls + 2)
        for _ in range(calls):
            await asyncio.sleep(rng.choice((0.0, 0.0, 0.1, pause, pause, 2 * pause)))
            session, agent = rng.choice(SESSIONS), rng.choice(AGENTS)
            call = rng.choice(
                ("chat", "chat", "chat", "chat", "many", "record", "record", "end", "agent", "agent", "delete", "erase", "erase",
                 "sweep", "requeue", "purge")
            )  # fmt: skip
            if call == "erase":
                session = await self._while_it_is_sent(session)
            self.invariants.note(process, f"{call} {session}")
            try:
                if call in ("chat", "many"):
                    await store.session(session, agent_id=agent, ttl=rng.choice((None, None, 30.0, 600.0)))
                    message = NewMessage({"role": "assistant", "content": "word"}, model="m", output_tokens=rng.randrange(99))
                    await store.append_many(session, [message] * (rng.randint(2, 6) if call == "many" else 1))
                elif call == "record":
                    pad = "." * rng.choice((0, 0, 9_000)) if self.has_quota else ""
                    await store.record("count", rng.randrange(99), session_id=rng.choice((session, None)), attributes={"pad": pad})
                elif call == "end":
                    await store.end(session, "completed")
                elif call == "agent":
                    await store.log_activity(agent, "thought")
                elif call == "delete":
                    await store.delete(session)
                elif call == "erase" and rng.random() < 0.3:
                    await store.erase(session, rebuild=False)
                elif call == "erase":
                    await store.outbox.erase(session)
                elif call == "sweep":
                    await store.sweep()
                elif call == "requeue":
                    await store.outbox.requeue()
                else:
                    await store.outbox.purge(state=rng.choice(("dead", "erased", "pending")), older_than=rng.choice((1, 60)))
            except (NotFoundError, ConflictError, SessionExpiredError) as error:
                self.invariants.note(process, f"is refused: {type(error).__name__}")

    async def _while_it_is_sent(self, otherwise: str) -> str:
        """A session whose events are on their way, if there is one soon; one that nobody waits for, if there is such a one."""
        any_held = self.rng.random() < 0.5
        for _ in range(20):
            if let_go := self.invariants.sessions_let_go_of(self.remote.on_the_way.values()):
                return self.rng.choice(let_go)
            if any_held and (held := self.invariants.sessions_held()):
                return self.rng.choice(held)
            await asyncio.sleep(0.5)
        return otherwise

    async def _deliver(self, process: Process, style: str) -> None:
        """A program that delivers now and then, not for ever."""
        rng = self.rng
        while True:
            await asyncio.sleep(rng.choice((0.0, self.horizon / 60, self.horizon / 8, self.horizon / 8)))
            if style == "draining":
                receipt = await process.store.drain(
                    timeout=rng.choice((None, 0.05, 2.0, 20.0)), limit=rng.choice((None, None, 1, 3))
                )
                self.invariants.note(process, f"drained {receipt.sent}, {receipt.error}")
            else:
                done = await process.store.flush(timeout=rng.choice((0.3, 5.0, 40.0)))
                self.invariants.note(process, f"flushed {done}")
            await asyncio.sleep(1.0)

    # -- what befalls them

    def _somebody(self) -> int:
        return self.rng.choice(sorted(self.processes))

    async def _kill(self) -> None:
        slot = self._somebody()
        process = self.processes[slot]
        if process.is_dead:
            return
        self.invariants.note(process, "is killed")
        process.kill()
        await asyncio.sleep(self.rng.choice((0.0, 0.5, 20.0)))
        self._start(slot, self.styles[slot])

    async def _stall(self) -> None:
        process = self.processes[self._somebody()]
        seconds = self.rng.choice((1.0, 45.0, 61.0, 70.0, 150.0))
        if process.is_dead:
            return
        self.invariants.note(process, f"stalls for {seconds:g}")
        process.is_asleep = True

        def wake() -> None:
            if not process.is_dead:
                self.invariants.note(process, "wakes up")
                self.machine.loop.wake(process)

        begun = self.machine.loop.time()
        process.lapses.append((begun, begun + seconds))
        self.machine.loop.call_by(self.machine.loop.world, seconds, wake)

    async def _jump(self) -> None:
        seconds = self.rng.choice(JUMPS)
        self.invariants.note("world", f"the clock is set by {seconds}")
        self.machine.clock_is_off += timedelta(seconds=seconds)
        self._are_out_of_step()
        if self.rng.random() < 0.7:
            # Somebody corrects it.
            await asyncio.sleep(self.rng.choice((1.0, self.horizon / 4)))
            self.invariants.note("world", "the clock is right again")
            self.machine.clock_is_off -= timedelta(seconds=seconds)
            self._are_out_of_step()

    def _are_out_of_step(self) -> None:
        for process in self.processes.values():
            process.lapses.append((self.machine.loop.time(),) * 2)

    async def _go_offline(self) -> None:
        weather = self.remote.weather
        seconds = round(self.rng.uniform(1, self.horizon), 3)
        before = dict(self.invariants.requests_of)
        self.invariants.note("world", f"offline for {seconds:g}")
        weather.offline += 1
        await asyncio.sleep(seconds)
        weather.offline -= 1
        self.invariants.note("world", "online")
        for process in self.invariants.standing:
            asked = self.invariants.requests_of[process] - before.get(process, 0)
            most = MOST_OFFLINE + MOST_OFFLINE_AN_HOUR * seconds / 3_600
            self.invariants.require(asked <= most, "a dead server is asked rarely", process, asked, seconds)

    async def _refuse_key(self) -> None:
        refused = {f"Bearer {key}" for key in self.rng.choice((KEYS, KEYS[:1], KEYS[1:]))}
        self.remote.weather.refused_keys |= refused
        self.invariants.note("world", f"refuses {sorted(refused)}")
        await asyncio.sleep(self.rng.choice((5.0, self.horizon / 4)))
        self.remote.weather.refused_keys -= refused

    async def _change_weather(self) -> None:
        self.remote.weather.calm = self.rng.choice((0.0, 0.3, 0.6, 0.9))
        self.invariants.note("world", f"calm {self.remote.weather.calm}")

    # -- the end

    async def _heal(self) -> None:
        weather = self.remote.weather
        self.invariants.note("world", "all is well")
        weather.calm = 1.0
        weather.refused_keys.clear()
        if weather.poison_answer == 500 or self.rng.random() < 0.5:
            weather.poison.clear()
        self.is_over = True
        for slot, process in self.processes.items():
            if process.is_asleep and not process.is_dead:
                self.machine.loop.wake(process)
            if self.styles[slot].startswith("writer"):
                await asyncio.wait(process.tasks[:1])
                process.tasks[0].result()

    async def _drain(self) -> None:
        """Nobody but the senders goes on; a drain helps them if there is none that stands."""
        begun = self.machine.loop.time()
        stand = {slot for slot, style in self.styles.items() if style.endswith("standing")}
        self._end_all(self.styles.keys() - stand)
        if stand and self.rng.random() < 0.5:
            await self._wait_until_drained(begun)
        self._end_all(stand)
        self._start(0, "last")
        process = self.processes[0]
        await asyncio.wait([process.start(self._drain_to_the_end(process, begun))])
        process.tasks[0].result()

    def _end_all(self, slots: Set[int]) -> None:
        for slot in sorted(slots):
            if not self.processes[slot].is_dead:
                self.invariants.note(self.processes[slot], "is killed at the end")
                self.processes[slot].kill()

    async def _wait_until_drained(self, begun: float) -> None:
        pause = 1.0
        while self._left():
            if self.machine.loop.time() - begun > LONGEST_AFTER:
                self.invariants.require(False, "those that stand deliver what waits, once all is well", self._left())
            await asyncio.sleep(pause)
            pause = min(2 * pause, 300.0)

    async def _drain_to_the_end(self, process: Process, begun: float) -> None:
        loop = self.machine.loop
        while True:
            if not self.is_ours:
                # What it does not take is given up once it has taken something else.
                await process.store.log_activity("x", "the last word")
            await process.store.drain()
            outlook = await process.store._outlook()
            if not outlook.pending or (self.invariants.undecided and not self.invariants.left()):
                return
            longest = LONGEST_WITH_POISON if not self._left() else LONGEST_AFTER + 600
            if loop.time() - begun > longest:
                self.invariants.require(False, "everything is delivered, once all is well", self._left())
            free_at = outlook.free_at
            wait = 60.0 if free_at is None else (free_at - self.machine.now()).total_seconds()
            await asyncio.sleep(max(wait, 0.01))

    def _left(self) -> int:
        """How many events wait that are not behind a poisoned one."""
        poison = self.remote.weather.poison
        known = self.invariants.known
        behind = {known[key].place for key in poison if key in known}
        waiting = (each for each in known.values() if each.fate is None and each.row.state == "pending")
        return sum(each.place not in behind and each.kind not in self.invariants.unsupported for each in waiting)
