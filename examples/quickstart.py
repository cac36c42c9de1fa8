"""A conversation that survives the program: run it twice and see the history grow."""

import sys

import sessionstore

path = sys.argv[1] if len(sys.argv) > 1 else "quickstart.db"

with sessionstore.open(path) as store:
    chat = store.session("user-alice", agent_id="helper", user_id="alice", tags=["vip"])
    chat.append("user", "What's the capital of France?")
    chat.append("assistant", "Paris.", model="m-1", input_tokens=12, output_tokens=3, response_time_ms=420)

    for message in chat.messages(last=6):
        print(f"{message.seq:3} {message.role}: {message.text}")
    print(f"{len(chat.messages())} messages in {path}")
