"""Keep the sessions of a Google ADK agent in a file. Run it twice: the second run remembers the first.

It runs offline, with a model that is made of a few lines; give `LlmAgent` a real one instead.
"""

import asyncio
import sys
from collections.abc import AsyncGenerator

from google.adk.agents import LlmAgent
from google.adk.models.base_llm import BaseLlm
from google.adk.models.llm_request import LlmRequest
from google.adk.models.llm_response import LlmResponse
from google.adk.runners import Runner
from google.genai import types

import sessionstore
from sessionstore.adapters.google_adk import SessionStoreService, stored_id

APP, USER, CHAT = "trips", "alice", "summer"


class OfflineModel(BaseLlm):
    """Says what it was asked so far."""

    async def generate_content_async(self, llm_request: LlmRequest, stream: bool = False) -> AsyncGenerator[LlmResponse, None]:
        asked = [
            part.text for content in llm_request.contents if content.role == "user" for part in content.parts or () if part.text
        ]
        text = f"You asked {len(asked)} times, first: {asked[0]}"
        yield LlmResponse(content=types.Content(role="model", parts=[types.Part(text=text)]))


async def main(path: str) -> None:
    async with sessionstore.aopen(path) as store:
        service = SessionStoreService(store)
        agent = LlmAgent(name="guide", model=OfflineModel(model="offline"), output_key="last_answer")
        runner = Runner(app_name=APP, agent=agent, session_service=service, auto_create_session=True)
        question = types.Content(role="user", parts=[types.Part(text="Where shall we go?")])
        async for event in runner.run_async(user_id=USER, session_id=CHAT, new_message=question, state_delta={"user:lang": "en"}):
            if event.content and event.content.parts:
                print(event.author, "-", event.content.parts[0].text)

        # The same session, by the calls of the store.
        print(await store.state(stored_id(APP, USER, CHAT)))
        for hit in await store.search("shall go", user_id=USER, limit=1):
            print(hit.session_id, hit.seq, hit.snippet)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else "agent.db"))
