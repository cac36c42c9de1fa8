"""LangGraph's checkpointer: a thread is a session, and a graph goes on from what the store holds.

```python
from sessionstore.adapters.langgraph import SessionStoreSaver

graph = builder.compile(checkpointer=SessionStoreSaver("agent.db"))
graph.invoke({"messages": [("user", "Hello")]}, {"configurable": {"thread_id": "user-alice"}})
```
"""

from ...errors import MissingExtraError

try:
    from .saver import SessionStoreSaver
except ModuleNotFoundError as error:
    if (error.name or "").partition(".")[0] not in ("langgraph", "langchain_core", "ormsgpack"):
        raise
    raise MissingExtraError("the LangGraph checkpointer", "langgraph") from error

__all__ = ["SessionStoreSaver"]
