"""The verb search: what it shows, and that stored text has no power over the terminal."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import sessionstore
from sessionstore.cli import main

EVIL = "\x1b]0;title\x07 [bold]markup[/bold] \u202e"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file with a few messages."""
    with sessionstore.open(tmp_path / "agent.db") as store:
        store.session("a", agent_id="helper", user_id="u", tags=["t"]).append("user", "the Wörld\nsays " + EVIL)
        store.session("b").append("assistant", "another world 天気")
    return tmp_path / "agent.db"


def run(capsys: pytest.CaptureFixture[str], path: Path, *arguments: str) -> tuple[int, str, str]:
    code = main(["--store", str(path), "search", *arguments])
    out, err = capsys.readouterr()
    return code, out, err


def test_hits_are_shown_with_their_sessions(capsys: pytest.CaptureFixture[str], path: Path) -> None:
    code, out, err = run(capsys, path, "WORLD", "--order", "newest")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert [line.split("  ")[:2] for line in lines if line.startswith(("a", "b"))] == [["b #1", "assistant"], ["a #1", "user"]]
    assert "  another world 天気" in lines
    assert not {"\x1b", "\x07", "\u202e"} & set(out)
    assert "[bold]markup[/bold]" in out


def test_json_has_all_that_is_known_of_a_hit(capsys: pytest.CaptureFixture[str], path: Path) -> None:
    code, out, _ = run(capsys, path, "天気", "--json")
    (hit,) = map(json.loads, out.splitlines())
    assert code == 0
    assert (hit["session_id"], hit["seq"], hit["role"], hit["rank"]) == ("b", 1, "assistant", None)
    ((first, last),) = hit["highlights"]
    assert hit["snippet"][first:last] == "天気"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("world", "--session", "a"), ["a"]),
        (("world", "--agent", "helper"), ["a"]),
        (("world", "--user", "u"), ["a"]),
        (("world", "--role", "assistant"), ["b"]),
        (("world", "--tag", "t"), ["a"]),
        (("world", "--since", "1h", "--limit", "1"), ["b"]),
        (("wor",), []),
        (("wor", "--prefix", "--session", "b"), ["b"]),
        (("another OR nothing", "--raw"), ["b"]),
        (('"(',), []),
    ],
)
def test_options_choose_the_hits(
    capsys: pytest.CaptureFixture[str], path: Path, arguments: tuple[str, ...], expected: list[str]
) -> None:
    code, out, err = run(capsys, path, *arguments, "--json", "--order", "newest")
    assert code == 0
    assert [json.loads(line)["session_id"] for line in out.splitlines()] == expected
    assert ("nothing was found" in err) is (not expected)


def test_what_is_wrong_is_one_line(capsys: pytest.CaptureFixture[str], path: Path) -> None:
    for arguments, word in (
        (("(", "--raw"), "FTS5"),
        (("x" * 1001,), "1000"),
        (("x", "--raw", "--prefix"), "exclude"),
        (("x", "--role", "boss"), "role"),
    ):
        code, out, err = run(capsys, path, *arguments)
        assert (code, out, len(err.splitlines())) == (2, "", 1)
        assert word in err
    assert run(capsys, path, "x", "--session", "none")[0] == 1
    with sessionstore.open(path) as store:
        store.set_search("off")
    code, _, err = run(capsys, path, "x")
    assert code == 1
    assert "set_search" in err
