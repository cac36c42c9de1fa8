"""A chat agent that remembers: run it twice, and it knows what you asked before.

The model is a function here, so that this runs anywhere. A server of chat completions takes its place by
`OpenAICompatible("http://localhost:11434/v1", "llama3.2")`.
"""

import sys

from sessionstore import ChatAgent

path = sys.argv[1] if len(sys.argv) > 1 else "chat_agent.db"


def model(messages):
    """It knows one thing, and what it was asked."""
    question = messages[-1]["content"]
    asked = [message["content"] for message in messages[:-1] if message["role"] == "user"]
    if question == "What did I ask you before?":
        yield from ("You ", "asked: ", " / ".join(asked) or "nothing.")
    else:
        yield from ("Pa", "ris.")


with ChatAgent(model, store=path, session_id="user-alice", user_id="alice", agent_id="guide", max_history=20) as agent:
    for piece in agent.stream("What did I ask you before?"):
        print(piece, end="", flush=True)
    print()
    print(agent.ask("What's the capital of France?"))
    print(f"{len(agent.messages())} messages in session {agent.get_session_id()}")
