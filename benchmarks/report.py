"""The figures as a Markdown table that grows while the work is done, and as JSON."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from .bench import Item, Row
from .scale import Scale
from .timing import Figure

_HEADINGS = ("work", "unit", "raw p50 / p95", "store p50 / p95", "ratio", "target", "met", "spread")
_WIDTHS = (58, 4, 15, 15, 5, 9, 3, 11)
_LEGEND = (
    "Medians over rounds; p95 where a round has at least 20 calls. ratio = store / raw, taken round by round. Targets in x are "
    "about the ratio, others about the store's figure. spread = lowest and highest round of what the target is about."
)


@dataclass(frozen=True, slots=True)
class Measured:
    """A row and the item that it belongs to."""

    item: str
    row: Row


def headings() -> str:
    """The head of the table."""
    return "\n".join((_line(_HEADINGS), _line(tuple("-" * width for width in _WIDTHS))))


def line(row: Row) -> str:
    """A row of the table."""
    spread = row.judged.values
    return _line(
        (
            row.work,
            row.unit,
            _cell(row.raw),
            _cell(row.store),
            "" if row.ratio is None else f"{row.ratio.median:.2f}",
            _target(row),
            {True: "yes", False: "NO", None: ""}[row.met],
            f"{_number(min(spread))}-{_number(max(spread))}" if len(spread) > 1 else "",
        )
    )


def closing(measured: Iterable[Measured], items: Iterable[Item]) -> str:
    """What stands below the table: how many targets are met, how to read it, and what raw does."""
    judged = [one.row.met for one in measured if one.row.met is not None]
    score = f"{sum(judged)} of {len(judged)} targets met. " if judged else ""
    lines = [f"{score}{_LEGEND}", "", "What raw does:"]
    return "\n".join([*lines, *(f"- {item.name}: {item.raw}" for item in items)])


def as_json(facts: dict[str, Any], scale: Scale, measured: Iterable[Measured]) -> dict[str, Any]:
    """Everything, for programs."""
    return {"machine": facts, "scale": amounts(scale), "rows": [_json_row(one) for one in measured]}


def amounts(scale: Scale) -> dict[str, int]:
    """How much work a run does, without the number of rounds: each figure shows that."""
    return {name: amount for name, amount in asdict(scale).items() if name != "rounds"}


def _json_row(measured: Measured) -> dict[str, Any]:
    row = measured.row
    return {
        "item": measured.item,
        "work": row.work.strip(),
        "unit": row.unit,
        "raw": _json_figure(row.raw),
        "store": _json_figure(row.store),
        "ratio": _json_figure(row.ratio),
        "target": None if row.target is None else {"most": row.target.most, "of": row.target.of},
        "met": row.met,
    }


def _json_figure(figure: Figure | None) -> dict[str, Any] | None:
    return None if figure is None else {"median": figure.median, "rounds": figure.values, "p95": figure.p95}


def _line(cells: tuple[str, ...]) -> str:
    return "| " + " | ".join(cell.ljust(width) for cell, width in zip(cells, _WIDTHS, strict=True)) + " |"


def _cell(figure: Figure | None) -> str:
    if figure is None:
        return ""
    slow = f" / {_number(Figure(figure.p95).median)}" if figure.p95 else ""
    return _number(figure.median) + slow


def _target(row: Row) -> str:
    if row.target is None:
        return ""
    unit = "x" if row.target.of == "ratio" else row.unit
    return f"<= {row.target.most:g}{'' if unit == 'x' else ' '}{unit}".rstrip()


def _number(value: float) -> str:
    if value == 0 or value >= 100:
        return f"{value:.0f}"
    return f"{value:.3f}" if value < 1 else f"{value:.2f}" if value < 10 else f"{value:.1f}"
