"""Transcripts as Markdown: a heading a session, a heading a message, and what was said as a quotation.

Texts stand as they were written, so a viewer renders the Markdown in them. A quotation keeps their headings and rules from passing
for those of the transcript; code stands between fences that are longer than any in it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from ..values import Message, SessionInfo
from .chat import Source
from .layouts import Layout
from .transcript import Block, blocks, facts, speaker

_SPECIAL: Final = re.compile(r"([\\`*_{}\[\]<>()#+.!|~&-])")
_BREAKS: Final = re.compile(r"\r\n|[\r\n\x0b\x0c\x1c-\x1e\x85\u2028\u2029]")
_UNSEEN: Final = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff]")
_FENCE: Final = re.compile(r"`{3,}")


class MarkdownTranscript(Layout):
    """Sessions, one after the other."""

    def session(self, info: SessionInfo, messages: Source) -> Iterator[str]:
        """A session, in pieces."""
        yield f"# {_line(info.title or info.session_id)}\n\n"
        yield "".join(f"- {name}: {_line(value)}\n" for name, value in facts(info)) + "\n"
        for message in messages():
            yield _message(message)


def _message(message: Message) -> str:
    when = message.created_at.isoformat(" ", "seconds")
    shown = "".join(f"{_block(block)}\n" for block in blocks(message))
    return f"## {_line(speaker(message))} · {message.seq} · {when}\n\n{shown}"


def _block(block: Block) -> str:
    label = f"*{_line(block.label)}*\n\n" if block.label else ""
    if block.kind == "text":
        return label + _quoted(block.text)
    if block.kind == "code":
        return label + _fenced(block.text)
    return label + (f"![image]({block.text})\n" if block.kind == "image" else f"*{_line(block.text)}*\n")


def _quoted(text: str) -> str:
    return "".join(f"> {_seen(line)}".rstrip() + "\n" for line in _BREAKS.split(text))


def _fenced(text: str) -> str:
    lines = "\n".join(map(_seen, _BREAKS.split(text)))
    fence = "`" * max(3, *(len(found) + 1 for found in _FENCE.findall(lines)), 3)
    return f"{fence}\n{lines}\n{fence}\n"


def _line(text: str) -> str:
    """A text on one line, without any meaning in Markdown."""
    return _SPECIAL.sub(r"\\\1", _seen(" ".join(_BREAKS.split(text))))


def _seen(text: str) -> str:
    """A text without what a terminal obeys or what hides or turns the words around it."""
    return _UNSEEN.sub("\ufffd", text)
