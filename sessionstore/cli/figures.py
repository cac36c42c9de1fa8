"""The verbs that compute: query and stats. They only read."""

from __future__ import annotations

import csv
import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, Literal

import typer
from rich.table import Table
from rich.text import Text

from ..errors import InvalidInputError
from .console import harmless, one_line, output, print_trimmed, say, write_json
from .looking import moment, other_namespaces

if TYPE_CHECKING:
    from ..arguments import AnalyticsFilters
    from ..values.answers import Overview
    from .target import Target

Form = Literal["table", "json", "csv"]
By = Literal["agent", "hour", "day", "week", "month"]

_STDIN: Final = "-"
_STATS: Final = ("conversations", "completed", "failed", "expired", "active", "success_rate", "quality", "answers", "p50_ms",
                 "p95_ms", "input_tokens", "output_tokens")  # fmt: skip


def form_of(*, as_json: bool, as_csv: bool, as_table: bool) -> Form:
    """The form that the options ask for, of which there may be one; a table without any."""
    forms: tuple[tuple[bool, Form], ...] = ((as_json, "json"), (as_csv, "csv"), (as_table, "table"))
    chosen = [form for wanted, form in forms if wanted]
    if len(chosen) > 1:
        raise typer.BadParameter("--json, --csv and --table exclude each other.")
    return chosen[0] if chosen else "table"


def run_query(target: Target, sql: str, *, parameters: Sequence[str], limit: int | None, form: Form) -> None:
    """The rows of a SELECT."""
    text = sys.stdin.read() if sql == _STDIN else sql
    with target.open() as store:
        result = store.query(text, _named(parameters), limit=limit)
    _write(result.columns, result.rows, form)
    if not result.rows and form == "table":
        say("no rows", "dim")


def show_stats(target: Target, *, agent: str | None, since: str | None, until: str | None, by: By, form: Form) -> None:
    """How well agents work: a row for all, and one for each agent or each stretch of time."""
    filters: AnalyticsFilters = {
        "agent_id": agent,
        "start_date": None if since is None else moment(since, "--since"),
        "end_date": None if until is None else moment(until, "--until"),
        "bucket": None if by == "agent" else by,
    }
    with target.open() as store:
        overview = store.overview(**filters)
        others = other_namespaces(store)
    if form == "json":
        write_json(overview)
        return
    rows = _by_agent(overview) if by == "agent" else _by_time(overview, by)
    if not rows:
        when = "" if since is None and until is None else " in this period"
        say(f"nothing was recorded here{when}{others}", "dim")
        return
    _write((by, *_STATS), rows, form)


def _named(parameters: Sequence[str]) -> dict[str, str]:
    named = {}
    for pair in parameters:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise typer.BadParameter("must be NAME=VALUE; write :NAME in the SQL.", param_hint="--param")
        named[name] = value
    return named


def _by_agent(overview: Overview) -> list[tuple[Any, ...]]:
    parts = (overview["success_rates"], overview["response_times"], overview["quality"], overview["tokens"])
    of_agent = [{figures["agent_id"]: figures for figures in part["agents"]} for part in parts]
    agents = list(dict.fromkeys(agent for part in of_agent for agent in part))
    rows = [("(all)", *_stats(*(part["overall"] for part in parts)))] if agents else []
    return rows + [(agent or "(none)", *_stats(*(part.get(agent, {}) for part in of_agent))) for agent in agents]


def _by_time(overview: Overview, by: By) -> list[tuple[Any, ...]]:
    parts = (overview["success_rates"], overview["response_times"], overview["quality"], overview["tokens"])
    of_start = [{bucket["start"]: bucket["overall"] for bucket in part["buckets"]} for part in parts]
    starts = sorted({start for part in of_start for start in part})
    return [(_stretch(start, by), *_stats(*(part.get(start, {}) for part in of_start))) for start in starts]


def _stats(
    success: Mapping[str, Any], times: Mapping[str, Any], quality: Mapping[str, Any], tokens: Mapping[str, Any]
) -> tuple[Any, ...]:
    rate, mean = success.get("success_rate"), quality.get("mean")
    return (
        *(success.get(name, 0) for name in ("total", "completed", "failed", "expired", "active")),
        None if rate is None else round(rate, 4),
        None if mean is None else round(mean, 2),
        times.get("count", 0),
        *(_rounded(times.get(name)) for name in ("p50_ms", "p95_ms")),
        *(tokens.get(name, 0) for name in ("input_tokens", "output_tokens")),
    )


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 1)


def _stretch(start: str, by: By) -> str:
    return datetime.fromisoformat(start).strftime("%Y-%m-%d %H:%M" if by == "hour" else "%Y-%m" if by == "month" else "%Y-%m-%d")


def _write(columns: Sequence[str], rows: Iterable[Sequence[Any]], form: Form) -> None:
    if form == "json":
        _require_own_names(columns)
        for row in rows:
            write_json(dict(zip(columns, map(_as_json, row), strict=True)))
    elif form == "csv":
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows([_in_csv(value) for value in row] for row in rows)
    else:
        _write_table(columns, rows)


def _require_own_names(columns: Sequence[str]) -> None:
    for place, name in enumerate(columns):
        if name in columns[:place]:
            raise InvalidInputError("sql", f"gives two columns named {name!r}, which a JSON object cannot hold; name them with AS")


def _as_json(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        # JSON has no such number.
        return str(value)
    return value.hex() if isinstance(value, bytes) else value


def _in_csv(value: Any) -> Any:
    """A program gets texts as they are; a terminal must not be commanded by one."""
    value = _as_json(value)
    return harmless(value) if isinstance(value, str) and sys.stdout.isatty() else value


def _write_table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    rows = list(rows)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for place, column in enumerate(columns):
        numbers = all(isinstance(row[place], int | float | None) for row in rows)
        table.add_column(one_line(column), justify="right" if numbers and rows else "left", overflow="ellipsis")
    for row in rows:
        table.add_row(*(Text(_cell(value), no_wrap=True, overflow="ellipsis") for value in row))
    print_trimmed(output(), table)


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    return "" if value is None else one_line(str(_as_json(value)))
