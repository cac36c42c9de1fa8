"""The SQLite store of agno: a turn is a run, saved as its agents save it, in two transactions."""

from __future__ import annotations

import time
import uuid
from typing import Any

from ..driver import Conversations, Messages


class Sqlite(Conversations):
    """SqliteDb. Its memory of runs it has read before is emptied before each read, so that the file is read."""

    def open(self) -> None:
        from agno.db.base import SessionType
        from agno.db.sqlite import SqliteDb
        from agno.models.message import Message
        from agno.run.agent import RunOutput
        from agno.run.base import RunStatus
        from agno.session.agent import AgentSession

        self._kind, self._message, self._run, self._status, self._session = SessionType, Message, RunOutput, RunStatus, AgentSession
        self._db = SqliteDb(db_file=self.path)
        self._sessions: dict[str, Any] = {}

    def new(self, session_id: str) -> None:
        self._sessions[session_id] = self._begun(session_id)
        self._db.upsert_session(self._sessions[session_id])

    def fill(self, session_id: str, messages: Messages) -> None:
        self.new(session_id)
        for start in range(0, len(messages), 2):
            self._db.upsert_run(self.ready(session_id, messages[start : start + 2]), session_id, "u", start // 2)

    def resume(self, session_id: str, messages: Messages) -> None:
        self._sessions[session_id] = self._db.get_session(session_id, self._kind.AGENT)

    def ready(self, session_id: str, messages: Messages) -> Any:
        said = [self._message(role=one["role"], content=one["content"]) for one in messages]
        return self._run(
            run_id=str(uuid.uuid4()), agent_id="a", session_id=session_id, user_id="u", content=messages[-1]["content"],
            messages=said, status=self._status.completed,
        )  # fmt: skip

    def turn(self, session_id: str, ready: Any) -> None:
        session = self._sessions[session_id]
        session.upsert_run(ready)
        self._db.upsert_session(session)
        self._db.upsert_run(ready, session_id, "u", len(session.runs) - 1)

    def newest(self, session_id: str, count: int) -> int:
        return self._read(session_id, runs_limit=count // 2)

    def whole(self, session_id: str) -> int:
        return self._read(session_id)

    def fill_list(self, count: int) -> None:
        self._db.upsert_sessions([self._begun(f"session-{number}") for number in range(count)])

    def listed(self) -> int:
        found = self._db.get_sessions(session_type=self._kind.AGENT, include_runs=False, sort_by="updated_at", sort_order="desc")
        return len(found)

    def close(self) -> None:
        self._db.close()

    def _begun(self, session_id: str) -> Any:
        return self._session(session_id=session_id, agent_id="a", user_id="u", runs=[], created_at=int(time.time()))

    def _read(self, session_id: str, **options: Any) -> int:
        self._db._run_object_cache = type(self._db._run_object_cache)()
        found = self._db.get_session(session_id, self._kind.AGENT, **options)
        return sum(len(run.messages) for run in found.runs)
