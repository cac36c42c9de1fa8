"""Conversations as files, which go-deep-agent reads too, and the same ones in a store. Run it twice and see them grow."""

import sys
from pathlib import Path

import sessionstore
from sessionstore import FileBackend, MemoryBackend

path = Path(sys.argv[1] if len(sys.argv) > 1 else "memory_backends.db")


def add_turn(backend: MemoryBackend, session_id: str) -> None:
    """What an agent does with any backend: load, go on, save the whole."""
    conversation = backend.load(session_id) or []
    turn = len(conversation) // 2 + 1
    conversation.append({"role": "user", "content": f"Question {turn}"})
    conversation.append({"role": "assistant", "content": f"Answer {turn}"})
    backend.save(session_id, conversation)
    print(f"{type(backend).__name__}: {len(conversation)} messages of {session_id}")


files = FileBackend(path.with_name(path.name + ".sessions"))
add_turn(files, "user-alice")
add_turn(files, "user-bob")

with sessionstore.open(path) as store:
    memory = store.as_memory_backend()
    # What one backend gives, another one takes; a save appends what is new.
    for session_id in files.list():
        memory.save(session_id, files.load(session_id))
    print("In the store:", *memory.list())
    print(store.session("user-alice").messages()[-1].text)
