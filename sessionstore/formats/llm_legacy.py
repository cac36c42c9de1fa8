"""Conversations of llm before its release 0.32: a row for each prompt with its response; at first in a table `logs`."""

from __future__ import annotations

from collections.abc import Container, Iterator
from typing import Any, Final

from .llm_rows import ATTACHMENT_COLUMNS, Row, Rows, Told, attachment_part, content_of, instant, later, provenance, usage
from .llm_threads import tool_call

_RESPONSE_COLUMNS: Final = ("id", "model", "resolved_model", "prompt", "system", "options_json", "response", "reasoning",
                            "conversation_id", "duration_ms", "datetime_utc", "input_tokens", "output_tokens", "token_details",
                            "schema_id")  # fmt: skip
_LOG_COLUMNS: Final = (
    "id",
    "model",
    "timestamp",
    "datetime_utc",
    "prompt",
    "system",
    "options_json",
    "response",
    "chat_id",
    "duration_ms",
)
_FIRST_TABLES: Final = ("logs", "log")
_LOG_PREFIX: Final = "log-"


class LegacyConversations:
    """The conversations of the older tables."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows
        self._named = {row["id"]: row for row in rows.select("conversations", "id", "name", "model")}
        self._log = next((table for table in _FIRST_TABLES if rows.has(table)), None)

    def ids(self) -> Iterator[str]:
        """The ids of all of them. A response without a conversation is one of its own."""
        yield from self._named
        for row in self._rows.select("responses", "id", "conversation_id"):
            yield row["conversation_id"] or row["id"]
        if self._log is not None:
            for row in self._rows.select(self._log, "id", "chat_id"):
                yield f"{_LOG_PREFIX}{row['chat_id'] or row['id']}"

    def about(self, conversation_id: str) -> Row:
        """What is known of a conversation beside its messages."""
        row = self._named.get(conversation_id)
        return {} if row is None else {"name": row["name"], "model": row["model"]}

    def messages(self, conversation_id: str, *, without: Container[str] = ()) -> list[Told]:
        """The messages of a conversation, oldest first, without those of responses that the newer tables have as turns."""
        system: str | None = None
        told: list[Told] = []
        for row in self._responses(conversation_id):
            if row["id"] in without:
                continue
            made = self._system(row)
            if made is not None and made != system:
                told.append(self._told(row, {"role": "system", "content": made}))
                system = made
            told += self._of_response(row)
        return told

    def _responses(self, conversation_id: str) -> Iterator[Row]:
        where = "conversation_id = ? OR (conversation_id IS NULL AND id = ?)"
        yield from self._rows.select("responses", *_RESPONSE_COLUMNS, where=where, values=(conversation_id,) * 2, order="id")
        number = conversation_id.removeprefix(_LOG_PREFIX)
        if self._log is not None and number != conversation_id and number.isdecimal():
            chat = "chat_id = ? OR (chat_id IS NULL AND id = ?)"
            for row in self._rows.select(self._log, *_LOG_COLUMNS, where=chat, values=(int(number),) * 2, order="id"):
                when = row["datetime_utc"] or row["timestamp"]
                yield {**dict.fromkeys(_RESPONSE_COLUMNS), **row, "id": f"{_LOG_PREFIX}{row['id']:012d}", "datetime_utc": when}

    def _of_response(self, row: Row) -> Iterator[Told]:
        for result in self._linked("tool_results", row["id"], "id", "name", "output", "tool_call_id", "exception", order="id"):
            attached = self._attachments("tool_results_attachments", "tool_result_id", result["id"])
            message = {"role": "tool", "tool_call_id": result["tool_call_id"] or "", "name": result["name"]}
            message["content"] = content_of([result["output"] or ""], attached)
            told = self._told(row, message)
            if result["exception"]:
                told.notes["result"] = {"exception": result["exception"]}
            yield told
        asked = "\n".join([*self._fragments("prompt_fragments", row["id"]), *([row["prompt"]] if row["prompt"] else [])])
        attached = self._attachments("prompt_attachments", "response_id", row["id"])
        if asked or attached:
            yield self._told(row, {"role": "user", "content": content_of([asked] if asked else [], attached)})
        yield self._answer(row)

    def _answer(self, row: Row) -> Told:
        calls = list(self._linked("tool_calls", row["id"], "id", "name", "arguments", "tool_call_id", order="id"))
        text = row["response"] or ""
        message: Row = {"role": "assistant", "content": text if text or not calls else None}
        if row["reasoning"]:
            message["reasoning_content"] = row["reasoning"]
        if calls:
            message["tool_calls"] = [
                tool_call(call["tool_call_id"] or f"call_{call['id']}", call["name"], call["arguments"] or "{}") for call in calls
            ]
        at = later(instant(row["datetime_utc"], row["id"]), row["duration_ms"])
        return Told(message, turn_id=row["id"], at=at, facts=usage(row), notes={"turn": provenance(row)})

    def _system(self, row: Row) -> str | None:
        texts = [text.strip() for text in (*self._fragments("system_fragments", row["id"]), row["system"] or "")]
        return "\n\n".join(text for text in texts if text) or None

    def _told(self, row: Row, message: Row) -> Told:
        return Told(message, turn_id=row["id"], at=instant(row["datetime_utc"], row["id"]))

    def _fragments(self, table: str, response_id: str) -> list[str]:
        wanted = [row["fragment_id"] for row in self._linked(table, response_id, "fragment_id", "order", order='"order"')]
        return [row["content"] for row in self._rows.all_of("fragments", wanted, "content")]

    def _attachments(self, table: str, column: str, owner: Any) -> list[Row]:
        links = self._rows.select(table, "attachment_id", "order", where=f"{column} = ?", values=(owner,), order='"order"')
        wanted = [row["attachment_id"] for row in links]
        return [attachment_part(row) for row in self._rows.all_of("attachments", wanted, *ATTACHMENT_COLUMNS)]

    def _linked(self, table: str, response_id: str, *columns: str, order: str) -> Iterator[Row]:
        return self._rows.select(table, *columns, where="response_id = ?", values=(response_id,), order=order)
