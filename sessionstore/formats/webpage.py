"""Transcripts as one HTML page that needs nothing else: no script, no link that is followed, no image from elsewhere."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html import escape
from typing import Final

from ..values import Message, SessionInfo
from .chat import Source
from .layouts import Layout
from .transcript import Block, blocks, facts, speaker

_UNSEEN: Final = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff]")
# Even if a browser took a text for markup, it would load and run nothing.
_POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"
_STYLE: Final = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 52rem; margin: 2rem auto; padding: 0 1rem; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 0 1rem; margin: 0 0 1.5rem; }
dt { opacity: 0.65; } dd { margin: 0; overflow-wrap: anywhere; }
article { border-left: 4px solid #8888; margin: 1rem 0; padding: 0.1rem 1rem; }
article.user { border-color: #2a7ae2; } article.assistant { border-color: #2e9e5b; } article.tool { border-color: #b8860b; }
h2 { font-size: 0.9rem; margin: 0.4rem 0; } h2 time { font-weight: normal; opacity: 0.65; }
p, pre { white-space: pre-wrap; overflow-wrap: anywhere; margin: 0.4rem 0; unicode-bidi: plaintext; }
pre { font-size: 0.85rem; background: #8881; padding: 0.5rem; }
img { max-width: 100%; } .label { opacity: 0.65; font-size: 0.85rem; }
section + section { border-top: 1px solid #8888; margin-top: 3rem; }
"""


class WebpageTranscript(Layout):
    """Sessions, one after the other, on one page."""

    def begin(self) -> str:
        """The head of the page."""
        return (
            '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
            f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            f"<title>Transcripts</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        )

    def session(self, info: SessionInfo, messages: Source) -> Iterator[str]:
        """A session, in pieces."""
        yield f'<section>\n<h1 dir="auto">{_text(info.title or info.session_id)}</h1>\n<dl>\n'
        for name, value in facts(info):
            yield f'<dt>{_text(name)}</dt><dd dir="auto">{_text(value)}</dd>\n'
        yield "</dl>\n"
        for message in messages():
            yield _message(message)
        yield "</section>\n"

    def end(self, sessions: int, messages: int, sha256: str) -> str:
        """The foot of the page."""
        return "</body>\n</html>\n"


def _message(message: Message) -> str:
    who, when = speaker(message), message.created_at.isoformat(" ", "seconds")
    shown = "".join(map(_block, blocks(message)))
    head = f"<h2>{_text(who)} {message.seq} <time>{when}</time></h2>"
    return f'<article class="{_text(message.role or "other")}">\n{head}\n{shown}</article>\n'


def _block(block: Block) -> str:
    label = f'<div class="label">{_text(block.label)}</div>\n' if block.label else ""
    if block.kind == "text":
        return f'{label}<p dir="auto">{_text(block.text)}</p>\n'
    if block.kind == "code":
        return f'{label}<pre dir="auto">{_text(block.text)}</pre>\n'
    if block.kind == "image":
        return f'{label}<p><img alt="image" src="{_text(block.text)}"></p>\n'
    return f'{label}<p class="label">{_text(block.text)}</p>\n'


def _text(text: str) -> str:
    """A text as text: no markup, and nothing that hides or turns the words around it."""
    return _UNSEEN.sub("\ufffd", escape(text.replace("\r\n", "\n")))
