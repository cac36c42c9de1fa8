"""What the formats write for a session, piece by piece, and what stands around the sessions of a file."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from ..content import says_its_kind
from ..values import SessionInfo
from . import HTML, MARKDOWN, OPENAI, OPENAI_MESSAGES, RESPONSES, RESPONSES_ITEMS, openai
from .chat import ChatHistory, Source


class Layout:
    """A format of text that holds sessions one after the other, with nothing around them.

    Attributes:
        left_out: How many messages it had no place for.
    """

    left_out = 0

    def begin(self) -> str:
        """What stands before the first session."""
        return ""

    def session(self, info: SessionInfo, messages: Source) -> Iterator[str]:
        """A session, in pieces."""
        raise NotImplementedError

    def end(self, sessions: int, messages: int, sha256: str) -> str:
        """What stands behind the last session; the hash is of all that stands before."""
        return ""


class _Chats(Layout):
    def session(self, info: SessionInfo, messages: Source) -> Iterator[str]:
        history = ChatHistory(messages)
        yield from openai.conversation_parts(info, history)
        self.left_out += history.left_out


class _ChatMessages(Layout):
    def session(self, info: SessionInfo, messages: Source) -> Iterator[str]:
        history = ChatHistory(messages)
        for message in history:
            yield openai.message_line(message)
        self.left_out += history.left_out


class _Items(Layout):
    def session(self, info: SessionInfo, messages: Source) -> Iterator[str]:
        yield from openai.conversation_parts(info, self._items(messages), held_in=openai.ITEMS)

    def _items(self, messages: Source) -> Iterator[dict[str, Any]]:
        """The messages but those that nothing but their kind tells: nobody could read them."""
        for message in messages():
            item = message.to_dict()
            if says_its_kind(item):
                yield item
            else:
                self.left_out += 1


class _ItemLines(_Items):
    def session(self, info: SessionInfo, messages: Source) -> Iterator[str]:
        for item in self._items(messages):
            yield openai.message_line(item)


_LAYOUTS: Final[dict[str, type[Layout]]] = {
    OPENAI: _Chats,
    OPENAI_MESSAGES: _ChatMessages,
    RESPONSES: _Items,
    RESPONSES_ITEMS: _ItemLines,
}


def layout(file_format: str) -> Layout:
    """A new layout of a format of text."""
    if file_format == MARKDOWN:
        from .markdown import MarkdownTranscript

        return MarkdownTranscript()
    if file_format == HTML:
        from .webpage import WebpageTranscript

        return WebpageTranscript()
    return _LAYOUTS[file_format]()
