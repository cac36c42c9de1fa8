"""Questions to the remote: one GET each, answered by its JSON as it is, or by the error that the answer means."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final, NamedTuple
from urllib.parse import quote

import httpx

from ..errors import AuthError, RedirectRefusedError, RejectedError, ResponseError, SyncError
from ..remote.answers import Answer, Failure, described
from ..remote.credentials import ApiKey
from ..remote.requests import NAMESPACE, SOURCE
from ..remote.settings import Remote
from .calls import _run
from .courier import Courier

_UNKNOWN: Final = 404
_KEY_REFUSED: Final = (401, 403)
_NOT_NOW: Final = (408, 425, 429)
_REJECTED: Final = (400, 404, 422)


class Question(NamedTuple):
    """What is asked.

    Attributes:
        path: Below the base URL.
        query: Its parameters.
        headers: Whose session or agent is meant; not the key.
        is_of_one: Whether it is about one thing: the answer is an object then, or None where the remote does not know it.
    """

    path: str
    query: Mapping[str, str | int] = {}
    headers: Mapping[str, str] = {}
    is_of_one: bool = False


def ask(remote: Remote, question: Question, *, transport: httpx.AsyncBaseTransport | None = None) -> Any:
    """As `aask`, from a thread without a loop."""
    answer = _run(lambda: _answer(remote, question, transport))
    return meaning(answer, question, remote.api_key)


async def aask(remote: Remote, question: Question, *, transport: httpx.AsyncBaseTransport | None = None) -> Any:
    """The remote's answer, within its timeout. It is asked once.

    Raises:
        SyncError: There is none, or not now; its subclasses say what is wrong.
    """
    answer = await _answer(remote, question, transport)
    return meaning(answer, question, remote.api_key)


def meaning(answer: Answer | Failure, question: Question, key: ApiKey | None = None) -> Any:
    """What an answer says: JSON, or None for one thing that is not known.

    Raises:
        SyncError: It says nothing of the kind.
    """
    if isinstance(answer, Failure):
        raise SyncError(f"the remote could not be asked: {answer.error}")
    if 200 <= answer.status < 300:
        return _parsed(answer, question)
    if answer.status == _UNKNOWN and question.is_of_one:
        return None
    said = described(answer)
    raise _refusal(answer.status, said if key is None else key.hidden_in(said))


def segment(name: str) -> str:
    """An id as a part of a path. Dots alone would mean another folder."""
    return quote(name, safe="") if name.strip(".") else name.replace(".", "%2E")


def place(source: str, namespace: str) -> dict[str, str]:
    """The headers that say whose session or agent is meant."""
    return {SOURCE: source, NAMESPACE: quote(namespace, safe="")}


async def _answer(remote: Remote, question: Question, transport: httpx.AsyncBaseTransport | None) -> Answer | Failure:
    async with Courier(remote, transport=transport) as courier:
        return await courier.get(question.path, query=question.query, headers=question.headers)


def _parsed(answer: Answer, question: Question) -> Any:
    try:
        said = json.loads(answer.body or b"")
    except (ValueError, RecursionError):
        raise ResponseError(
            f"the remote answered HTTP {answer.status} without JSON; is its base_url right?", status=answer.status
        ) from None
    if question.is_of_one and not isinstance(said, dict):
        raise ResponseError(f"the remote answered HTTP {answer.status} with JSON of another shape", status=answer.status)
    return said


def _refusal(status: int, said: str) -> SyncError:
    if status in _KEY_REFUSED:
        return AuthError(f"the remote does not accept the API key: {said}", status=status)
    if status in _REJECTED:
        return RejectedError(f"the remote does not accept the question: {said}", status=status)
    if 300 <= status < 400:
        return RedirectRefusedError(f"the remote points to another address ({said}); set the right base_url", status=status)
    if status in _NOT_NOW or status >= 500:
        return SyncError(f"the remote cannot answer now: {said}", status=status)
    return ResponseError(f"the remote's answer is none of this API's: {said}", status=status)
