"""The calls about messages and the tool calls in them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, Unpack

from .. import inputs, queries
from ..arguments import MessageDetails, NewMessage, refuse_unknown, several
from ..database.full_disk import Freeing
from ..database.transaction import Transaction
from ..errors import InvalidInputError
from ..rows import PreparedMessage, chat_message, prepare, prepare_plain
from ..values import MAX_SEQ, Message, StateScope, SupersededMessage, ToolCall, ToolCallReport
from .calls import Calls
from .state import texts_by_scope

MAX_BATCH: Final = 100_000


class MessageCalls(Calls):
    """Messages."""

    def append(
        self,
        session_id: str,
        message: str | Mapping[str, Any],
        content: str | Sequence[Any] | None = None,
        *,
        name: str | None = None,
        tool_calls: Sequence[Any] | None = None,
        tool_call_id: str | None = None,
        **details: Unpack[MessageDetails],
    ) -> Message:
        """Store a message at the end of a session.

        Args:
            session_id: A session that is there.
            message: A role, followed by the content, or a whole message dict. A dict comes back equal from `to_dict()`.
            content: A text (also an empty one), content parts, or None; only with a role.
            name: Goes into the message dict; only with a role.
            tool_calls: Goes into the message dict; only with a role.
            tool_call_id: Goes into the message dict; only with a role.
            details: `model`, `input_tokens`, `output_tokens`, `response_time_ms`, `dedupe_key` and more (see `MessageDetails`).

        Raises:
            NotFoundError: There is no such session.
            ConflictError: The dedupe key was used for another message.
            QuotaError: The session has had 16,777,215 messages.
        """
        refuse_unknown(details, MessageDetails)
        wanted = inputs.identifier("session_id", session_id)
        given = {"name": name, "tool_calls": tool_calls, "tool_call_id": tool_call_id}
        extra = {key: value for key, value in given.items() if value is not None}
        if isinstance(message, str):
            if content is None and tool_calls is None:
                raise InvalidInputError("content", "is missing; give a text (an empty one will do), or a whole message dict")
            message = chat_message(message, content, extra)
        elif content is not None or extra:
            raise InvalidInputError("content", "must be inside of the message dict, or the message must be a role")
        settings = self._settings
        max_bytes, compress_over = settings.max_text_bytes, settings.compress_over
        plain = None if details else prepare_plain(message, max_bytes=max_bytes, compress_over=compress_over)
        prepared = plain or prepare(message, max_bytes=max_bytes, compress_over=compress_over, **details)
        namespace = self._settings.namespace
        return self._write(lambda db: queries.messages.append(db, namespace, wanted, (prepared,))[0])

    def append_many(
        self,
        session_id: str,
        messages: Iterable[Mapping[str, Any] | NewMessage],
        *,
        state: Mapping[StateScope, Mapping[str, Any]] | None = None,
        expected_last_seq: int | None = None,
    ) -> list[Message]:
        """Store several messages in one transaction: all or none. Returns them in the order given.

        Args:
            session_id: A session that is there.
            messages: Message dicts, or `NewMessage`s.
            state: Values to set in the same transaction, by scope ("session", "user", "app"), as `set_state` does. A repeated call
                whose messages were all stored before, by their dedupe keys, sets none.
            expected_last_seq: What the session's `last_seq` must be, which this counts on: nobody has appended since.

        Raises:
            NotFoundError: There is no such session.
            ConflictError: A dedupe key was used for another message, or the last seq is not the expected one.
            InvalidInputError: Something is refused; or there is state of scope "user", and the session has no `user_id`.
            QuotaError: The session has had 16,777,215 messages, or the owner of state would have more than 4 MiB.
        """
        wanted = inputs.identifier("session_id", session_id)
        expected = inputs.optional_whole_number("expected_last_seq", expected_last_seq, most=MAX_SEQ)
        values = texts_by_scope(state)
        prepared = self._all_prepared(messages)
        namespace = self._settings.namespace
        return self._write(
            lambda db: queries.messages.append(db, namespace, wanted, prepared, expected_last_seq=expected, values=values)
        )

    def messages(
        self,
        session_id: str,
        *,
        last: int | None = None,
        before: int | None = None,
        after: int | None = None,
        keep_pairs: bool = False,
        touch: bool = False,
        blobs: bool = True,
    ) -> list[Message]:
        """Messages of a session, oldest first.

        Args:
            session_id: A session that is there.
            last: Only the newest so many.
            before: Only those with a smaller seq.
            after: Only those with a larger seq.
            keep_pairs: Put each tool result right behind its call, as chat APIs ask for. The start grows to take in the call of
                its first result; results whose call is nowhere are left out; the end shrinks before a call whose result lies
                behind `before`. Calls without a result stay: `repair` gives them one.
            touch: Begin the session's idle time anew, as an append does. Reading alone does not.
            blobs: Read strings of more than 64 KiB. With False a name, `blob:sha256-...`, stands in the place of each, and
                `Message.blobs` tells them; they cost nothing then.

        Raises:
            NotFoundError: There is no such session, or it has expired.
        """
        wanted = inputs.identifier("session_id", session_id)
        newest = inputs.optional_whole_number("last", last)
        upper = inputs.optional_whole_number("before", before)
        lower = inputs.optional_whole_number("after", after)
        read = queries.messages.read_pairs if inputs.flag("keep_pairs", keep_pairs) else queries.messages.read
        namespace = self._settings.namespace
        with_blobs = inputs.flag("blobs", blobs)

        def read_now(db: Transaction) -> list[Message]:
            return read(db, namespace, wanted, last=newest, before=upper, after=lower, blobs=with_blobs)

        def touch_and_read(db: Transaction) -> list[Message]:
            queries.lifecycle.touch_if_there(db, namespace, wanted)
            return read_now(db)

        return self._write(touch_and_read) if inputs.flag("touch", touch) else self._read(read_now)

    def iterate(self, session_id: str, *, after: int = 0, page_size: int = 500, blobs: bool = True) -> Iterator[Message]:
        """All messages of a session, read in pages, so that neither memory nor a snapshot is held for long.

        A page has fewer messages than `page_size` where their blobs are large; `blobs=False` is that of `messages`.
        """
        while page := self._message_page(session_id, after=after, page_size=page_size, blobs=blobs):
            yield from page
            after = page[-1].seq

    def pop(self, session_id: str) -> Message | None:
        """Remove the last message and return it; None if there is none. Its seq is not given again."""
        wanted = inputs.identifier("session_id", session_id)
        return self._write(Freeing(lambda db: queries.edits.pop(db, self.namespace, wanted)))

    def truncate(self, session_id: str, *, after: int) -> int:
        """Remove all messages with a larger seq and return how many."""
        wanted = inputs.identifier("session_id", session_id)
        kept = inputs.whole_number("after", after, most=MAX_SEQ)
        return self._write(Freeing(lambda db: queries.edits.truncate(db, self.namespace, wanted, after=kept)))

    def clear(self, session_id: str) -> int:
        """Remove all messages of a session, keep the session, and return how many they were."""
        return self.truncate(session_id, after=0)

    def replace_range(
        self,
        session_id: str,
        first: int,
        last: int,
        messages: Iterable[Mapping[str, Any] | NewMessage],
        *,
        expected_version: int | None = None,
    ) -> list[Message]:
        """Put messages in the place of those from one seq to another, for example a summary of them, all or nothing.

        The new ones, at most as many, get the seqs of the first old ones. The old ones leave the session and can be read with
        `superseded`. Forks that share them keep them. Neither is told to the remote. `check` says if tool calls lost their results.

        Args:
            session_id: A session that is there.
            first: The smallest seq that is replaced.
            last: The largest one.
            messages: What takes their place, as in `append_many`; nothing takes them out only.
            expected_version: What the session's `version` must be, which this counts on.

        Returns:
            The new messages. Without a message between the seqs nothing changes.

        Raises:
            NotFoundError: There is no such session.
            ConflictError: Its version is not `expected_version`, or a dedupe key is used by another message.
            InvalidInputError: There are more new messages than old ones.
        """
        wanted = inputs.identifier("session_id", session_id)
        start = inputs.whole_number("first", first, least=1, most=MAX_SEQ)
        end = inputs.whole_number("last", last, least=start, most=MAX_SEQ)
        version = inputs.optional_whole_number("expected_version", expected_version, least=1)
        prepared = self._all_prepared(messages)
        namespace = self._settings.namespace
        return self._write(
            lambda db: queries.replacing.replace_range(db, namespace, wanted, start, end, prepared, expected_version=version)
        )

    def superseded(self, session_id: str, seq: int | None = None) -> list[SupersededMessage]:
        """The messages that `replace_range` took out of a session, or those that had one seq; `.message` of each is what it was.

        They come by seq, and those of one seq in the order in which they were replaced. They go with the session, or by
        `clear_superseded`. A fork begins without any.

        Raises:
            NotFoundError: There is no such session, or it has expired.
        """
        wanted = inputs.identifier("session_id", session_id)
        place = inputs.optional_whole_number("seq", seq, least=1, most=MAX_SEQ)
        return self._read(lambda db: queries.replacing.superseded(db, self.namespace, wanted, seq=place))

    def clear_superseded(self, session_id: str) -> int:
        """Delete the messages that were replaced in a session for good, and return how many they were."""
        wanted = inputs.identifier("session_id", session_id)
        return self._write(Freeing(lambda db: queries.replacing.clear_superseded(db, self.namespace, wanted)))

    # -- tool calls

    def open_tool_calls(self, session_id: str) -> tuple[ToolCall, ...]:
        """The tool calls that have no result yet, in order."""
        wanted = inputs.identifier("session_id", session_id)
        return self._read(lambda db: queries.tool_calls.check(db, self.namespace, wanted).unmatched_calls)

    def check(self, session_id: str) -> ToolCallReport:
        """Tool calls without a result and results without a call: providers refuse a history that has any."""
        wanted = inputs.identifier("session_id", session_id)
        return self._read(lambda db: queries.tool_calls.check(db, self.namespace, wanted))

    def repair(self, session_id: str) -> list[Message]:
        """Append a result that says "interrupted" for each open tool call; deletes nothing; a second call adds nothing."""
        wanted = inputs.identifier("session_id", session_id)
        return self._write(lambda db: queries.tool_calls.repair(db, self.namespace, wanted))

    def _message_page(self, session_id: str, *, after: int, page_size: int, blobs: bool) -> list[Message]:
        wanted = inputs.identifier("session_id", session_id)
        start = inputs.whole_number("after", after)
        size = inputs.whole_number("page_size", page_size, least=1, most=10_000)
        flag = inputs.flag("blobs", blobs)
        return self._read(lambda db: queries.messages.read_page(db, self.namespace, wanted, after=start, size=size, blobs=flag))

    def _all_prepared(self, messages: Iterable[Mapping[str, Any] | NewMessage]) -> list[PreparedMessage]:
        return [self._prepared(index, message) for index, message in enumerate(several("messages", messages, most=MAX_BATCH))]

    def _prepared(self, index: int, message: Mapping[str, Any] | NewMessage) -> PreparedMessage:
        max_bytes, compress_over = self._settings.max_text_bytes, self._settings.compress_over
        try:
            if isinstance(message, NewMessage):
                return prepare(message.message, max_bytes=max_bytes, compress_over=compress_over, **message.details)
            plain = prepare_plain(message, max_bytes=max_bytes, compress_over=compress_over)
            return plain or prepare(message, max_bytes=max_bytes, compress_over=compress_over)
        except InvalidInputError as error:
            inner = error.field.removeprefix("message")
            place = f"messages[{index}]{inner if not inner or inner.startswith('.') else '.' + inner}"
            raise InvalidInputError(place, error.reason, limit=error.limit) from None
