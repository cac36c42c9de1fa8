"""What got slower: the rows of a run beside those of an earlier one, as ratios to raw wherever there is a raw side.

A row has changed if its median moved by a quarter at least and no round of the one run reaches into the rounds of the other:
their spread is the slack. A row of one round has no spread, and must have doubled or halved. What has no raw side is divided by
how long fixed work took on the machine in the same run, and is not compared at all on another machine.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

LEAST_CHANGE: Final = 1.25
LEAST_CHANGE_OF_ONE_ROUND: Final = 2.0
# Figures at FULL move with the disk; so much more or less is said.
_OTHER_DISK: Final = 1.5
_SAME_MACHINE: Final = ("cpu", "cores", "file_system")
_TIMES: Final = ("s", "ms", "us")

Figures = Mapping[str, Any]
Name = tuple[str, str, int]
Change = Literal["slower", "faster", "level"]


class OtherWorkError(ValueError):
    """Two runs that did not do the same work say nothing about each other."""


@dataclass(frozen=True, slots=True)
class Compared:
    """A row of both runs.

    Attributes:
        name: Its item, its words, and which one of these words it is.
        unit: Of the rounds: "times raw", or the row's own; of times "at the present speed" of the machine.
        before, now: The rounds.
    """

    name: Name
    unit: str
    before: tuple[float, ...]
    now: tuple[float, ...]

    @property
    def factor(self) -> float:
        """The median of now over that of before; infinite if there was nothing and is something now."""
        before, now = statistics.median(self.before), statistics.median(self.now)
        if not before:
            return float("inf") if max(self.now) > 0 else 1.0
        return now / before

    @property
    def change(self) -> Change:
        """What became of it, beyond the spread."""
        least = LEAST_CHANGE_OF_ONE_ROUND if min(len(self.before), len(self.now)) == 1 else LEAST_CHANGE
        if self.factor >= least and min(self.now) > max(self.before):
            return "slower"
        if self.factor <= 1 / least and max(self.now) < min(self.before):
            return "faster"
        return "slower" if self.factor == float("inf") else "level"

    def __str__(self) -> str:
        item, work, number = self.name
        place = f"{item} | {work}" + (f" ({number + 1})" if number else "")
        before, now = _number(statistics.median(self.before)), _number(statistics.median(self.now))
        return (
            f"{self.change}: {place}: {before} -> {now} {self.unit}, {self.factor:.2f} times "
            f"(rounds {_range(self.before)} -> {_range(self.now)})"
        )


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two runs beside each other.

    Attributes:
        rows: The rows that both have and that can be compared.
        elsewhere: Those that cannot, because they have no raw side and were measured on another machine.
        new: Those that only the present run has.
        missing: Those that only the earlier one has, of the items that were run.
        notes: What else is to be known about the two runs.
    """

    rows: tuple[Compared, ...]
    elsewhere: tuple[Name, ...]
    new: tuple[Name, ...]
    missing: tuple[Name, ...]
    notes: tuple[str, ...]

    @property
    def slower(self) -> list[Compared]:
        """The rows that got slower."""
        return [row for row in self.rows if row.change == "slower"]

    def confirmed_by(self, again: Comparison) -> Comparison:
        """The comparison with what seemed slower as it was when it was measured a second time."""
        later = {row.name: row for row in again.rows}
        rows = (later.get(row.name, row) if row.change == "slower" else row for row in self.rows)
        return replace(self, rows=tuple(rows))


def require_same_work(landed: Figures, amounts: Mapping[str, int]) -> None:
    """Refuse figures of another amount of work, before anything is measured.

    Raises:
        OtherWorkError: They are.
    """
    if landed["scale"] != amounts:
        raise OtherWorkError("the landed figures are of another amount of work: a --quick run compares with a --quick run")


def compare(before: Figures, now: Figures, items: Container[str] | None = None) -> Comparison:
    """The rows of two runs, as `report.as_json` gives them.

    Args:
        before: The earlier one.
        now: The later one, which may have fewer items.
        items: What the later one ran; by default all that it has rows of.
    """
    old, facts = dict(_named(before)), (before["machine"], now["machine"])
    ran = {row["item"] for row in now["rows"]} if items is None else items
    is_same = all(facts[0].get(name) == facts[1].get(name) for name in _SAME_MACHINE)
    rows, elsewhere, new = [], [], []
    for name, row in _named(now):
        earlier = old.pop(name, None)
        if earlier is None:
            new.append(name)
        elif row["ratio"] is not None and earlier["ratio"] is not None:
            rows.append(Compared(name, "times raw", _rounds(earlier["ratio"]), _rounds(row["ratio"])))
        elif is_same:
            rows.append(_without_raw(name, earlier, row, facts))
        else:
            elsewhere.append(name)
    missing = tuple(name for name in old if name[0] in ran)
    return Comparison(tuple(rows), tuple(elsewhere), tuple(new), missing, tuple(_notes(*facts, is_same=is_same)))


def report(comparison: Comparison) -> list[str]:
    """The lines that tell it: what changed, a line each, or that nothing got slower."""
    changed = [row for row in comparison.rows if row.change != "level"]
    lines = [*comparison.notes, *(str(row) for row in sorted(changed, key=lambda row: (row.change, row.name)))]
    if comparison.elsewhere:
        lines.append(f"not comparable on another machine: {_listed(comparison.elsewhere)}")
    if comparison.new:
        lines.append(f"not among the landed figures: {_listed(comparison.new)}")
    if comparison.missing:
        lines.append(f"landed, but not in this run: {_listed(comparison.missing)}")
    if not comparison.slower:
        lines.append(f"Nothing got slower beyond the spread: {len(comparison.rows)} rows are level with the landed ones or faster.")
    return lines


def _without_raw(name: Name, before: Figures, now: Figures, facts: tuple[Figures, Figures]) -> Compared:
    rounds = _rounds(before["store"]), _rounds(now["store"])
    if now["unit"] not in _TIMES:
        # Bytes and counts are the same on a slow machine.
        return Compared(name, now["unit"], *rounds)
    before_ms, now_ms = (each["calibration_ms"] for each in facts)
    # As if the machine had been as fast as it is now.
    return Compared(name, f"{now['unit']} at the present speed", tuple(each * now_ms / before_ms for each in rounds[0]), rounds[1])


def _named(figures: Figures) -> Iterator[tuple[Name, Figures]]:
    """The rows by their names; several rows of an item may have the same words."""
    seen: Counter[tuple[str, str]] = Counter()
    for row in figures["rows"]:
        words = row["item"], row["work"]
        yield (*words, seen[words]), row
        seen[words] += 1


def _notes(before: Figures, now: Figures, *, is_same: bool) -> Iterator[str]:
    yield f"against the figures of {before['date']}, commit {before['commit']}"
    if not is_same:
        yield f"those were taken on another machine: {', '.join(str(before.get(name)) for name in _SAME_MACHINE)}"
    if not 1 / _OTHER_DISK < now["sync_ms"] / before["sync_ms"] < _OTHER_DISK:
        yield (
            f"the disk's sync of 4 kB took {before['sync_ms']:.2f} ms then and takes {now['sync_ms']:.2f} now: "
            "ratios at FULL come closer to 1 with a slow one"
        )


def _rounds(figure: Figures) -> tuple[float, ...]:
    return tuple(figure["rounds"])


def _range(values: tuple[float, ...]) -> str:
    return _number(values[0]) if len(values) == 1 else f"{_number(min(values))}-{_number(max(values))}"


def _number(value: float) -> str:
    return f"{value:.3g}"


def _listed(names: tuple[Name, ...]) -> str:
    return "; ".join(f"{item} | {work}" for item, work, _ in names)
