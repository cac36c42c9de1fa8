"""Reading the lossless JSONL into a store: each session is one transaction, and forks share messages again.

What a fork shares stands in the file with another session. If that was stored just as it stands there and was not changed since,
its rows are shared; else the messages are read from the file once more, so that nothing depends on what became of the other one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import groupby, islice
from typing import Any, Final, NamedTuple

from .. import inputs, queries
from ..database.transaction import Transaction
from ..errors import InvalidInputError
from ..queries.checkpoint_rows import Kind, Row
from ..queries.lineage import Piece
from ..queries.state import StoredValue, require_room
from ..queries.transfer import Companions, Given, Put
from ..rows import PreparedMessage
from ..values import SessionInfo
from . import native, native_belongings, native_checkpoints
from .native import Kin
from .receiving import Receiver
from .streams import LineReader

Place = tuple[int, int]

_LINES_PER_REPORT: Final = 200
_ROWS_A_BATCH: Final = 500
_RECENT_CHARS: Final = 16 << 20


class _Home(NamedTuple):
    """Rows in the store that hold some messages of a session of the file, as long as their session has this version."""

    first: int
    last: int
    key: int
    version: int


@dataclass
class _Origin:
    """A session of the file that others refer to.

    Attributes:
        body: Where its messages begin.
        lines: How many they are.
        key: The session of the store that it is.
        homes: Where its messages stand there.
    """

    body: Place
    lines: int
    key: int
    homes: list[_Home]

    def split(self, db: Transaction, first: int, last: int) -> tuple[list[Piece], list[tuple[int, int]]]:
        """Which of some seqs can be shared with the store, and which have to be read from the file."""
        shared: list[Piece] = []
        left: list[tuple[int, int]] = []
        for home in sorted(self.homes):
            start, end = max(home.first, first), min(home.last, last)
            if start <= end and queries.kinship.version_of(db, home.key) == home.version:
                left += [(first, start - 1)] if first < start else []
                shared.append(Piece(start, end, home.key))
                first = end + 1
        return shared, left + ([(first, last)] if first <= last else [])


@dataclass
class _Section:
    """The lines of one session.

    Attributes:
        kin: What its first line tells.
        body: Where its messages begin.
        lines: How many of them there are.
        end: Where the messages end, once they were read.
        last: The seq of the last one, once they were read.
        apart: Seqs of others whose messages it had to store itself, at the last try.
    """

    kin: Kin
    body: Place
    lines: int
    end: Place | None = None
    last: int = 0
    apart: list[tuple[int, int, _Origin]] = field(default_factory=list)


class NativeReader:
    """The sessions of one file, on their way into a store.

    It remembers where the sessions stand that others refer to, and where large strings do, and no message.
    """

    def __init__(self, lines: LineReader, receiver: Receiver, report: Callable[[int], None]) -> None:
        self._lines = lines
        self._receiver = receiver
        self._report = report
        self._origins: dict[int, _Origin] = {}
        self._children: dict[int, list[int]] = {}
        self._blobs: dict[str, Place] = {}
        self._recent: dict[str, str] = {}
        self._read = 0

    def finish(self, trailer: native.Trailer) -> None:
        """Store all that the file holds.

        Raises:
            InvalidInputError: Something is refused.
            ConflictError: A session cannot be put, as `on_conflict` has it.
        """
        self._lines.return_to((0, 0))
        self._lines.read()
        sessions = messages = 0
        while (line := self._next()).get("type") == native.SESSION:
            messages += self._session(line)
            sessions += 1
        line = self._belongings(line)
        if line.get("type") != native.END:
            raise self._lines.refusal("must be a session or the trailer")
        if (sessions, messages) != (trailer.sessions, trailer.messages):
            raise self._lines.refusal("the file does not hold as many sessions and messages as it tells")

    # -- sessions

    def _session(self, line: dict[str, Any]) -> int:
        """Store a session, and return how many messages stand with it."""
        with self._lines.naming_line():
            info, kin = native.session(line), native.kin(line)
            if kin.key in self._origins:
                raise InvalidInputError("key", "is that of another session")
            shares = [(first, last, self._origin(key)) for first, last, key in kin.shares]
        namespace = self._receiver.settings.namespace
        info = replace(info, namespace=namespace) if namespace else info
        values = self._state(kin.state)
        section = _Section(kin, self._lines.place(), info.message_count if kin.message_lines is None else kin.message_lines)
        companions = Companions(
            share=lambda db: self._shared(db, section, shares),
            parent_key=lambda _: self._key_of(kin.parent),
            superseded=lambda: self._superseded(section),
            state=values,
            checkpoints=lambda: self._checkpoints(section),
        )
        done = self._receiver.put(info, lambda: self._ordered(section, shares), companions)
        if not done.is_own:
            self._skip(section)
        self._remember(section, info, done)
        self._report(self._lines.bytes_read())
        return section.lines

    def _remember(self, section: _Section, info: SessionInfo, done: Put) -> None:
        """Keep what later sessions may need to know of one."""
        kin = section.kin
        homes = [_Home(1, section.last, done.key, info.version)] if done.is_own else []
        if kin.key is not None:
            self._origins[kin.key] = _Origin(section.body, section.lines, done.key, homes)
            children = self._children.pop(kin.key, None)
            if children:
                self._receiver.adopt(done.key, children)
        if not done.is_own:
            return
        for first, last, origin in section.apart:
            origin.homes.append(_Home(first, last, done.key, info.version))
        if kin.parent is not None and kin.parent not in self._origins:
            self._children.setdefault(kin.parent, []).append(done.key)

    def _origin(self, key: int) -> _Origin:
        if key not in self._origins:
            raise InvalidInputError("shares", "names a session that does not stand before it")
        return self._origins[key]

    def _key_of(self, parent: int | None) -> int | None:
        found = None if parent is None else self._origins.get(parent)
        return None if found is None else found.key

    def _shared(self, db: Transaction, section: _Section, shares: Iterable[tuple[int, int, _Origin]]) -> tuple[list[Piece], Given]:
        """What a session can share with the store, and its other messages."""
        pieces: list[Piece] = []
        section.apart = []
        for first, last, origin in shares:
            found, left = origin.split(db, first, last)
            pieces += found
            section.apart += [(start, end, origin) for start, end in left]
        return pieces, self._ordered(section, section.apart)

    def _ordered(self, section: _Section, others: Iterable[tuple[int, int, _Origin]]) -> Iterator[tuple[int, PreparedMessage]]:
        """The messages that stand with a session and some of those that stand with others, by their seqs."""
        waiting = list(others)
        shared = list(section.kin.shares)
        for line in self._own(section):
            with self._lines.naming_line():
                seq, message = self._message(line)
                while shared and shared[0][1] < seq:
                    shared.pop(0)
                if shared and shared[0][0] <= seq:
                    raise InvalidInputError("seq", "is one that the session shares")
            while waiting and waiting[0][0] < seq:
                yield from self._elsewhere(*waiting.pop(0))
            yield seq, message
        for other in waiting:
            yield from self._elsewhere(*other)

    def _own(self, section: _Section) -> Iterator[dict[str, Any]]:
        for line in self._body(section.body, section.lines):
            section.end = self._lines.place()
            section.last = line["seq"] if isinstance(line.get("seq"), int) else 0
            yield line
        section.end = section.end or section.body

    def _elsewhere(self, first: int, last: int, origin: _Origin) -> Given:
        """Messages that stand with another session, between two seqs."""
        for line in self._body(origin.body, origin.lines):
            with self._lines.naming_line():
                # Where the other session was left out, nobody has looked at it yet.
                seq = inputs.whole_number("seq", line.get("seq"))
                found = self._message(line) if first <= seq <= last else None
            if seq > last:
                return
            if found is not None:
                yield found

    def _superseded(self, section: _Section) -> Iterator[tuple[int, str, PreparedMessage]]:
        """The messages that were replaced in a session; the file is read up to their end."""
        place = section.end or section.body
        for line in self._body(place, section.kin.superseded):
            with self._lines.naming_line():
                found = native.superseded(line, max_bytes=self._receiver.settings.max_text_bytes, blob=self._text)
            place = self._lines.place()
            yield found
        self._lines.return_to(place)

    def _checkpoints(self, section: _Section) -> Iterator[tuple[Kind, Row]]:
        """The rows of a session's checkpoints; the file is read up to their end."""
        skipped = section.kin.superseded
        place = section.end or section.body
        for number, line in enumerate(self._body(place, skipped + section.kin.checkpoints)):
            place = self._lines.place()
            if number >= skipped:
                with self._lines.naming_line():
                    found = native_checkpoints.parsed(line)
                yield found
        self._lines.return_to(place)

    def _body(self, place: Place, count: int) -> Iterator[dict[str, Any]]:
        """So many lines from a place on, wherever the file is read meanwhile; large strings between them are noted."""
        for _ in range(count):
            self._lines.return_to(place)
            line = self._next_noting_blobs()
            place = self._lines.place()
            self._read += 1
            if self._read % _LINES_PER_REPORT == 0:
                self._report(self._lines.bytes_read())
            yield line

    def _skip(self, section: _Section) -> None:
        self._lines.return_to(section.body)
        for _ in range(section.lines + section.kin.superseded + section.kin.checkpoints):
            self._next_noting_blobs()

    def _message(self, line: dict[str, Any]) -> tuple[int, PreparedMessage]:
        return native.message(line, max_bytes=self._receiver.settings.max_text_bytes, blob=self._text)

    def _state(self, count: int) -> list[StoredValue]:
        values: list[StoredValue] = []
        size = 0
        for _ in range(count):
            line = self._next()
            with self._lines.naming_line():
                values.append(StoredValue(*native.state(line)))
            size += len(values[-1].name.encode()) + len(values[-1].value.encode())
            require_room(size)
        return values

    # -- large strings

    def _next_noting_blobs(self) -> dict[str, Any]:
        place = self._lines.place()
        while (line := self._next()).get("type") == native.BLOB:
            with self._lines.naming_line():
                name, text = native.blob(line)
            self._blobs[name] = place
            self._keep(name, text)
            place = self._lines.place()
        return line

    def _text(self, name: str) -> str:
        """A large string by its hash."""
        if name not in self._recent:
            if name not in self._blobs:
                raise InvalidInputError("blobs", "names a large string that does not stand before it")
            here = self._lines.place()
            self._lines.return_to(self._blobs[name])
            self._keep(*native.blob(self._next()))
            self._lines.return_to(here)
        return self._recent[name]

    def _keep(self, name: str, text: str) -> None:
        if sum(map(len, self._recent.values())) + len(text) > _RECENT_CHARS:
            self._recent.clear()
        self._recent[name] = text

    # -- what belongs to no session

    def _belongings(self, first: dict[str, Any]) -> dict[str, Any]:
        """Store what belongs to no session, and return the line behind it."""
        last = first
        namespace = self._receiver.settings.namespace

        def rows() -> Iterator[tuple[Any, Any]]:
            nonlocal last
            while last.get("type") in queries.belongings.KINDS:
                with self._lines.naming_line():
                    row = native_belongings.parsed(last, namespace)
                yield row
                last = self._next()

        counted = ((kind, (row, sum(1 for _ in equal))) for (kind, row), equal in groupby(rows()))
        while batch := list(islice(counted, _ROWS_A_BATCH)):
            self._receiver.put_belongings(batch)
            self._report(self._lines.bytes_read())
        return last

    def _next(self) -> dict[str, Any]:
        line = self._lines.read_object()
        if line is None:
            raise self._lines.refusal("the file changed while it was read")
        if not isinstance(line.get("type"), str):
            raise self._lines.refusal("type: must be a text")
        return line
