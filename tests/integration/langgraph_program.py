"""A program with a graph, which other tests kill: it goes on with a thread, turn by turn, and says how many messages it has."""

import asyncio
import sys
from typing import Annotated, Any, TypedDict

from langchain_core.messages import AIMessage, AnyMessage, HumanMessage
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import add_messages
from langgraph.types import Command, interrupt

from sessionstore.adapters.langgraph import SessionStoreSaver


class State(TypedDict):
    messages: Annotated[list[AnyMessage], add_messages]
    steps: int


def answer(state: State) -> dict[str, Any]:
    usage = {"input_tokens": 3, "output_tokens": 2, "total_tokens": 5}
    text = f"answer {len(state['messages'])}"
    made = AIMessage(text, id=f"a{len(state['messages'])}", usage_metadata=usage, response_metadata={"model_name": "m-1"})  # type: ignore[arg-type]
    return {"messages": [made], "steps": state.get("steps", 0) + 1}


def confirm(state: State) -> dict[str, Any]:
    said = interrupt("go on?")
    return {"messages": [HumanMessage(said, id=f"h{len(state['messages'])}")]}


def built(saver: Any) -> Any:
    """A graph that answers, and then asks whether to go on."""
    builder = StateGraph(State)
    builder.add_node("answer", answer)
    builder.add_node("confirm", confirm)
    builder.add_edge(START, "answer")
    builder.add_edge("answer", "confirm")
    builder.add_edge("confirm", END)
    return builder.compile(checkpointer=saver)


def following(state: Any, number: int) -> Any:
    """What to give a graph next: what it was interrupted for, nothing if it was killed between two steps, or a new question."""
    if state.interrupts:
        return Command(resume=f"yes {number}")
    return None if state.next else {"messages": [HumanMessage(f"question {number}", id=f"q{number}")]}


def run(saver: SessionStoreSaver, config: Any, steps: int) -> None:
    graph = built(saver)
    for _ in range(steps):
        state = graph.get_state(config)
        found = graph.invoke(following(state, len(state.values.get("messages", ()))), config, durability="sync")
        print("messages", len(found["messages"]), flush=True)


async def arun(saver: SessionStoreSaver, config: Any, steps: int) -> None:
    graph = built(saver)
    for _ in range(steps):
        state = await graph.aget_state(config)
        given = following(state, len(state.values.get("messages", ())))
        found = await graph.ainvoke(given, config, durability="sync")
        print("messages", len(found["messages"]), flush=True)


def main(path: str, thread: str, how: str, rounds: int) -> None:
    config = {"configurable": {"thread_id": thread}}
    with SessionStoreSaver(path) as saver:
        if how == "sync":
            run(saver, config, 2 * rounds)
        else:
            asyncio.run(arun(saver, config, 2 * rounds))
    print("finished")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]))
