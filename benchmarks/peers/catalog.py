"""The peers: what each needs in its environment, in the versions that the figures are about, and the sides that it has."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Member:
    """A side of a run: one way of keeping conversations or a queue.

    Attributes:
        name: What the report calls it.
        driver: The module and class of its driver.
        does: What a turn or an item is for it, where that needs saying.
        ours: Whether it is this store, so that nothing is forced on its connections from outside.
        through: The framework whose adapter it goes through.
    """

    name: str
    driver: str
    does: str = ""
    ours: bool = False
    through: str = ""


@dataclass(frozen=True, slots=True)
class Peer:
    """What shares an environment.

    Attributes:
        name: What the command line calls it.
        requires: Requirements of the environment.
        extra: The extra of this package that is installed there, too; "" for the package without any, None for no package.
        main: The distribution whose version is told.
    """

    name: str
    main: str
    members: tuple[Member, ...]
    requires: tuple[str, ...] = ()
    extra: str | None = None


RAW = "raw sqlite3"
STORE = "store"
STORE_ASYNC = "store, awaited"
STORE_OUTBOX = "store, outbox alone"

_MORE_FOR_ALCHEMY = ("aiosqlite>=0.21", "greenlet>=3")

PEERS = (
    Peer(
        "sessionstore",
        "sessionstore",
        (
            Member(RAW, "raw:Sqlite", "the store's own statements on one connection; reads decode JSON", ours=True),
            Member(RAW, "raw:Table", "one table; UPDATE ... RETURNING and DELETE", ours=True),
            Member(STORE, "store:Sync", ours=True),
            Member(STORE_ASYNC, "store:Async", ours=True),
            Member(
                STORE,
                "store:Record",
                "record() with a remote, a batch by record_many(): figures and their events; taken by claim and settlement",
                ours=True,
            ),
            Member(STORE_ASYNC, "store:AsyncRecord", "the same awaited", ours=True),
            Member(STORE_OUTBOX, "store:Outbox", "the event without the figure, by a call that is not public", ours=True),
        ),
        extra="",
    ),
    Peer(
        "openai-agents",
        "openai-agents",
        (
            Member("SQLiteSession", "openai_agents:SQLite"),
            Member("AdvancedSQLiteSession", "openai_agents:Advanced"),
            Member("AsyncSQLiteSession", "openai_agents:Async"),
            Member("SQLAlchemySession", "openai_agents:SQLAlchemy"),
            Member("AgentsSession", "openai_agents:Adapter", "this store, by its adapter", ours=True, through="openai-agents"),
        ),
        ("openai-agents==0.24.0", "sqlalchemy>=2", *_MORE_FOR_ALCHEMY),
        extra="openai-agents",
    ),
    Peer(
        "langgraph",
        "langgraph-checkpoint-sqlite",
        (
            Member("SqliteSaver", "langgraph:Sqlite", "a checkpoint holds the whole history"),
            Member("SessionStoreSaver", "langgraph:Adapter", "this store, by its adapter", ours=True, through="langgraph"),
        ),
        ("langgraph-checkpoint-sqlite==3.1.2",),
        extra="langgraph",
    ),
    Peer(
        "agno",
        "agno",
        (Member("agno SqliteDb", "agno:Sqlite", "a session and a run, two transactions; its cache is emptied before reads"),),
        ("agno==3.1.10", "sqlalchemy>=2", "greenlet>=3"),
    ),
    Peer(
        "google-adk",
        "google-adk",
        (
            Member("SqliteSessionService", "google_adk:Sqlite", "two events, a transaction each"),
            Member("DatabaseSessionService", "google_adk:Database", "two events, a transaction each"),
            Member(
                "SessionStoreService",
                "google_adk:Adapter",
                "this store, by its adapter; two events",
                ours=True,
                through="google-adk",
            ),
        ),
        ("google-adk==2.13.0", "sqlalchemy>=2", *_MORE_FOR_ALCHEMY),
        extra="google-adk",
    ),
    Peer("llm", "llm", (Member("llm log_to_db", "llm:Log", "a response with the whole history as its prompt"),), ("llm==0.36",)),
    Peer(
        "persist-queue",
        "persist-queue",
        (Member("persist-queue SQLiteAckQueue", "persist_queue:Ack", "no batches"),),
        ("persist-queue==1.1.0",),
    ),
    Peer(
        "huey", "huey", (Member("huey SqliteStorage", "huey:Storage", "a dequeue deletes, no ack; no batches"),), ("huey==3.5.4",)
    ),
    Peer("litequeue", "litequeue", (Member("litequeue", "litequeue:Lite", "no batches"),), ("litequeue==0.9",)),
)


@dataclass(frozen=True, slots=True)
class Setting:
    """What a side's connections were seen to be set to.

    Attributes:
        taking: `synchronous` while items are taken from a queue.
        forced: Whether it was set from outside.
    """

    synchronous: str
    journal_mode: str
    taking: str = ""
    forced: bool = False


@dataclass(slots=True)
class Standing:
    """What is known of a member in a run.

    Attributes:
        offers: What its driver can do.
        usual: How its connections are set as it comes.
        at: The settings with which it can take part, by what a row asks for.
    """

    member: Member
    peer: Peer
    offers: tuple[str, ...]
    usual: Setting | None = None
    at: dict[str, Setting] = field(default_factory=dict)

    @property
    def keeps_sessions(self) -> bool:
        """Whether it keeps conversations; otherwise it is a queue."""
        return "turn" in self.offers


def chosen(names: list[str] | None) -> list[Peer]:
    """The peers of these names, and always raw and the store; without names, all."""
    known = {peer.name for peer in PEERS}
    unknown = [name for name in names or [] if name not in known]
    if unknown:
        raise ValueError(f"there is no peer {', '.join(unknown)}; there are {', '.join(peer.name for peer in PEERS)}")
    return [peer for index, peer in enumerate(PEERS) if not index or names is None or peer.name in names]
