"""Conversations of llm 0.32 and later: threads that point into a tree of messages, and turns that tell who said what when."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Any, Final

from .. import inputs
from ..content import ROLES
from .llm_rows import (
    ATTACHMENT_COLUMNS,
    LogsError,
    Row,
    Rows,
    Told,
    attachment_part,
    content_of,
    instant,
    later,
    loads,
    provenance,
    usage,
)

_TURN_COLUMNS: Final = ("id", "thread_id", "parent_message_hash", "tip_message_hash", "model", "resolved_model", "options_json",
                        "schema_id", "input_tokens", "output_tokens", "token_details", "duration_ms", "datetime_utc")  # fmt: skip
# What chat messages have no place for.
_PART_NOTES: Final = ("provider_metadata", "redacted", "server_executed", "exception")


class Threads:
    """The threads of a file.

    Attributes:
        turn_ids: The ids of all turns.
    """

    def __init__(self, rows: Rows) -> None:
        self._rows = rows
        self._threads = {row["id"]: row for row in rows.select("threads", "id", "name", "tip_message_hash", "forked_from")}
        self._turns: defaultdict[str, list[Row]] = defaultdict(list)
        self.turn_ids: set[str] = set()
        for row in rows.select("turns", *_TURN_COLUMNS, order="id"):
            self._turns[row["tip_message_hash"]].append(row)
            self.turn_ids.add(row["id"])

    def ids(self) -> Iterable[str]:
        """The ids of all threads."""
        return self._threads

    def about(self, thread_id: str) -> Row:
        """What is known of a thread beside its messages."""
        thread = self._threads.get(thread_id)
        return {} if thread is None else {"name": thread["name"], "forked_from": thread["forked_from"]}

    def parent_of(self, thread_id: str) -> str | None:
        """The thread that a thread was forked from, if it is in the file."""
        parent = self.about(thread_id).get("forked_from")
        return parent if parent in self._threads and parent != thread_id else None

    def messages(self, thread_id: str) -> list[Told]:
        """The messages of a thread, oldest first.

        Raises:
            LogsError: A message, a fragment or an attachment is missing.
        """
        thread = self._threads.get(thread_id)
        chain = [] if thread is None else self._chain(thread["tip_message_hash"])
        turn_of = self._turns_along(thread_id, [row["hash"] for row in chain])
        told = _Chats(self._rows)
        for row in chain:
            told.add(row, self._parts(row["hash"]), turn_of.get(row["hash"]))
        return _with_turns(told.messages)

    def _chain(self, tip: str | None) -> list[Row]:
        chain: list[Row] = []
        seen: set[str] = set()
        while tip is not None:
            found = list(
                self._rows.select("messages", "hash", "parent_hash", "role", "provider_metadata", where="hash = ?", values=(tip,))
            )
            if not found or tip in seen:
                raise LogsError(f"message {tip} is missing, or follows itself")
            seen.add(tip)
            chain.append(found[0])
            tip = found[0]["parent_hash"]
        chain.reverse()
        return chain

    def _turns_along(self, thread_id: str, hashes: list[str]) -> dict[str, tuple[Row, bool]]:
        """The turn of each message, and whether it is the last of its answer. What a turn was asked lies before its answer."""
        place = {one: index for index, one in enumerate(hashes)}
        found: dict[str, tuple[Row, bool]] = {}
        begin = 0
        for index, one in enumerate(hashes):
            # A message that forks share may end several turns: this thread's own tells best.
            ends = sorted(self._turns.get(one, ()), key=lambda turn: (turn["thread_id"] != thread_id, turn["id"]))
            if ends:
                asked = place.get(ends[0]["parent_message_hash"], begin - 1)
                for member in range(begin, index + 1):
                    found[hashes[member]] = (ends[0], asked < member == index)
                begin = index + 1
        return found

    def _parts(self, message_hash: str) -> Iterator[Row]:
        """The parts of a message, with the texts and attachments that they refer to."""
        columns = ("type", "tool_name", "text", "payload")
        for row in self._rows.select("parts", *columns, where="message_hash = ?", values=(message_hash,), order="position"):
            payload = loads(row["payload"], "a part") or {}
            if not isinstance(payload, dict):
                raise LogsError("a part is no JSON object")
            if row["text"] is not None:
                payload["text"] = row["text"]
            elif "text_ref" in payload:
                payload["text"] = self._resolved(payload.pop("text_ref"))
            yield {**payload, "type": row["type"]}

    def _resolved(self, pieces: Any) -> str:
        wanted = [piece["fragment"] for piece in pieces if "fragment" in piece]
        fragments = iter(self._rows.all_of("fragments", wanted, "content"))
        return "".join(next(fragments)["content"] if "fragment" in piece else piece["literal"] for piece in pieces)


class _Chats:
    """Chat messages of one conversation, made one after the other.

    Attributes:
        messages: Those that were made.
    """

    def __init__(self, rows: Rows) -> None:
        self.messages: list[Told] = []
        self._rows = rows
        self._calls = 0
        self._without_id: list[tuple[str, str]] = []

    def add(self, row: Row, parts: Iterable[Row], turn: tuple[Row, bool] | None) -> None:
        """A message of llm's, which is several where results stand between other parts."""
        first = len(self.messages)
        if row["role"] in ROLES:
            self._add_chat(row["role"], list(parts))
        else:
            self.messages.append(Told({"role": row["role"], "parts": list(parts)}, kind="llm"))
        made = self.messages[first:]
        noted = loads(row["provider_metadata"], "provider_metadata")
        if made and noted:
            made[-1].notes["provider_metadata"] = noted
        if turn is None:
            return
        about, is_answer = turn
        at = instant(about["datetime_utc"], about["id"])
        for told in made:
            told.turn_id = about["id"]
            told.at = later(at, about["duration_ms"]) if row["role"] == "assistant" else at
        if is_answer and made:
            made[-1].facts = usage(about)
            made[-1].notes |= {"turn": provenance(about)}

    def _add_chat(self, role: str, parts: list[Row]) -> None:
        together: list[Row] = []
        for part in parts:
            if part["type"] == "tool_result":
                self._flush(role, together)
                self.messages.append(self._result(part))
            else:
                if part["type"] == "tool_call":
                    self._require_id(part)
                elif together and together[-1]["type"] == "tool_call":
                    # What was said after a call belongs behind its result.
                    self._flush(role, together)
                together.append(part)
        if together or not parts:
            self._flush(role, together, even_empty=True)

    def _flush(self, role: str, parts: list[Row], *, even_empty: bool = False) -> None:
        if parts or even_empty:
            self.messages.append(_chat(role, parts, self._attachment))
        parts.clear()

    def _require_id(self, part: Row) -> None:
        """Calls that a provider gave no id get one by their place; results without one answer them by name, in order."""
        self._calls += 1
        if not part.get("tool_call_id"):
            part["tool_call_id"] = f"call_{self._calls}"
            self._without_id.append((part["name"], part["tool_call_id"]))

    def _result(self, part: Row) -> Told:
        call_id = part.get("tool_call_id")
        if not call_id:
            waiting = next((call for call in self._without_id if call[0] == part.get("name")), None)
            if waiting is not None:
                self._without_id.remove(waiting)
                call_id = waiting[1]
        message: Row = {"role": "tool", "tool_call_id": call_id or "", "name": part.get("name")}
        attached = [self._attachment(each["id"]) for each in part.get("attachments") or ()]
        message["content"] = content_of([part.get("output") or ""], attached)
        noted = {name: part[name] for name in _PART_NOTES if part.get(name)}
        return Told(message, notes={"result": noted} if noted else {})

    def _attachment(self, attachment_id: str) -> Row:
        return attachment_part(self._rows.all_of("attachments", (attachment_id,), *ATTACHMENT_COLUMNS)[0])


def _with_turns(messages: list[Told]) -> list[Told]:
    """The messages, those that no turn tells of counted to the turn before them."""
    last = ""
    for told in messages:
        told.turn_id = last = told.turn_id or last
    return messages


def _chat(role: str, parts: list[Row], attachment: Any) -> Told:
    """The chat message of parts without results."""
    of = {kind: [part for part in parts if part["type"] == kind] for kind in ("text", "reasoning", "tool_call", "attachment")}
    unknown = [part for part in parts if part["type"] not in of]
    others = [attachment(part["attachment"]["id"]) for part in of["attachment"] if part.get("attachment")] + unknown
    message: Row = {"role": role, "content": content_of([part["text"] for part in of["text"]], others)}
    if message["content"] is None and not of["tool_call"]:
        message["content"] = ""
    reasoning = "".join(part.get("text") or "" for part in of["reasoning"])
    if reasoning:
        message["reasoning_content"] = reasoning
    if of["tool_call"]:
        message["tool_calls"] = [tool_call(part["tool_call_id"], part["name"], part.get("arguments")) for part in of["tool_call"]]
    noted = [{"part": index, **_noted(part)} for index, part in enumerate(parts) if _noted(part)]
    return Told(message, notes={"parts": noted} if noted else {})


def tool_call(call_id: str, name: str, arguments: Any) -> Row:
    """A tool call as a chat API has it: llm keeps the arguments as an object, chat APIs as a JSON text."""
    text = arguments if isinstance(arguments, str) else inputs.encode_json({} if arguments is None else arguments)
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": text}}


def _noted(part: Row) -> Row:
    return {name: part[name] for name in _PART_NOTES if part.get(name)}
