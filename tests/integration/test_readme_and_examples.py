"""What the README shows and what lies in examples/ works as it stands."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from pathlib import Path

import pytest
from collecting import running

import sessionstore

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
COLLECTOR = ROOT / "docs" / "collector.md"
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
LINK = re.compile(r"\]\((?!https?://)([^)#]+)")


def test_the_readme_runs_from_top_to_bottom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    first, asynchronous, *others = BLOCKS
    names: dict[str, object] = {}
    exec(first, names)
    history = names["history"]
    assert isinstance(history, list)
    assert [message["role"] for message in history] == ["user", "assistant"]

    exec("import sessionstore\nasync def main():\n" + "".join(f"    {line}\n" for line in asynchronous.splitlines()), names)
    asyncio.run(names["main"]())  # type: ignore[operator]

    with sessionstore.open("agent.db") as store:
        names.update(store=store, chat=store.session("user-alice"))
        for block in others:
            exec(block, names)
        assert [message.text for message in store.messages("user-alice")][-1] == "Hello"


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_runs_twice_on_the_same_file(example: Path, tmp_path: Path) -> None:
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-W", "error", str(example), str(tmp_path / "example.db")], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout


@pytest.mark.parametrize("document", [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))], ids=lambda path: path.name)
def test_links_between_documents_lead_somewhere(document: Path) -> None:
    for target in LINK.findall(document.read_text()):
        assert (document.parent / target).exists(), target


def test_the_collector_takes_the_requests_of_its_document(tmp_path: Path) -> None:
    text = COLLECTOR.read_text()
    posts = re.findall(
        r"curl http://127.0.0.1:8787(/\S+) -H 'Content-Type: (\S+)' -H 'Idempotency-Key: (\S+)' \\\n  -d '(.*?)'\n", text, re.DOTALL
    )
    assert [path for path, *_ in posts] == ["/conversations/start", "/conversations/end"]
    (question,) = re.findall(r"^curl http://127.0.0.1:8787(/\S+)$", text, re.MULTILINE)
    with running(tmp_path / "collected.db") as collector:
        for path, kind, key, body in posts:
            headers = {"Content-Type": kind, "Idempotency-Key": key}
            assert collector.client.post(path, content=body, headers=headers).status_code == 200
        answer = collector.client.get(question).json()
    assert (answer["overall"]["total"], answer["overall"]["success_rate"]) == (1, 1.0)
    with sessionstore.open(tmp_path / "collected.db", namespace="default//", remote=None) as store:
        assert store.get("call-17").quality_score == 4  # type: ignore[union-attr]


def test_the_collector_document_names_the_fields_that_are_needed() -> None:
    from sessionstore.collector import bodies
    from sessionstore.remote.events import PATHS

    models = {
        "conversation_start": bodies.ConversationStart, "conversation_end": bodies.ConversationEnd,
        "conversation_expired": bodies.ConversationExpired, "agent_register": bodies.AgentRegister,
        "agent_status": bodies.AgentStatusTold, "agent_activity": bodies.AgentActivity, "metric": bodies.Metric,
    }  # fmt: skip
    section = COLLECTOR.read_text().split("## A client of your own\n")[1].split("\n## ")[0]
    told = {
        path: set(re.findall(r"`(\w+)`", fields.split("(")[0])) for path, fields in re.findall(r"\| `(/\S+)` \| (.*) \|", section)
    }
    assert told == {
        PATHS[kind]: {name for name, field in model.model_fields.items() if field.is_required()} for kind, model in models.items()
    }


def test_the_schema_document_names_every_column() -> None:
    from sessionstore.sql import COLUMNS

    text = (ROOT / "docs" / "schema.md").read_text()
    for table, columns in COLUMNS.items():
        section = text.split(f"## {table}\n")[1].split("\n## ")[0]
        assert [column for column in columns if f"`{column}`" not in section] == []
