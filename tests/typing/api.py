"""What type checkers see of the public surface; read by `mypy tests/typing`, never run."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, Literal, assert_type

import sessionstore
from sessionstore import (
    AgentOperationsTracker,
    AgentPerformanceTracker,
    AsyncSessionHandle,
    AsyncSessionStore,
    AsyncTimer,
    ChatAgent,
    Conversation,
    DeleteReceipt,
    Diagnosis,
    DrainReceipt,
    Failures,
    FileBackend,
    MemoryBackend,
    Message,
    NewMessage,
    NewMetric,
    OpenAICompatible,
    Overview,
    Page,
    QueryResult,
    Remote,
    Reply,
    ResponseTimes,
    SessionHandle,
    SessionInfo,
    SessionStore,
    StoreStatus,
    SuccessRates,
    Timer,
    TokenUsage,
    ToolCall,
    ToolCallReport,
)
from sessionstore.values.receipts import BackupReceipt, ExportReceipt, ImportReceipt, RestoreReceipt, VacuumReceipt


def shout(word: str) -> str:
    return word


def opening(path: Path) -> None:
    assert_type(sessionstore.open(), SessionStore)
    assert_type(sessionstore.open(path, namespace="n", durability="normal", busy_timeout=1.5), SessionStore)
    assert_type(sessionstore.open("agent.db", must_exist=True, create_parents=True, read_only=True), SessionStore)
    assert_type(sessionstore.open(in_memory=True, migrate=False, follow_symlinks=True, strict_permissions=True), SessionStore)
    sessionstore.open(path, durability="fast")  # type: ignore[arg-type]
    sessionstore.open(path, "n")  # type: ignore[call-arg]
    with sessionstore.open(path) as store:
        assert_type(store, SessionStore)


def the_store(store: SessionStore) -> None:
    assert_type(store.namespace, str)
    assert_type(store.in_namespace("n"), SessionStore)
    assert_type(store.status(), StoreStatus)
    assert_type(store.doctor(), Diagnosis)
    assert_type(store.session("s", user_id="u", agent_id=None, tags=["t"], metadata={"a": 1}, pinned=True), SessionHandle)
    assert_type(store.create("s", title="t"), SessionInfo)
    assert_type(store.get("s"), SessionInfo | None)
    assert_type(store.update("s", title=None, metadata=None, tags=(), expected_version=3), SessionInfo)
    assert_type(store.end("s", "failed", quality_score=1, error="e"), SessionInfo)
    assert_type(store.rename("s", "t"), SessionInfo)
    assert_type(store.pin("s", False), SessionInfo)
    assert_type(store.archive("s"), SessionInfo)
    assert_type(store.tag("s", "a", "b"), SessionInfo)
    assert_type(store.untag("s", "a"), SessionInfo)
    assert_type(store.tags(), dict[str, int])
    assert_type(store.namespaces(), tuple[str, ...])
    assert_type(store.list(limit=5, agent_id="a", status="open", archived=None), Page[SessionInfo])
    assert_type(store.list().items, tuple[SessionInfo, ...])
    assert_type(store.list().next_cursor, str | None)
    assert_type(store.count(tag=["a", "b"], text="x"), int)
    assert_type(store.delete(["a", "b"], dry_run=True), DeleteReceipt)
    assert_type(store.append("s", "user", "x", model="m", input_tokens=1), Message)
    assert_type(store.append("s", {"role": "user", "content": "x"}, dedupe_key="k"), Message)
    assert_type(store.append_many("s", [{"role": "user", "content": "x"}, NewMessage({"role": "user"}, model="m")]), list[Message])
    assert_type(store.append_many("s", [], state={"session": {"n": 1}, "app": {}}, expected_last_seq=3), list[Message])
    store.append_many("s", [], state={"world": {}})  # type: ignore[dict-item]
    assert_type(store.messages("s", last=5, before=9, after=1, keep_pairs=True), list[Message])
    assert_type(store.iterate("s", after=3, page_size=10), Iterator[Message])
    assert_type(store.pop("s"), Message | None)
    assert_type(store.truncate("s", after=1), int)
    assert_type(store.clear("s"), int)
    assert_type(store.open_tool_calls("s"), tuple[ToolCall, ...])
    assert_type(store.check("s"), ToolCallReport)
    assert_type(store.repair("s"), list[Message])
    assert_type(store.success_rates(start_date=date(2026, 1, 1), bucket="day"), SuccessRates)
    assert_type(store.response_times(session_id="s"), ResponseTimes)
    assert_type(store.quality(agent_id="a")["overall"]["mean"], float | None)
    assert_type(store.failures(limit=5, cursor=None), Failures)
    assert_type(store.tokens(bucket="week"), TokenUsage)
    assert_type(store.overview()["failures"]["next"], str | None)
    assert_type(store.query("SELECT ?", (1,), limit=5), QueryResult)
    store.quality(bucket="year")  # type: ignore[arg-type]
    store.quality(session_id="s")  # type: ignore[call-arg]
    store.record_many([NewMetric("x", 1, "ms", {"a": 1}, session_id="s"), NewMetric("y", 0.5, at=datetime.now(UTC))])
    store.record_many([("x", 1)])  # type: ignore[list-item]
    NewMetric("x", 1, "ms", {}, "agent")  # type: ignore[call-arg]
    assert_type(store.timer("x", session_id="s", strict=True), Timer)
    assert_type(store.track("x", agent_id="a"), Timer)
    assert_type(store.track(shout)("x"), str)
    store.timer("x", session="s")  # type: ignore[call-arg]
    assert_type(store.import_file("a.jsonl"), ImportReceipt)
    assert_type(store.export_file(Path("a.jsonl")), ExportReceipt)
    assert_type(store.backup(Path("b.db"), overwrite=True), BackupReceipt)
    assert_type(store.vacuum(full=True), VacuumReceipt)
    assert_type(sessionstore.restore("b.db", Path("a.db"), key=None), RestoreReceipt)
    assert_type(store.drain(timeout=1.5, limit=10), DrainReceipt)
    assert_type(store.flush(5), bool)
    store.set_remote(Remote("https://api.example.com", str, sync_messages=True, on_full="raise"), replace=True)
    store.set_remote("https://api.example.com", lambda: "key")
    store.set_remote(8080)  # type: ignore[arg-type]
    store.session("s", colour="red")  # type: ignore[call-arg]
    store.append("s", "user", "x", tokens=1)  # type: ignore[call-arg]
    store.append("s", "user", "x", input_tokens="1")  # type: ignore[arg-type]
    store.end("s", "open")  # type: ignore[arg-type]
    store.list(status="closed")  # type: ignore[arg-type]


def the_handle(chat: SessionHandle) -> None:
    assert_type(chat.session_id, str)
    assert_type(chat.store, SessionStore)
    assert_type(chat.get(), SessionInfo | None)
    assert_type(chat.update(title="t"), SessionInfo)
    assert_type(chat.end(quality_score=5), SessionInfo)
    assert_type(chat.pin(), SessionInfo)
    assert_type(chat.archive(False), SessionInfo)
    assert_type(chat.tag("a"), SessionInfo)
    assert_type(chat.untag("a"), SessionInfo)
    assert_type(chat.append("user", "x", response_time_ms=1.5), Message)
    assert_type(chat.append_many([{"role": "user", "content": "x"}]), list[Message])
    assert_type(chat.messages(last=5), list[Message])
    assert_type(chat.iterate(page_size=5), Iterator[Message])
    assert_type(chat.pop(), Message | None)
    assert_type(chat.truncate(after=2), int)
    assert_type(chat.clear(), int)
    assert_type(chat.open_tool_calls(), tuple[ToolCall, ...])
    assert_type(chat.check(), ToolCallReport)
    assert_type(chat.repair(), list[Message])
    assert_type(chat.rename("t"), None)
    assert_type(chat.delete(), bool)
    chat.append("user", "x", tokens=1)  # type: ignore[call-arg]
    chat.messages("s")  # type: ignore[arg-type, call-arg]


async def opening_async(path: Path) -> None:
    async with sessionstore.aopen(path, durability="normal") as store:
        assert_type(store, AsyncSessionStore)
    assert_type(await sessionstore.aopen(), AsyncSessionStore)
    sessionstore.aopen(path, durability="fast")  # type: ignore[arg-type]


async def the_async_store(store: AsyncSessionStore) -> None:
    assert_type(store.namespace, str)
    assert_type(store.in_namespace("n"), AsyncSessionStore)
    assert_type(await store.status(), StoreStatus)
    assert_type(await store.doctor(), Diagnosis)
    assert_type(await store.session("s", user_id="u"), AsyncSessionHandle)
    assert_type(await store.create("s"), SessionInfo)
    assert_type(await store.get("s"), SessionInfo | None)
    assert_type(await store.update("s", title="t"), SessionInfo)
    assert_type(await store.end("s"), SessionInfo)
    assert_type(await store.rename("s", "t"), SessionInfo)
    assert_type(await store.pin("s"), SessionInfo)
    assert_type(await store.archive("s"), SessionInfo)
    assert_type(await store.tag("s", "a"), SessionInfo)
    assert_type(await store.untag("s", "a"), SessionInfo)
    assert_type(await store.tags(), dict[str, int])
    assert_type(await store.namespaces(), tuple[str, ...])
    assert_type(await store.list(limit=5), Page[SessionInfo])
    assert_type(await store.count(), int)
    assert_type(await store.delete("s"), DeleteReceipt)
    assert_type(await store.append("s", "user", "x", model="m"), Message)
    assert_type(await store.append_many("s", []), list[Message])
    assert_type(await store.messages("s", last=5), list[Message])
    assert_type(store.iterate("s"), AsyncIterator[Message])
    assert_type(await store.pop("s"), Message | None)
    assert_type(await store.truncate("s", after=1), int)
    assert_type(await store.clear("s"), int)
    assert_type(await store.open_tool_calls("s"), tuple[ToolCall, ...])
    assert_type(await store.check("s"), ToolCallReport)
    assert_type(await store.repair("s"), list[Message])
    assert_type(await store.overview(), Overview)
    assert_type(await store.success_rates(agent_id="a", bucket="day"), SuccessRates)
    assert_type(await store.query("SELECT :a", {"a": 1}), QueryResult)
    await store.record_many(NewMetric("x", number) for number in range(3))
    assert_type(store.timer("x", strict=True), AsyncTimer)
    assert_type(store.track(), AsyncTimer)
    assert_type(store.track(shout)("x"), str)
    assert_type(await store.import_file("a.jsonl"), ImportReceipt)
    assert_type(await store.backup("b.db"), BackupReceipt)
    assert_type(await store.vacuum(), VacuumReceipt)
    assert_type(await sessionstore.arestore("b.db", "a.db"), RestoreReceipt)
    assert_type(await store.export_file("a.jsonl"), ExportReceipt)
    assert_type(await store.close(), None)
    assert_type(await store.aclose(), None)
    await store.append("s", "user", "x", tokens=1)  # type: ignore[call-arg]


async def the_async_handle(chat: AsyncSessionHandle) -> None:
    assert_type(chat.session_id, str)
    assert_type(chat.store, AsyncSessionStore)
    assert_type(await chat.get(), SessionInfo | None)
    assert_type(await chat.append("user", "x", model="m"), Message)
    assert_type(await chat.append_many([]), list[Message])
    assert_type(await chat.messages(last=5), list[Message])
    assert_type(await chat.pop(), Message | None)
    assert_type(await chat.truncate(after=2), int)
    assert_type(await chat.end("completed", quality_score=5), SessionInfo)
    assert_type(await chat.check(), ToolCallReport)
    assert_type(await chat.rename("t"), None)
    assert_type(await chat.delete(), bool)
    async for message in chat.iterate():
        assert_type(message, Message)


def values(message: Message, info: SessionInfo, page: Page[SessionInfo]) -> None:
    assert_type(message.seq, int)
    assert_type(message.role, str | None)
    assert_type(message.text, str | None)
    assert_type(message.tool_call_ids, tuple[str, ...])
    assert_type(message.metadata, dict[str, Any] | None)
    assert_type(message.to_dict(), dict[str, Any])
    assert_type(info.status, Literal["open", "completed", "failed", "expired"])
    assert_type(info.tags, tuple[str, ...])
    assert_type(list(page), list[SessionInfo])
    info.title = "t"  # type: ignore[misc]
    message.seq = 1  # type: ignore[misc]


def the_trackers(perf: AgentPerformanceTracker, ops: AgentOperationsTracker) -> None:
    assert_type(perf.get_success_rates(source="remote"), SuccessRates)
    assert_type(perf.get_session_info("s", source="local"), Conversation | None)
    assert_type(ops.get_active_agents(source="remote")[0]["agent_id"], str)
    perf.get_success_rates(source="elsewhere")  # type: ignore[arg-type]
    perf.get_failed_sessions("a", None, None, 5)  # type: ignore[call-arg]
    perf.close(drain_timeout=0.5)


async def the_trackers_awaited(perf: AgentPerformanceTracker, store: AsyncSessionStore) -> None:
    assert_type(await perf.get_success_rates_async("a", source="remote"), SuccessRates)
    await perf.close_async(drain_timeout=0.5)
    assert_type(await store.drain(timeout=1.5), DrainReceipt)
    assert_type(await store.flush(5), bool)


def the_chat_agent(store: SessionStore) -> None:
    agent = ChatAgent(OpenAICompatible("http://127.0.0.1/v1", "m"), store=store, session_id="s", agent_id="a", ttl=60)
    assert_type(agent.with_memory().with_session_id("t").with_auto_save(False).with_store("a.db"), ChatAgent)
    reply = agent.ask("Hello")
    assert_type(reply, Reply)
    assert_type(reply.upper(), str)
    assert_type(reply.output_tokens, int | None)
    assert_type(next(agent.stream("Hello")), str)
    assert_type(agent.messages(), list[dict[str, Any]])
    assert_type(agent.list_sessions(), list[str])
    ChatAgent("gpt")  # type: ignore[arg-type]
    ChatAgent(str, max_histroy=3)  # type: ignore[call-arg]


async def the_chat_agent_awaited(agent: ChatAgent) -> None:
    assert_type(await agent.ask_async("Hello"), Reply)
    async for piece in agent.stream_async("Hello"):
        assert_type(piece, str)


def a_misspelt_name() -> None:
    assert_type(sessionstore.__version__, str)
    _ = sessionstore.SesionStore  # type: ignore[attr-defined]
    _ = sessionstore.hints.SerchPage  # type: ignore[attr-defined]


def the_backends(store: SessionStore) -> None:
    backends: list[MemoryBackend] = [FileBackend("sessions"), store.as_memory_backend()]
    assert_type(backends[0].load("s"), list[dict[str, Any]] | None)
