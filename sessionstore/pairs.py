"""Which tool result answers which tool call: results follow their call in order of seq, and ids may be used again later."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable, Sequence
from typing import Final

from . import content
from .values import Message, ToolCall, ToolCallReport, ToolResult

INTERRUPTED: Final = "The tool call was interrupted; it has no result."


class Pairing:
    """The calls and results among some messages.

    Attributes:
        call_of: The seq of the calling message, for the seq of each result that has one.
        open_calls: (seq, call id) of calls without a result, in order.
        lone_results: (seq, call id) of results without an earlier call, in order.
    """

    def __init__(self, messages: Iterable[Message]) -> None:
        self.call_of: dict[int, int] = {}
        self.lone_results: list[tuple[int, str]] = []
        waiting: defaultdict[str, deque[int]] = defaultdict(deque)
        for message in messages:
            for call_id in message.tool_call_ids:
                waiting[call_id].append(message.seq)
            if message.tool_call_id is not None:
                if waiting[message.tool_call_id]:
                    self.call_of[message.seq] = waiting[message.tool_call_id].popleft()
                else:
                    self.lone_results.append((message.seq, message.tool_call_id))
        self.open_calls = sorted((seq, call_id) for call_id, seqs in waiting.items() for seq in seqs)


def report(messages: Sequence[Message]) -> ToolCallReport:
    """Calls without a result and results without a call."""
    pairing = Pairing(messages)
    details = {
        (message.seq, call_id): ToolCall(seq=message.seq, call_id=call_id, name=name, arguments=arguments)
        for message in messages
        if message.tool_call_ids
        for call_id, name, arguments in content.calls_of(message.to_dict())
    }
    return ToolCallReport(
        unmatched_calls=tuple(details[call] for call in pairing.open_calls),
        unmatched_results=tuple(ToolResult(seq=seq, call_id=call_id) for seq, call_id in pairing.lone_results),
    )


def arranged(messages: Sequence[Message], *, dropped: frozenset[int] = frozenset()) -> list[Message]:
    """The messages with every result right behind its call, as chat APIs ask for, and without the dropped seqs."""
    pairing = Pairing(messages)
    answers: defaultdict[int, list[Message]] = defaultdict(list)
    for message in messages:
        if message.seq in pairing.call_of:
            answers[pairing.call_of[message.seq]].append(message)
    ordered: list[Message] = []
    for message in messages:
        if message.seq not in pairing.call_of and message.seq not in dropped:
            ordered.append(message)
            ordered.extend(answers[message.seq])
    return ordered


def interrupted_result(call: ToolCall, caller: Message) -> dict[str, str]:
    """A stand-in for the result of a call that never came, in the form of the message that made the call."""
    item_type = caller.to_dict().get("type")
    if item_type in content.RESULT_KIND_OF:
        return {"type": content.RESULT_KIND_OF[item_type], "call_id": call.call_id, "output": INTERRUPTED}
    return {"role": "tool", "tool_call_id": call.call_id, "content": INTERRUPTED}
