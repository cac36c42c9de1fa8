"""A hundred tasks write at once: every message is durable, and they share a few commits."""

import asyncio
import sys

import sessionstore


async def talk(store: sessionstore.AsyncSessionStore, number: int) -> None:
    chat = await store.session(f"user-{number}")
    await chat.append("user", f"Hello from task {number}")
    await chat.append("assistant", "Hello!")


async def main(path: str) -> None:
    async with sessionstore.aopen(path) as store:
        async with asyncio.TaskGroup() as group:
            for number in range(100):
                group.create_task(talk(store, number))
        status = await store.status()
        print(f"{status.sessions} sessions, {status.messages} messages, {status.writes} writes in {status.commits} commits")


asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else "async_tasks.db"))
