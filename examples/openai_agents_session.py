"""A session of the OpenAI Agents SDK that a restart does not end: run it twice. A scripted model stands in for a real one."""

import asyncio
import sys
from typing import Any

from agents import Agent, Runner
from agents.testing import ModelCall, ModelStep, ScriptedModel, assistant_message
from agents.tracing import set_tracing_disabled

import sessionstore
from sessionstore.adapters.openai_agents import AgentsSession, UsageHooks


def answer(call: ModelCall) -> list[Any]:
    """Say how much of the conversation the model was sent."""
    return [assistant_message(f"Paris. I was sent {len(call.input)} items.")]


async def main(path: str) -> None:
    agent = Agent(name="Assistant", model=ScriptedModel([ModelStep.respond(answer)]))
    async with sessionstore.aopen(path) as store:
        session = AgentsSession("user-alice", store, agent_id="assistant")
        result = await Runner.run(agent, "What's the capital of France?", session=session, hooks=UsageHooks(session))
        print(result.final_output)
        for message in await store.messages("user-alice"):
            print(f"{message.seq:3} {message.role}: {message.text}")


set_tracing_disabled(True)
asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else "openai_agents_session.db"))
