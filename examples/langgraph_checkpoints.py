"""A LangGraph agent that asks before it acts, and goes on where it was when the program ended. Run it twice."""

import sys
from typing import Annotated, Any, TypedDict

from langchain_core.messages import AIMessage, AnyMessage
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import add_messages
from langgraph.types import Command, interrupt

from sessionstore.adapters.langgraph import SessionStoreSaver

path = sys.argv[1] if len(sys.argv) > 1 else "langgraph.db"


class State(TypedDict):
    messages: Annotated[list[AnyMessage], add_messages]


def plan(state: State) -> dict[str, Any]:
    # Here a model would be asked.
    return {"messages": [AIMessage(f"I would book: {state['messages'][-1].text}")]}


def book(state: State) -> dict[str, Any]:
    answer = interrupt("Shall I book it?")
    return {"messages": [AIMessage("It is booked." if answer == "yes" else "Then not.")]}


builder = StateGraph(State)
builder.add_node("plan", plan)
builder.add_node("book", book)
builder.add_edge(START, "plan")
builder.add_edge("plan", "book")
builder.add_edge("book", END)

with SessionStoreSaver(path, agent_id="travel") as saver:
    graph = builder.compile(checkpointer=saver)
    config: Any = {"configurable": {"thread_id": "user-alice"}}
    waiting = graph.get_state(config).interrupts
    if waiting:
        print(f"it still waits for an answer: {waiting[0].value}")
        graph.invoke(Command(resume="yes"), config)
    else:
        graph.invoke({"messages": [("user", "a train to Lisbon")]}, config)
        print(f"it stopped to ask: {graph.get_state(config).interrupts[0].value}")
    for message in saver.store.messages("user-alice"):
        print(f"{message.role}: {message.text}")
