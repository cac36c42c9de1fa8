"""An ADK agent over a scripted model: it is asked by tests in this process, and by programs that are killed."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncGenerator
from typing import Any

from google.adk.agents import LlmAgent, RunConfig
from google.adk.agents.run_config import StreamingMode
from google.adk.events.event import Event
from google.adk.models.base_llm import BaseLlm
from google.adk.models.llm_request import LlmRequest
from google.adk.models.llm_response import LlmResponse
from google.adk.runners import Runner
from google.genai import types

from sessionstore.adapters.google_adk import SessionStoreService

APP, USER, SESSION = "trips", "alice", "s1"
KILL = "kill yourself"


def said(text: str, role: str = "user") -> types.Content:
    """A content of one text."""
    return types.Content(role=role, parts=[types.Part(text=text)])


class ScriptedLlm(BaseLlm):
    """It calls `weather` for each city that it is asked about, and else says how many texts it was sent."""

    model: str = "scripted"
    requests: list[list[str]]

    async def generate_content_async(self, llm_request: LlmRequest, stream: bool = False) -> AsyncGenerator[LlmResponse, None]:
        """One answer; in a stream, its words first."""
        parts = [part for content in llm_request.contents for part in content.parts or ()]
        texts = [part.text for part in parts if part.text]
        self.requests.append(texts)
        usage = types.GenerateContentResponseUsageMetadata(
            prompt_token_count=len(texts), candidates_token_count=7, thoughts_token_count=2, cached_content_token_count=1
        )
        known: dict[str, Any] = {"usage_metadata": usage, "model_version": "scripted-1"}
        asked = parts[-1].text or ""
        if asked.startswith("weather in "):
            cities = asked.removeprefix("weather in ").split(" and ")
            calls = [types.Part(function_call=types.FunctionCall(name="weather", args={"city": city})) for city in cities]
            yield LlmResponse(content=types.Content(role="model", parts=calls), **known)
            return
        if asked == "fail":
            yield LlmResponse(error_code="SAFETY", error_message="not today", **known)
            return
        answer = f"I was sent {len(texts)} texts"
        if stream:
            for word in answer.split():
                yield LlmResponse(content=said(word, "model"), partial=True)
        yield LlmResponse(content=said(answer, "model"), finish_reason=types.FinishReason.STOP, **known)


def weather(city: str) -> dict[str, str]:
    """The weather of a city."""
    if city == KILL:
        os.kill(os.getpid(), signal.SIGKILL)
    return {"city": city, "sky": "clear"}


def runner(service: Any, model: ScriptedLlm | None = None) -> Runner:
    """A runner of the agent."""
    agent = LlmAgent(name="guide", model=model or ScriptedLlm(requests=[]), tools=[weather], output_key="answer")
    return Runner(app_name=APP, agent=agent, session_service=service, auto_create_session=True)


async def ask(running: Runner, text: str, *, stream: bool = False, state: dict[str, Any] | None = None) -> list[Event]:
    """The events of a turn."""
    config = RunConfig(streaming_mode=StreamingMode.SSE) if stream else None
    turn = running.run_async(user_id=USER, session_id=SESSION, new_message=said(text), run_config=config, state_delta=state)
    return [event async for event in turn]


async def main(path: str, *questions: str) -> None:
    """Ask one after another, and print the answers."""
    async with SessionStoreService(path) as service:
        for question in questions:
            print((await ask(runner(service), question))[-1].content.parts[0].text, flush=True)  # type: ignore[union-attr,index]


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
