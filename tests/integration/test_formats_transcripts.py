"""Transcripts: Markdown that keeps its structure, and an HTML page that loads and runs nothing."""

from __future__ import annotations

import html
import io
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import sessionstore
from sessionstore import NewMessage, SessionStore

PIXEL = "data:image/png;base64,iVBORw0KGgo="
EVIL = '</p><script>alert(1)</script><img src=x onerror="alert(1)"> & \u202e \x1b[31m'
CALL = {"id": "c<1>", "type": "function", "function": {"name": "f<b>", "arguments": '{"a":"<i>"}'}}
RANDOM = settings(max_examples=60, deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow])


def text_of(store: SessionStore, file_format: Any, **options: Any) -> str:
    stream = io.BytesIO()
    store.export_file(stream, format=file_format, **options)
    return stream.getvalue().decode()


def with_messages(store: SessionStore, *messages: Any, session_id: str = "s", **attributes: Any) -> SessionStore:
    store.create(session_id, **attributes)
    store.append_many(session_id, messages)
    return store


class Page(HTMLParser):
    """What a browser makes of a page: its elements, and its text without the style."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self._open: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        while self._open and self._open.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] in ("p", "pre", "h1", "dd"):
            self.texts.append(data)


ELEMENTS = {
    "html", "head", "meta", "title", "style", "body", "section", "h1", "dl", "dt", "dd", "article",
     "h2", "time", "p", "pre", "div", "img",
}  # fmt: skip


def require_harmless(page: str) -> None:
    parsed = Page(page)
    assert {tag for tag, _ in parsed.elements} <= ELEMENTS
    for tag, attributes in parsed.elements:
        assert not [name for name in attributes if name.startswith("on") or name in ("href", "style", "srcset")]
        assert tag != "img" or re.fullmatch(r"data:image/(png|jpeg|gif|webp|avif|bmp);base64,[\w+/=]*", attributes["src"] or "")


def test_a_page_shows_texts_calls_results_and_images_and_nothing_runs(store: SessionStore) -> None:
    with_messages(
        store,
        {"role": "user", "content": EVIL},
        {"role": "user", "content": [{"type": "text", "text": "look"}, {"type": "image_url", "image_url": {"url": PIXEL}}]},
        {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://example.org/track.png"}}]},
        {"role": "user", "content": [{"type": "image_url", "image_url": {"url": 'data:image/svg+xml;base64,PHN2Zz4=" onload="x'}}]},
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "tool_call_id": "c<1>", "content": '{"found": ["<u>"]}'},
        {"type": "function_call_output", "call_id": "x", "output": "of an item"},
        {"type": "reasoning", "summary": [{"type": "summary_text", "text": "because"}]},
        NewMessage({"any": ["<shape>"]}, kind="own<kind>"),
        title="<T>",
        tags=["<tag>"],
    )
    page = text_of(store, "html")
    require_harmless(page)
    parsed = Page(page)
    shown = "\n".join(parsed.texts)
    images = [attributes["src"] for tag, attributes in parsed.elements if tag == "img"]
    assert images == [PIXEL]
    for text in (
        "<T>",
        "<tag>",
        "</p><script>alert(1)</script>",
        "look",
        '"a": "<i>"',
        '"<u>"',
        "of an item",
        "because",
        "<shape>",
    ):
        assert text in shown, text
    assert "https://example.org/track.png" in html.unescape(page)
    assert "\x1b" not in page
    assert "\u202e" not in page
    assert "default-src 'none'" in page


texts = st.text(max_size=30) | st.sampled_from([EVIL, "```\n# x\n````", "> q\n\n# h", "\r\n---\r", "<!--", "]]>", "&lt;"])
stored_texts = texts.filter(lambda text: not re.search("[\ud800-\udfff]", text))


def test_random_texts_are_shown_as_they_are_and_nothing_runs() -> None:
    with sessionstore.open(in_memory=True) as store:

        @RANDOM
        @given(st.lists(stored_texts, min_size=1, max_size=4))
        def harmless(given_texts: list[str]) -> None:
            with_messages(store, *({"role": "user", "content": text} for text in given_texts))
            page = text_of(store, "html")
            require_harmless(page)
            unseen = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff]")
            expected = [unseen.sub("\ufffd", text.replace("\r\n", "\n")) for text in given_texts if text]
            assert [text for text in html_paragraphs(page) if text] == expected
            store.delete("s")

        harmless()


def html_paragraphs(page: str) -> list[str]:
    return [html.unescape(found) for found in re.findall(r'<p dir="auto">(.*?)</p>', page, re.DOTALL)]


def test_markdown_keeps_its_structure_whatever_is_said(store: SessionStore) -> None:
    with_messages(
        store,
        {"role": "user", "content": "# not a heading\n\n## 99\r\n---\rx\u2028# y"},
        {"role": "assistant", "content": "", "tool_calls": [CALL]},
        {"role": "tool", "tool_call_id": "c<1>", "content": "````\n# inside\n```"},
        {"role": "user", "content": [{"type": "image_url", "image_url": {"url": PIXEL}}]},
        title="a # title [x](y)\n# z",
    )
    text = text_of(store, "markdown")
    headings = [line for line in outside_of_code(text) if line.startswith("#")]
    assert headings[0] == r"# a \# title \[x\]\(y\) \# z"
    assert [line.split(" · ")[0] for line in headings[1:]] == ["## user", "## assistant", "## tool", "## user"]
    assert "> # not a heading\n>\n> ## 99\n> ---\n> x\n> # y\n" in text
    assert "`````\n````\n# inside\n```\n`````\n" in text
    assert f"![image]({PIXEL})" in text


def outside_of_code(text: str) -> list[str]:
    """The lines of Markdown that stand in no fence."""
    lines, fence = [], ""
    for line in text.split("\n"):
        found = re.match("`{3,}", line)
        if fence:
            fence = "" if line.rstrip() == fence else fence
        elif found:
            fence = found[0]
        else:
            lines.append(line)
    assert fence == ""
    return lines


def test_random_texts_keep_the_structure_of_markdown() -> None:
    with sessionstore.open(in_memory=True) as store:

        @RANDOM
        @given(st.lists(st.tuples(st.sampled_from(["user", "tool"]), stored_texts), min_size=1, max_size=4))
        def kept(given_texts: list[tuple[str, str]]) -> None:
            with_messages(store, *({"role": role, "content": text} for role, text in given_texts), title=given_texts[0][1])
            lines = outside_of_code(text_of(store, "markdown"))
            headings = [line for line in lines if line.startswith("#")]
            assert len(headings) == 1 + len(given_texts)
            assert [line.split(" ")[1] for line in headings[1:]] == [role for role, _ in given_texts]
            assert not re.search("[\x00-\x08\x0e-\x1f\x7f-\x9f\u202a-\u202e]", "".join(lines))
            store.delete("s")

        kept()


@pytest.mark.parametrize("file_format", ["markdown", "html"])
def test_real_conversations_are_all_there(
    store: SessionStore, airline_conversations: list[dict[str, Any]], file_format: Any, tmp_path: Path
) -> None:
    for number, conversation in enumerate(airline_conversations[:20]):
        with_messages(store, *conversation["messages"], session_id=f"chat-{number}")
    receipt = store.export_file(tmp_path / "all", format=file_format)
    text = html.unescape((tmp_path / "all").read_text(encoding="utf-8"))
    if file_format == "html":
        require_harmless((tmp_path / "all").read_text(encoding="utf-8"))
    assert receipt.sessions == 20
    for conversation in airline_conversations[:20]:
        for message in conversation["messages"]:
            if message["role"] == "user":
                for line in message["content"].splitlines():
                    assert line.rstrip() in text
