"""The demo keeps its promise, and says so if it could not."""

from __future__ import annotations

import io
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from rich.console import Console

import sessionstore
from sessionstore.cli.demo import LIVE_SESSION, SHOWN_SESSION, missing, record_and_kill, verify

Demo = tuple[Path, subprocess.CompletedProcess[str]]


def run_demo(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "sessionstore", "demo", *arguments],
        capture_output=True,
        encoding="utf-8",
        env=os.environ | {"TMPDIR": str(folder), "TEMP": str(folder), "PYTHONIOENCODING": "utf-8"} | environment,
        check=False,
    )


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Demo:
    """The temporary folder of a demo, and what it told."""
    folder = tmp_path_factory.mktemp("shown")
    return folder, run_demo(folder, NO_COLOR="1")


@pytest.fixture(scope="module")
def placed(tmp_path_factory: pytest.TempPathFactory) -> Demo:
    """The folder that a demo was told to go to, and what it told; other stores have a remote and a key in the environment."""
    folder = tmp_path_factory.mktemp("placed") / "it's a folder"
    elsewhere = {"SESSIONSTORE_SYNC_URL": "https://other.example", "SESSIONSTORE_SYNC_TOKEN": "a key that is none"}
    return folder, run_demo(folder.parent, "--path", str(folder), **elsewhere)


def test_the_demo_ignores_the_remote_of_the_environment(placed: Demo) -> None:
    _, run = placed
    assert (run.returncode, run.stderr) == (0, "")
    assert "both sides agree" in run.stdout


def test_a_newcomer_sees_that_nothing_is_lost(shown: Demo) -> None:
    folder, run = shown
    assert (run.returncode, run.stderr) == (0, "")
    told = re.search(r"all (\d+) acknowledged messages are there, none is lost", run.stdout)
    assert told
    assert int(told[1]) >= 150
    (path,) = folder.glob("*/demo.db")
    assert str(path) in run.stdout
    assert "tide_table(" in run.stdout
    assert f"sessionstore --store {path} sessions" in run.stdout
    with sessionstore.open(path, must_exist=True) as store:
        assert store.count() == 3
        assert store.doctor().ok
        assert store.get(LIVE_SESSION).message_count >= int(told[1])  # type: ignore[union-attr]
        assert store.check(SHOWN_SESSION).ok
        assert sum(message.output_tokens or 0 for message in store.messages(SHOWN_SESSION)) > 0


def test_a_newcomer_sees_that_both_sides_agree(shown: Demo) -> None:
    folder, run = shown
    delivered = re.search(r"(\d+) events had waited, (\d+) delivered, none is left", run.stdout)
    assert delivered
    assert int(delivered[1]) == int(delivered[2]) > 0
    assert "both sides agree" in run.stdout
    (path,) = folder.glob("*/collector.db")
    with sessionstore.open(path, must_exist=True, remote=None) as store:
        assert store.query("SELECT count(*) FROM v_sessions").rows == ((3,),)
        assert store.query("SELECT count(*) FROM messages WHERE text IS NOT NULL").rows == ((0,),)


def test_the_demo_reads_well_without_colour(shown: Demo) -> None:
    assert shown[1].stdout
    assert "\x1b" not in shown[1].stdout


def test_the_demo_goes_where_it_is_told_and_never_over_an_old_one(placed: Demo) -> None:
    folder, run = placed
    assert run.returncode == 0
    before = (folder / "demo.db").read_bytes()
    again = run_demo(folder.parent, "--path", str(folder))
    assert again.returncode == 1
    assert again.stderr.startswith("error: ")
    assert (folder / "demo.db").read_bytes() == before


def pasted(run: subprocess.CompletedProcess[str], folder: Path, **environment: str) -> None:
    """Every closing command of a demo does in a shell what it promises."""
    commands = [line.strip() for line in run.stdout.partition("yours to look into:")[2].splitlines() if line.strip()]
    assert len(commands) >= 2
    for command in commands:
        done = subprocess.run(
            command, shell=True, capture_output=True, encoding="utf-8", cwd=folder, env=os.environ | environment, check=False
        )
        assert (done.returncode, done.stderr) == (0, ""), command
        assert done.stdout


def test_the_closing_commands_work_when_pasted(placed: Demo) -> None:
    folder, run = placed
    assert shlex.join([sys.executable, "-m", "sessionstore"]) in run.stdout
    pasted(run, folder.parent)


@pytest.mark.skipif(os.name != "posix", reason="needs a script with a first line that names Python")
@pytest.mark.parametrize("on_path", [True, False])
def test_the_closing_commands_name_the_script_that_was_started(tmp_path: Path, on_path: bool) -> None:
    folder = tmp_path / "my scripts"
    folder.mkdir()
    script = folder / "sessionstore"
    script.write_text(f"#!{sys.executable}\nimport sys\nfrom sessionstore.cli import main\nsys.exit(main())\n")
    script.chmod(0o755)
    path = f"{folder}{os.pathsep}{os.defpath}" if on_path else os.defpath
    run = subprocess.run(
        ["./sessionstore", "demo", "--path", str(tmp_path)],
        capture_output=True,
        encoding="utf-8",
        cwd=folder,
        env=os.environ | {"PATH": path},
        check=False,
    )
    assert (run.returncode, run.stderr) == (0, "")
    assert f"  {'sessionstore' if on_path else shlex.quote(str(script))} --store {tmp_path / 'demo.db'} sessions\n" in run.stdout
    pasted(run, tmp_path, PATH=path)


@pytest.fixture(scope="module")
def left_behind(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[int]]:
    """The folder of a killed writer, and what it had acknowledged."""
    folder = tmp_path_factory.mktemp("killed")
    return folder, record_and_kill(folder / "demo.db", "http://127.0.0.1:9", kill_after=20)


@pytest.fixture
def killed(left_behind: tuple[Path, list[int]], tmp_path: Path) -> tuple[Path, list[int]]:
    """A copy of what the killed writer left, its log included; nobody has it open."""
    folder, acknowledged = left_behind
    return shutil.copytree(folder, tmp_path / "copy") / "demo.db", acknowledged


def told(path: Path, acknowledged: list[int]) -> tuple[int, str]:
    console = Console(file=io.StringIO(), width=200)
    code = verify(path, acknowledged, console)
    return code, console.file.getvalue()  # type: ignore[attr-defined]


def test_the_writer_is_killed_while_it_writes(killed: tuple[Path, list[int]]) -> None:
    path, acknowledged = killed
    assert acknowledged == list(range(1, len(acknowledged) + 1))
    assert len(acknowledged) >= 20
    with sessionstore.open(path, must_exist=True) as store:
        assert missing(store, acknowledged) == []


def test_a_lost_message_is_told_and_fails_the_demo(killed: tuple[Path, list[int]], capsys: pytest.CaptureFixture[str]) -> None:
    path, acknowledged = killed
    code, words = told(path, [*acknowledged, 100_000])
    assert code == 1
    assert "1 acknowledged message missing" in words
    assert told(path, acknowledged)[0] == 0


def test_a_changed_message_is_told_and_fails_the_demo(killed: tuple[Path, list[int]]) -> None:
    path, acknowledged = killed
    with sessionstore.open(path) as store:
        store.truncate(LIVE_SESSION, after=0)
    code, words = told(path, acknowledged)
    assert code == 1
    assert f"{len(acknowledged)} acknowledged messages missing" in words


def test_a_writer_that_acknowledged_nothing_fails_the_demo(killed: tuple[Path, list[int]]) -> None:
    assert told(killed[0], []) == (1, "  FAILED: the writing process acknowledged nothing\n")


def test_the_writer_ends_when_nobody_listens(tmp_path: Path) -> None:
    """It must not fill the disk after its parent has died."""
    command = [sys.executable, "-m", "sessionstore.cli.demo", str(tmp_path / "demo.db")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as child:
        assert child.stdout is not None
        child.stdout.readline()
        child.stdout.close()
        assert child.wait(60) != 0


def test_the_temporary_folder_is_the_system_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sessionstore.cli.demo import _fresh_file

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    first, second = _fresh_file(None), _fresh_file(None)
    assert first != second
    assert first.parent.parent == second.parent.parent == tmp_path
