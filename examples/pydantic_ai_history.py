"""A conversation of a pydantic-ai agent that a restart does not end: run it twice. A function stands in for a real model."""

import asyncio
import sys

from pydantic_ai import Agent
from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart
from pydantic_ai.models.function import AgentInfo, FunctionModel

import sessionstore
from sessionstore.adapters.pydantic_ai import MessageHistory


def answer(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
    return ModelResponse([TextPart(f"Paris. I was sent {len(messages)} messages.")])


async def main(path: str) -> None:
    agent = Agent(FunctionModel(answer), instructions="Be short.")
    async with sessionstore.aopen(path) as store:
        history = MessageHistory(store)
        result = await history.run(agent, "user-alice", "What's the capital of France?", last=20)
        print(result.output)
        for message in await store.messages("user-alice"):
            print(f"{message.seq:3} {message.role}: {message.text}")


asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else "pydantic_ai_history.db"))
