"""A tool call whose program died: found, repaired, and fit for a provider again."""

import sys

import sessionstore

CALL = {"id": "call_1", "type": "function", "function": {"name": "lookup_order", "arguments": '{"order": 17}'}}

with sessionstore.open(sys.argv[1] if len(sys.argv) > 1 else "crashed_tool_call.db") as store:
    chat = store.session("support-17")
    chat.append("user", "Where is my order?")
    chat.append("assistant", tool_calls=[CALL])
    # The program dies here, before the tool answers. At the next start:
    for call in chat.open_tool_calls():
        print(f"no result for {call.name}({call.arguments})")
    chat.repair()
    print("every call has its result:", chat.check().ok)
    for message in chat.messages(keep_pairs=True):
        print(message.to_dict())
