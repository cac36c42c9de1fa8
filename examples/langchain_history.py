"""A chat message history of LangChain that a restart does not end: run it twice. A function stands in for a real model."""

import sys

from langchain_core.messages import AIMessage, HumanMessage

import sessionstore
from sessionstore.adapters.langchain import SessionChatMessageHistory

with sessionstore.open(sys.argv[1] if len(sys.argv) > 1 else "langchain_history.db") as store:
    history = SessionChatMessageHistory("user-alice", store, last=20)
    question = HumanMessage("What's the capital of France?")
    answer = AIMessage(f"Paris. I was sent {len([*history.messages, question])} messages.")
    history.add_messages([question, answer])
    print(history)
