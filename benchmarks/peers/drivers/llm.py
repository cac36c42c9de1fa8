"""The log of the llm command: a turn is a response whose prompt has the whole conversation, logged by `log_to_db`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

from ..driver import Conversations, Messages


class Log(Conversations):
    """`Response.log_to_db`; the response comes from a model that answers at once, before the clock starts."""

    # Its connection belongs to one thread.
    concurrent: ClassVar[bool] = False

    def open(self) -> None:
        import llm
        import sqlite_utils
        from llm.logs import LogStore
        from llm.parts import Message, TextPart

        class Model(llm.Model):
            model_id = "at-once"
            can_stream = False
            answer = ""

            def execute(self, *_: Any, **__: Any) -> Iterator[str]:
                yield self.answer

        self._message, self._text, self._model = Message, TextPart, Model()
        self._db = sqlite_utils.Database(self.path)
        self._log = LogStore(self._db)
        self._chains: dict[str, list[Any]] = {}
        self._tips: dict[str, str | None] = {}

    def new(self, session_id: str) -> None:
        self._chains[session_id] = []

    def fill(self, session_id: str, messages: Messages) -> None:
        self._chains[session_id] = [self._said(session_id, message) for message in messages]
        with self._db.atomic():
            self._log.ensure_chain(self._chains[session_id])

    def resume(self, session_id: str, messages: Messages) -> None:
        from llm.logs import message_hash

        chain = self._chains[session_id] = [self._said(session_id, message) for message in messages]
        tip = None
        for message in chain:
            tip = message_hash(message, tip)
        self._tips[session_id] = tip

    def ready(self, session_id: str, messages: Messages) -> Any:
        question, answer = messages
        chain = self._chains[session_id]
        chain.append(self._said(session_id, question))
        self._model.answer = answer["content"]
        response = self._model.prompt(messages=list(chain))
        response.text()
        chain.append(self._message(role="assistant", parts=[self._text(text=answer["content"])]))
        return response

    def turn(self, session_id: str, ready: Any) -> None:
        ready.log_to_db(self._db)

    def whole(self, session_id: str) -> int:
        return len(self._log.load_chain(self._tips[session_id]))

    async def stored(self, session_ids: Sequence[str]) -> int:
        return int(self._db.execute("SELECT count(*) FROM turns").fetchone()[0]) * 2

    def close(self) -> None:
        self._db.conn.close()

    def _said(self, session_id: str, message: dict[str, str]) -> Any:
        # The log keeps equal conversations once; these differ from the first message on.
        return self._message(role=message["role"], parts=[self._text(text=f"{session_id} {message['content']}")])
