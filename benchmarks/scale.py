"""How much work a run does: the whole run, a quick look, and a trial of the program itself."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """The counts of one run.

    Attributes:
        rounds: How often the sides take turns; medians are taken over rounds.
        calls: Timed writes of each side in a round.
        reads: Timed reads of each side in a round.
        block: Calls that a side makes before it is the other one's turn.
        short, long: The lengths of histories between which growth is measured.
        recent, whole: Messages of a read of the newest ones, and of a session that is read as a whole.
        savers: Concurrent saves.
        processes, turns: Processes on one file, and turns of each.
        few_sessions, many_sessions: Sizes between which a page of sessions must stay flat.
        page: Sessions on a page.
        starts: Fresh processes of each kind in a round.
        crowd: Sessions in the file of very many; a multiple of 100.
        due, due_at_once: Sessions of it that a sweep settles in a round, and in the largest sweep.
        events: Events in the outbox that are delivered at once.
        layout_sessions, layout_messages: The file in which the layouts of a message are compared.
    """

    rounds: int
    calls: int
    reads: int
    block: int = 25
    short: int = 100
    long: int = 10_000
    recent: int = 50
    whole: int = 1_000
    savers: int = 200
    processes: int = 4
    turns: int = 500
    few_sessions: int = 10_000
    many_sessions: int = 100_000
    page: int = 50
    starts: int = 3
    crowd: int = 1_000_000
    due: int = 10_000
    due_at_once: int = 100_000
    events: int = 20_000
    layout_sessions: int = 5_000
    layout_messages: int = 500_000


WHOLE = Scale(rounds=5, calls=300, reads=100)
QUICK = Scale(
    rounds=2, calls=100, reads=20, long=4_000, turns=100, few_sessions=5_000, many_sessions=50_000, starts=1, crowd=100_000,
    due=1_000, due_at_once=10_000, events=5_000, layout_sessions=500, layout_messages=50_000,
)  # fmt: skip
# Only for tests of the benchmarks: nothing that it prints means anything.
TRIAL = Scale(
    rounds=1, calls=4, reads=2, block=2, short=4, long=20, recent=5, whole=10, savers=5, processes=2, turns=3, few_sessions=200,
    many_sessions=400, page=2, starts=1, crowd=900, due=20, due_at_once=250, events=200, layout_sessions=5, layout_messages=100,
)  # fmt: skip
