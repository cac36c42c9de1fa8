"""The charts: how long each side takes, the store in its own colour. `python -m benchmarks.peers.chart FOLDER` draws them again."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

_TITLE = "sessionstore beside its peers: further left is better; logarithmic scales"
_PANELS = ("append-1000", "load", "saves", "start")
_STORE, _ADAPTER, _PEER, _RAW, _INK, _FAINT = "#c2293f", "#b8707b", "#30638e", "#8d99a6", "#1f2933", "#d9dee3"
_WIDTH, _ROW_HEIGHT, _ROOM = 13.0, 0.29, 1.1
# The axis ends so far from the outermost dots, as a factor: there the figures stand.
_BEFORE, _BEHIND = 0.6, 4.5


def draw(figures: Path, out: Path) -> None:
    """Draw peers.png and peers.svg, on a ground of their own, so that they can be read on a page of any colour.

    Raises:
        ModuleNotFoundError: There is no matplotlib.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    found = json.loads(figures.read_text())
    rows = [row for name in _PANELS for row in found["rows"] if row["item"] == name and row["sides"]]
    if not rows:
        return
    with rc_context({"font.size": 9, "text.color": _INK, "svg.hashsalt": "peers", "font.family": "sans-serif"}):
        lines = -(-len(rows) // 2)
        heights = [max(len(row["sides"]) for row in rows[2 * at : 2 * at + 2]) * _ROW_HEIGHT + _ROOM for at in range(lines)]
        picture = Figure(figsize=(_WIDTH, sum(heights) + 1.2), facecolor="white", layout="constrained")
        grid = picture.add_gridspec(lines, min(2, len(rows)), height_ratios=heights, hspace=0.04, wspace=0.03)
        peers = {side["name"]: side["peer"] for side in found["sides"]}
        for at, row in enumerate(rows):
            _panel(picture.add_subplot(grid[at // 2, at % 2]), row, peers)
        picture.suptitle(_TITLE, fontsize=13, weight="bold", x=0.01, ha="left")
        picture.supxlabel(_caption(found), fontsize=8, color="#52606d", x=0.01, ha="left")
        picture.savefig(out / "peers.png", dpi=130)
        picture.savefig(out / "peers.svg", metadata={"Date": None})


def _panel(axes: Any, row: dict[str, Any], peers: dict[str, str]) -> None:
    """The sides of a row, the fastest on top: a dot for the median over rounds, a line from the lowest to the highest round."""
    sides = sorted(row["sides"], key=lambda side: side["median"], reverse=True)
    for place, side in enumerate(sides):
        colour = _colour(side, peers)
        rounds, is_store = side["rounds"], side["name"] == "store"
        weight = "bold" if is_store else "normal"
        axes.plot([min(rounds), max(rounds)], [place] * 2, color=colour, linewidth=3, alpha=0.35, solid_capstyle="round")
        axes.plot(side["median"], place, "o", color=colour, markersize=8 if is_store else 6.5)
        figure = f"{_digits(side['median'])} {row['unit']}"
        at = {"xytext": (8, 0), "textcoords": "offset points", "va": "center"}
        axes.annotate(figure, (max(rounds), place), **at, color=_ink(side, peers), weight=weight)
    values = [value for side in sides for value in side["rounds"]]
    axes.set_xscale("log")
    axes.set_xlim(min(values) * _BEFORE, max(values) * _BEHIND)
    axes.set_yticks(range(len(sides)), [_label(side, peers) for side in sides])
    for text, side in zip(axes.get_yticklabels(), sides, strict=True):
        text.set_color(_ink(side, peers))
        text.set_weight("bold" if side["name"] == "store" else "normal")
    # The setting is in the caption, the unit with each figure.
    axes.set_title(row["work"].removesuffix(", FULL"), loc="left", fontsize=10.5, weight="bold")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.10g}")
    axes.grid(axis="x", color=_FAINT, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, colors=_INK, which="both")
    for name in ("top", "right", "left", "bottom"):
        axes.spines[name].set_visible(False)


def _is_raw(side: dict[str, Any]) -> bool:
    return bool(side["name"].startswith("raw"))


def _colour(side: dict[str, Any], peers: dict[str, str]) -> str:
    if _is_raw(side):
        return _RAW
    if not side["ours"]:
        return _PEER
    return _STORE if peers[side["name"]] == "sessionstore" else _ADAPTER


def _ink(side: dict[str, Any], peers: dict[str, str]) -> str:
    return _colour(side, peers) if side["ours"] and not _is_raw(side) else _INK


def _label(side: dict[str, Any], peers: dict[str, str]) -> str:
    """A side's name, with that of its peer where it does not say it."""
    peer = peers[side["name"]]
    star = "*" if side["forced"] else ""
    if side["ours"]:
        return side["name"] if peer == "sessionstore" else f"{side['name']} (store by its adapter)"
    name = side["name"] if peer in side["name"] else f"{peer} {side['name']}"
    return name + star


def _caption(found: dict[str, Any]) -> str:
    facts, rounds = found["machine"], found["rounds"]
    return (
        f"Medians of {rounds['heavy']} to {rounds['usual']} rounds in turns, lines: lowest to highest round. Every commit synced "
        f"(synchronous=FULL, read from the connections).\n{facts['date'][:10]}: {facts['cores']} cores ({facts['cpu']}), "
        f"{facts['system'].split('-')[0]}, load {facts['load']}, {facts['file_system']}, sync of 4 kB {facts['sync_ms']:.2f} ms, "
        f"Python {facts['python']}, SQLite {facts['sqlite']}."
    )


def _digits(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


if __name__ == "__main__":
    # The folder of the figures, and another one for the charts if that is wanted.
    draw(Path(sys.argv[1]) / "peers.json", Path(sys.argv[-1]))
