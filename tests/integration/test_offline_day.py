"""A tracker's day without a network, and what the collector knows once there is one.

The usual run is short; the full day has 10,000 conversations.
"""

from __future__ import annotations

import contextlib
import json
import random
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from trials import Trial

import sessionstore
from sessionstore import AgentOperationsTracker, AgentPerformanceTracker, NewMessage

pytestmark = pytest.mark.timeout(900)
KEYS = "desktop-key-0123456789\nother other-key-0123456789\n"
NOWHERE = "http://127.0.0.1:9"


@contextlib.contextmanager
def collector(folder: Path) -> Iterator[str]:
    """A real `sessionstore serve`; gives its URL."""
    keys = folder / "keys"
    keys.write_text(KEYS)
    keys.chmod(0o600)
    serve = [sys.executable, "-m", "sessionstore", "serve", "--port", "0"]
    where = ["--db", str(folder / "collector.db"), "--api-key-file", str(keys)]
    with subprocess.Popen([*serve, *where], stderr=subprocess.PIPE, text=True) as server:
        assert server.stderr is not None
        try:
            line = server.stderr.readline()
            found = re.search(r"http://\S+", line)
            assert found, line + server.stderr.read()
            yield found[0]
        finally:
            server.terminate()
            assert server.wait(20) == 0


def live_a_day(path: Path, base_url: str, seed: int, conversations: int) -> None:
    """Conversations of several agents that go well, badly or nowhere, with usage and times, all without a network."""
    rng = random.Random(seed)
    with (
        sessionstore.open(path, durability="normal") as store,
        AgentPerformanceTracker(base_url, "desktop-key-0123456789", store=store, background=False, max_retries=0) as tracker,
        AgentOperationsTracker(base_url, "desktop-key-0123456789", store=store, background=False, max_retries=0) as operations,
    ):
        for agent in range(5):
            operations.register_agent(f"agent_{agent}", sdk_version="1.2")
        for number in range(conversations):
            agent_id = f"agent_{rng.randrange(5)}"
            session_id = tracker.start_conversation(agent_id, user_id=f"user_{number % 50}", metadata={"n": number})
            for _ in range(rng.randrange(3)):
                asked = {"role": "user", "content": "What is this?"}
                answered = NewMessage(
                    {"role": "assistant", "content": "A secret."},
                    model=rng.choice(["m-1", "m-2"]),
                    input_tokens=rng.randrange(500),
                    output_tokens=rng.randrange(500),
                    response_time_ms=round(rng.uniform(1, 2_000), 3),
                )
                store.append_many(session_id, [asked, answered])
            match rng.randrange(10):
                case 0:
                    tracker.record_failed_session(session_id, rng.choice(["Connection timeout", "Rate limit"]))
                case 1:
                    operations.log_activity(agent_id, "left open", {"session": session_id})
                case _:
                    tracker.end_conversation(session_id, quality_score=rng.choice([None, 1, 2, 3, 4, 5]), message_count=2)
        # The same names as on the other desktop.
        store.session("user-alice", agent_id="agent_0")
        store.end("user-alice", "completed", quality_score=5)
        assert store.outbox.stats().sent == 0


def deliver(path: Path, url: str) -> str:
    """Come online under the right address; gives the store's id."""
    with sessionstore.open(path, remote=None) as store:
        store.set_remote(url, "desktop-key-0123456789", replace=True)
        assert store.flush(timeout=600)
        stats = store.outbox.stats()
        assert (stats.pending, stats.dead, stats.dropped) == (0, 0, 0)
        return store.status().store_id


def answers(store: sessionstore.SessionStore) -> dict[str, Any]:
    """What a store knows of its agents' work."""
    return {
        "success-rates": store.success_rates(),
        "response-times": store.response_times(),
        "quality": store.quality(),
        "failures": store.failures(),
        "overview": store.overview(),
    }


def comparable(answer: Any) -> Any:
    """An answer as JSON has it, without the cursor of its next page: each side has its own."""
    plain = json.loads(json.dumps(answer))
    plain.get("failures", plain).pop("next", None)
    return plain


@pytest.mark.fault("F21")
def test_a_day_offline_is_known_to_the_collector_once_there_is_a_network(tmp_path: Path, trial: Trial) -> None:
    conversations = trial.size(push=400, nightly=2_000, release=10_000)
    first, second = tmp_path / "first.db", tmp_path / "second.db"
    live_a_day(first, NOWHERE, trial.seed, conversations)
    live_a_day(second, NOWHERE, trial.seed + 1, 10)
    with collector(tmp_path) as url:
        sources = {path: deliver(path, url) for path in (first, second)}
        ask = httpx.Client(base_url=url, headers={"Authorization": "Bearer desktop-key-0123456789"}, trust_env=False)
        with ask:
            for path, source in sources.items():
                with sessionstore.open(path, remote=None) as store:
                    for name, known in answers(store).items():
                        told = ask.get(f"/metrics/{name}", params={"source": source}).raise_for_status().json()
                        assert comparable(told) == comparable(known), name
            both = ask.get("/metrics/success-rates").raise_for_status().json()["overall"]["total"]
            assert both == conversations + 10 + 2, "two desktops with the same ids stay two"
            stranger = ask.get("/metrics/success-rates", headers={"Authorization": "Bearer other-key-0123456789"})
            assert stranger.raise_for_status().json()["overall"]["total"] == 0
    with sessionstore.open(tmp_path / "collector.db", remote=None) as store:
        names = store.query("SELECT count(DISTINCT namespace) FROM sessions WHERE session_id = 'user-alice'").rows
        assert names == ((2,),)
        texts = store.query("SELECT count(*) FROM messages WHERE text IS NOT NULL").rows
        assert texts == ((0,),), "what was said stays on the desktop"
        # Each session has the figures of all its answers: every second message.
        numbered = "SELECT seq, row_number() OVER (PARTITION BY session_key ORDER BY id) AS place, 2 AS turn FROM messages"
        assert store.query(f"SELECT count(*) FROM ({numbered}) WHERE seq <> place * turn").rows == ((0,),)
        assert store.doctor().ok
    trial.report(f"a day offline: {conversations:,} conversations, all known to the collector with the same figures")
