"""What a reader sees of a stored message: texts, code, images and notes, whichever API the message is of."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, Literal

from ..content import MESSAGE_KIND, RESULT_KIND_OF, calls_of
from ..values import Message, SessionInfo

_RESULT_KINDS: Final = frozenset(RESULT_KIND_OF.values())
_TEXT_PARTS: Final = frozenset({"text", "input_text", "output_text"})
# Images that can hold nothing but pixels.
_IMAGE: Final = re.compile(r"data:image/(?:png|jpeg|gif|webp|avif|bmp);base64,[A-Za-z0-9+/]*={0,2}")


@dataclass(frozen=True, slots=True)
class Block:
    """A piece of a message.

    Attributes:
        kind: "text" is prose, "code" is to be shown as it is, "image" is a data URL, "note" says what cannot be shown.
        label: What it is, if that does not go without saying.
    """

    kind: Literal["text", "code", "image", "note"]
    text: str
    label: str = ""


def speaker(message: Message) -> str:
    """Who speaks."""
    if message.kind in _RESULT_KINDS:
        return "tool"
    return message.role or str(message.to_dict().get("role") or message.kind)


def facts(info: SessionInfo) -> Iterator[tuple[str, str]]:
    """What stands at the head of a transcript, name by name."""
    yield "session", info.session_id
    for name in ("user_id", "agent_id"):
        if getattr(info, name) is not None:
            yield name.removesuffix("_id"), getattr(info, name)
    yield "status", info.status
    if info.tags:
        yield "tags", ", ".join(info.tags)
    yield "created", info.created_at.isoformat(" ", "seconds")
    yield "messages", str(info.message_count)


def blocks(message: Message) -> Iterator[Block]:
    """The pieces of a message, in order."""
    given = message.to_dict()
    if message.kind == MESSAGE_KIND or "content" in given:
        for name in ("reasoning_content", "reasoning"):
            if isinstance(given.get(name), str) and given[name]:
                yield Block("text", given[name], "reasoning")
        yield from _of_content(given.get("content"), as_code=message.role in ("tool", "function"))
        if isinstance(given.get("refusal"), str):
            yield Block("text", given["refusal"], "refusal")
        yield from _calls(given)
    elif given.get("type") in RESULT_KIND_OF:
        yield from _calls(given)
    elif given.get("type") in _RESULT_KINDS:
        yield from _of_content(given.get("output"), as_code=True)
    elif isinstance(given.get("summary"), list):
        yield from (Block("text", part["text"], "reasoning") for part in given["summary"] if _has_text(part))
    else:
        yield Block("code", _pretty(given), message.kind)


def _of_content(content: Any, *, as_code: bool) -> Iterator[Block]:
    if isinstance(content, str):
        if content:
            yield Block("code", _pretty_text(content)) if as_code else Block("text", content)
    elif isinstance(content, list):
        for part in content:
            yield from _of_part(part, as_code=as_code)
    elif content is not None:
        yield Block("code", _pretty(content))


def _of_part(part: Any, *, as_code: bool) -> Iterator[Block]:
    kind = part.get("type") if isinstance(part, dict) else None
    if kind in _TEXT_PARTS and isinstance(part.get("text"), str):
        yield from _of_content(part["text"], as_code=as_code)
    elif kind in ("image_url", "input_image"):
        yield _image(part.get("image_url"))
    elif kind == "input_audio":
        yield Block("note", "audio")
    elif kind in ("file", "input_file"):
        file = part.get("file") if isinstance(part.get("file"), dict) else part
        yield Block("note", f"file {file.get('filename') or file.get('file_id') or ''}".strip())
    else:
        yield Block("code", _pretty(part), str(kind or ""))


def _image(given: Any) -> Block:
    """An image that stands in the message itself; one that lies elsewhere is named, not loaded."""
    url = given.get("url") if isinstance(given, dict) else given
    if not isinstance(url, str):
        return Block("note", "image")
    if _IMAGE.fullmatch(url):
        return Block("image", url)
    return Block("note", "image of a kind that is not shown" if url.startswith("data:") else f"image at {url}")


def _calls(given: dict[str, Any]) -> Iterator[Block]:
    for call_id, name, arguments in calls_of(given):
        yield Block("code", _pretty_text(arguments or ""), f"calls {name or 'a tool'} ({call_id})")
    called = given.get("function_call")
    if isinstance(called, dict):
        yield Block("code", _pretty_text(str(called.get("arguments") or "")), f"calls {called.get('name')}")


def _has_text(part: Any) -> bool:
    return isinstance(part, dict) and isinstance(part.get("text"), str)


def _pretty_text(text: str) -> str:
    """A JSON object or array with a line for each member; any other text as it is."""
    if not text.lstrip().startswith(("{", "[")):
        return text
    try:
        return _pretty(json.loads(text))
    except (ValueError, RecursionError):
        return text


def _pretty(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, indent=2)
