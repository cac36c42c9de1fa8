"""What came out: rows with their ratios, as JSON and as Markdown tables."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from .. import machine
from ..timing import Figure
from .catalog import RAW, STORE, STORE_ASYNC, Standing
from .run import Scale
from .shapes import Result
from .work import Item

_LEGEND = (
    "Medians over rounds; behind the slash the 95th percentile, where each round has at least 20 calls. A ratio is taken in each "
    "round, and the median of those is shown, with the lowest and the highest in brackets; below 1 the store is faster. Every row "
    "compares sides of one sync setting, which was read from their connections; a star means that it was forced on them."
)
_BUSY = (
    "**The load was above the number of cores when it began.** With more programs than cores the scheduler favours sides that hop "
    "between threads, and every sync waits for those of others: look at the spread of rows at FULL."
)
_SEVERAL = (
    "Seconds for all turns, the worst call in ms, failed calls and lost messages of all rounds. A process stops after "
    "{seconds:g} s; the seconds are then those that all turns would have taken."
)


@dataclass(frozen=True, slots=True)
class Row:
    """An item and what its sides took."""

    item: Item
    title: str
    results: tuple[Result, ...]

    def of(self, name: str) -> Result | None:
        """The result of a side."""
        return next((result for result in self.results if result.standing.member.name == name), None)

    @property
    def best_peer(self) -> Result | None:
        """The fastest side that is neither raw nor this store."""
        peers = [result for result in self.results if not result.standing.member.ours]
        return min(peers, key=lambda result: result.figure.median, default=None)

    def ratio(self, mine: Result | None, other: Result | None) -> Figure | None:
        """Mine over the other's, round by round."""
        if mine is None or other is None or len(mine.figure.values) != len(other.figure.values) or not all(other.figure.values):
            return None
        return mine.figure.over(other.figure)

    @property
    def met(self) -> bool | None:
        """Whether the target is reached; None without one."""
        store, target = self.of(STORE), self.item.target
        if target is None or store is None:
            return None
        judged = store.figure if target.of == "store" else self.ratio(store, self.of(RAW))
        return None if judged is None else judged.median <= target.most


@dataclass(frozen=True, slots=True)
class Report:
    """All that a run has found."""

    facts: dict[str, Any]
    versions: dict[str, str]
    standings: list[Standing]
    rows: list[Row]
    scale: Scale

    def as_json(self) -> dict[str, Any]:
        """Everything, for programs."""
        return {
            "machine": self.facts,
            "rounds": {"usual": self.scale.rounds, "heavy": self.scale.heavy_rounds},
            "versions": self.versions,
            "sides": [_json_side(standing) for standing in self.standings],
            "rows": [_json_row(row) for row in self.rows],
        }

    def as_markdown(self) -> str:
        """The tables."""
        single = [row for row in self.rows if row.item.kind == "sessions" and not _has_counts(row)]
        several = [row for row in self.rows if _has_counts(row)]
        parts = [
            "# The store beside its peers",
            machine.line(self.facts) + f". {self.scale.rounds} rounds, {self.scale.heavy_rounds} of those that take long.",
            *([_BUSY] if is_busy(self.facts) else []),
            _LEGEND,
            "## The store, raw sqlite3 and the fastest peer of each row",
            _table(_SUMMARY, map(_summary, self.rows)),
            "## Sessions",
            _matrix(single),
            "## Several processes on one file",
            _SEVERAL.format(seconds=self.scale.worker_seconds),
            _matrix(several, _process_cell),
            "## Queues",
            _matrix([row for row in self.rows if row.item.kind == "queues"]),
            "## Adapters",
            "This store as the memory of a framework, by its adapter, beside the fastest store that the framework brings along.",
            _table(("work", "adapter", "its time", "fastest of the framework", "its time", "ratio"), _adapter_rows(self.rows)),
            "## What the sides are",
            _table(("side", "version", "synchronous", "journal", "a turn or an item"), map(self._side, self.standings)),
        ]
        return "\n\n".join(parts) + "\n"

    def _side(self, standing: Standing) -> tuple[str, ...]:
        usual = standing.usual
        forced = [name for name, setting in standing.at.items() if setting.forced]
        more = f", {', '.join(forced)} when forced" if forced else ""
        if usual is not None and any(setting.taking != setting.synchronous for setting in standing.at.values()):
            more += "; takes are always full"
        return (
            standing.member.name,
            f"{standing.peer.name} {self.versions[standing.peer.name]}",
            "failed" if usual is None else usual.synchronous + more,
            "" if usual is None else usual.journal_mode,
            standing.member.does,
        )


def is_busy(facts: dict[str, Any]) -> bool:
    """Whether other programs kept all cores busy when the run began."""
    return facts["load"] is not None and facts["load"] > facts["cores"]


_SUMMARY = ("work", "raw", "store", "store / raw", "target", "store, awaited", "fastest peer", "its time", "store / fastest peer")


def line(row: Row) -> str:
    """A row of the summary, for the terminal."""
    return " | ".join(_summary(row))


def _summary(row: Row) -> tuple[str, ...]:
    raw, store, best = row.of(RAW), row.of(STORE), row.best_peer
    beside = row.ratio(store, best)
    return (
        row.title,
        _cell(raw, row.item.unit),
        _cell(store, row.item.unit),
        _spread(row.ratio(store, raw)),
        _target(row),
        _cell(row.of(STORE_ASYNC), row.item.unit),
        "" if best is None else best.standing.member.name + _star(best),
        _cell(best, row.item.unit),
        _spread(beside) + (" **behind**" if beside is not None and beside.median > 1 else ""),
    )


def _matrix(rows: list[Row], cell: Callable[[Result | None, str], str] | None = None) -> str:
    shown = cell or _cell
    names = list(dict.fromkeys(result.standing.member.name for row in rows for result in row.results))
    heads = ("side", *(f"{row.title}, {row.item.unit}" for row in rows))
    body = [(name, *(shown(row.of(name), "") + _star(row.of(name)) for row in rows)) for name in names]
    return _table(heads, body)


def _adapter_rows(rows: list[Row]) -> list[tuple[str, ...]]:
    found = []
    for row in rows:
        for mine in row.results:
            framework = mine.standing.member.through
            own = [one for one in row.results if one.standing.peer.name == framework and not one.standing.member.ours]
            if framework and own:
                best = min(own, key=lambda one: one.figure.median)
                unit = row.item.unit
                ratio = _spread(row.ratio(mine, best))
                found.append(
                    (row.title, mine.standing.member.name, _cell(mine, unit), best.standing.member.name, _cell(best, unit), ratio)
                )
    return found


def _process_cell(result: Result | None, _: str) -> str:
    if result is None:
        return ""
    counts = result.counts
    told = [f"{number(result.figure.median)} s", f"{counts['worst call ms']:.0f} ms"]
    told += [f"{counts[name]:.0f} {name}" for name in ("failed calls", "lost messages") if counts[name]]
    return ", ".join(told)


def _has_counts(row: Row) -> bool:
    return any("worst call ms" in result.counts for result in row.results)


def _cell(result: Result | None, unit: str) -> str:
    if result is None:
        return ""
    figure = result.figure
    slow = f" / {number(Figure(figure.p95).median)}" if figure.p95 else ""
    failed = f" ({result.counts['failed calls']:.0f} failed)" if result.counts.get("failed calls") else ""
    return f"{number(figure.median)}{slow} {unit}".rstrip() + failed


def _spread(figure: Figure | None) -> str:
    if figure is None:
        return ""
    values = figure.values
    return f"{figure.median:.2f}" + (f" ({min(values):.2f}-{max(values):.2f})" if len(values) > 1 else "")


def _target(row: Row) -> str:
    target = row.item.target
    if target is None:
        return ""
    unit = "x" if target.of == "ratio" else f" {row.item.unit}"
    return f"<= {target.most:g}{unit}: " + {True: "met", False: "missed", None: ""}[row.met]


def _star(result: Result | None) -> str:
    return "\\*" if result is not None and result.setting is not None and result.setting.forced else ""


def _table(heads: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    heads = tuple(heads)
    lines = [heads, ("---",) * len(heads), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def number(value: float) -> str:
    """A figure in three digits or so."""
    if value == 0 or value >= 100:
        return f"{value:,.0f}"
    return f"{value:.3f}" if value < 1 else f"{value:.2f}" if value < 10 else f"{value:.1f}"


def _json_side(standing: Standing) -> dict[str, Any]:
    usual = standing.usual
    return {
        "name": standing.member.name,
        "driver": standing.member.driver,
        "peer": standing.peer.name,
        "ours": standing.member.ours,
        "does": standing.member.does,
        "synchronous": None if usual is None else usual.synchronous,
        "journal_mode": None if usual is None else usual.journal_mode,
        "takes_part_at": {name: {"forced": setting.forced} for name, setting in standing.at.items()},
    }


def _json_row(row: Row) -> dict[str, Any]:
    raw, store, best = row.of(RAW), row.of(STORE), row.best_peer
    target = row.item.target
    return {
        "item": row.item.name,
        "work": row.title,
        "unit": row.item.unit,
        "sync": row.item.sync,
        "sides": [_json_result(row, result, raw) for result in row.results],
        "fastest_peer": None if best is None else best.standing.member.name,
        "store_over_raw": _json_figure(row.ratio(store, raw)),
        "store_over_fastest_peer": _json_figure(row.ratio(store, best)),
        "target": None if target is None else {"most": target.most, "of": target.of},
        "met": row.met,
    }


def _json_result(row: Row, result: Result, raw: Result | None) -> dict[str, Any]:
    setting = result.setting
    return {
        "name": result.standing.member.name,
        "ours": result.standing.member.ours,
        "synchronous": None if setting is None else setting.synchronous,
        "journal_mode": None if setting is None else setting.journal_mode,
        "forced": setting is not None and setting.forced,
        **_json_figure(result.figure),
        "over_raw": _json_figure(row.ratio(result, raw)),
        "counts": result.counts,
        "reasons": result.reasons,
    }


def _json_figure(figure: Figure | None) -> dict[str, Any]:
    return {} if figure is None else {"median": figure.median, "rounds": figure.values, "p95": figure.p95}
