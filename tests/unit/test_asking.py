"""What the remote's answer to a question means, and how ids get into its paths."""

from __future__ import annotations

from typing import Any

import pytest

from sessionstore.delivery.asking import Question, meaning, place, segment
from sessionstore.errors import AuthError, RedirectRefusedError, RejectedError, ResponseError, SyncError
from sessionstore.remote.answers import Answer, Failure
from sessionstore.remote.credentials import ApiKey

FIGURES = Question("/metrics/quality")
ONE = Question("/conversations/x", is_of_one=True)


def answer(status: int, body: bytes | None = b"", **headers: str) -> Answer:
    return Answer(status, headers, body)


@pytest.mark.parametrize(("body", "said"), [(b"{}", {}), (b"[1]", [1]), (b'{"a": null}', {"a": None}), (b"null", None)])
def test_json_is_the_answer_as_it_is(body: bytes, said: Any) -> None:
    assert meaning(answer(200, body), FIGURES) == said


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (301, RedirectRefusedError), (302, RedirectRefusedError), (307, RedirectRefusedError),
        (400, RejectedError), (404, RejectedError), (422, RejectedError),
        (401, AuthError), (403, AuthError),
        (408, SyncError), (425, SyncError), (429, SyncError), (500, SyncError), (503, SyncError), (520, SyncError),
        (402, ResponseError), (405, ResponseError), (410, ResponseError), (418, ResponseError),
    ],
)  # fmt: skip
def test_every_other_status_is_an_error_that_says_it(status: int, kind: type[SyncError]) -> None:
    said = "to https://elsewhere.example" if kind is RedirectRefusedError else "it says so"
    with pytest.raises(kind, match=f"HTTP {status}:? {said}") as caught:
        meaning(answer(status, b'{"detail": "it says so"}', location="https://elsewhere.example/canary?canary"), FIGURES)
    assert type(caught.value) is kind
    assert caught.value.status == status
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize("body", [b"", b"<html>", b'{"cut', b"\xff", None, b"[" * 100_000])
def test_a_success_without_json_is_no_answer(body: bytes | None) -> None:
    with pytest.raises(ResponseError, match="without JSON") as caught:
        meaning(answer(200, body), FIGURES)
    assert caught.value.status == 200


def test_one_thing_may_be_unknown() -> None:
    assert meaning(answer(404, b"<html>"), ONE) is None
    with pytest.raises(ResponseError, match="another shape"):
        meaning(answer(200, b"[]"), ONE)


def test_no_answer_is_no_status() -> None:
    with pytest.raises(SyncError, match="could not be asked: ConnectError") as caught:
        meaning(Failure("ConnectError: refused"), ONE)
    assert (type(caught.value), caught.value.status) == (SyncError, None)


def test_an_answer_that_quotes_the_key_is_told_without_it() -> None:
    key = ApiKey("canary-key-0123456789")
    with pytest.raises(AuthError) as caught:
        meaning(answer(401, b'{"detail": "canary-key-0123456789 is no key"}'), FIGURES, key)
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "path"),
    [("a", "a"), ("a/b", "a%2Fb"), ("a b?c#d", "a%20b%3Fc%23d"), ("%41", "%2541"), ("é", "%C3%A9"), (".", "%2E"), ("..", "%2E%2E"),
     ("..a", "..a"), ("a:b_1", "a%3Ab_1")],
)  # fmt: skip
def test_an_id_stays_one_part_of_the_path(name: str, path: str) -> None:
    assert segment(name) == path


def test_headers_say_whose_session_is_meant() -> None:
    assert place("store-1", "team/é\n") == {"Sessionstore-Source": "store-1", "Sessionstore-Namespace": "team%2F%C3%A9%0A"}
