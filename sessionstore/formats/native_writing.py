"""Writing the lossless JSONL: sessions with their forks, each message and each large string once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from .. import queries
from ..database.transaction import Transaction
from ..queries import belongings, lineage
from ..queries.lineage import Piece
from ..values import STATE_SCOPES, Message, SessionInfo
from . import native, native_belongings, native_checkpoints
from .native import Kin
from .streams import LineWriter


class _Portions(NamedTuple):
    """Where the messages of a session stand in the file: with it, or with others before it (first seq, last seq, their key)."""

    own: list[Piece]
    shares: tuple[tuple[int, int, int], ...]


class NativeWriter:
    """The sessions of one file, in the order of their keys, so that a session stands before those that share its messages.

    It remembers the sessions that others refer to and the hashes of large strings, and no message.

    Attributes:
        messages: How many message lines were written.
        shared: How many messages of the last session stand with others.
    """

    def __init__(self, db: Transaction, writer: LineWriter) -> None:
        self.messages = self.shared = 0
        self._db = db
        self._writer = writer
        self._lines = 0
        # For each key that owns rows: which of them stand in the file, and with which session.
        self._written: dict[int, list[tuple[int, int, int]]] = {}
        self._blobs: set[str] = set()

    def begin(self) -> None:
        """Write the header."""
        self._writer.write(native.header_line())

    def session(self, key: int, info: SessionInfo) -> Iterator[Message]:
        """Write a session, and give each message that was written with it."""
        db, write = self._db, self._write
        links = queries.kinship.links_of(db, key)
        portions = self._portions(key)
        is_named = self._note(key, portions) or links.is_parent
        superseded = queries.kinship.count_superseded(db, key)
        values = queries.state.of(db, info.namespace, STATE_SCOPES[0], str(key))
        self.shared = sum(
            lineage.count(db, part) for first, last, _ in portions.shares for part in lineage.pieces(db, key, first, last)
        )
        kin = Kin(
            key=key if is_named else None,
            parent=links.parent_key,
            shares=portions.shares,
            message_lines=info.message_count - self.shared if portions.shares else None,
            state=len(values),
            superseded=superseded,
            checkpoints=queries.checkpoint_rows.count(db, key),
        )
        write(native.session_line(info, kin))
        for value in values:
            write(native.state_line(*value))
        for piece in portions.own:
            for message in queries.transfer.messages_of(db, key, info.session_id, piece.first, piece.last):
                write(native.message_line(message, self._blob_lines(message)))
                self.messages += 1
                yield message
        for replaced in queries.kinship.superseded_of(db, key, info.session_id):
            write(native.superseded_line(replaced, self._blob_lines(replaced.message)))
        for kind, row in queries.checkpoint_rows.rows(db, key):
            write(native_checkpoints.line(kind, row))

    def belongings(self, namespace: str | None) -> None:
        """Write what belongs to no session, of a namespace or of all."""
        for kind in belongings.KINDS.values():
            for row in belongings.rows(self._db, kind, namespace):
                self._write(native_belongings.line(kind, row))

    def end(self, sessions: int) -> None:
        """Write the trailer."""
        trailer = native.Trailer(sessions, self.messages, self._writer.sha256(), self._lines)
        self._writer.write(native.end_line(trailer))

    def _write(self, line: str) -> None:
        self._writer.write(line)
        self._lines += 1

    def _blob_lines(self, message: Message) -> dict[tuple[str | int, ...], str]:
        """Write the large strings of a message that the file does not have yet, and return the hashes of all by their paths."""
        found = native.large_strings(message)
        for name, text in found.values():
            if name not in self._blobs:
                self._write(native.blob_line(name, text))
                self._blobs.add(name)
        return {path: name for path, (name, _) in found.items()}

    def _portions(self, key: int) -> _Portions:
        own: list[Piece] = []
        shares: list[tuple[int, int, int]] = []
        for piece in lineage.pieces(self._db, key):
            if piece.owner == key:
                own.append(piece)
                continue
            free = piece.first
            for first, last, holder in sorted(self._written.get(piece.owner, ())):
                start, end = max(first, free), min(last, piece.last)
                if start <= end:
                    own += [Piece(free, start - 1, piece.owner)] if free < start else []
                    shares.append((start, end, holder))
                    free = end + 1
            own += [Piece(free, piece.last, piece.owner)] if free <= piece.last else []
        return _Portions(own, tuple(shares))

    def _note(self, key: int, portions: _Portions) -> bool:
        """Remember which rows stand with a session, and tell whether sessions behind it may share them."""
        is_named = False
        for piece in portions.own:
            if lineage.has_later_readers(self._db, piece, key):
                self._written.setdefault(piece.owner, []).append((piece.first, piece.last, key))
                is_named = True
        return is_named
