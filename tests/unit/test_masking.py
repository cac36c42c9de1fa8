"""What is masked in a text, what is left as it is, and that hostile texts take no time."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sessionstore.errors import InvalidInputError
from sessionstore.masking import is_secret, mask, masked

MASKED = [
    ("https://user:word@host/path", "https://****@host/path"),
    ("postgresql+psycopg://agent:p#w/q@db:5432/x", "postgresql+psycopg://****@db:5432/x"),
    ("https://key@host", "https://****@host"),
    ("at https://h/a?page=2&api_key=abc%20d&x=1", "at https://h/a?page=2&api_key=****&x=1"),
    ("Authorization: Bearer abc.def, and more\nnext", "Authorization: ****\nnext"),
    ("cookie: a=b; c=d", "cookie: ****"),
    ('{"Authorization": "Basic dXNlcjpw"} rest', '{"Authorization": "****"} rest'),
    ("{'x-api-key': b'abc d', 'a': 1}", "{'x-api-key': b'****', 'a': 1}"),
    ("[('x-api-key', 'abc d'), ('a', 'b')]", "[('x-api-key', '****'), ('a', 'b')]"),
    (r'{"body": "{\"password\": \"abc d\", \"x\": 1}"}', r'{"body": "{\"password\": \"****"}'),
    (r'{"token": "quoted \" inside", "x": 1}', '{"token": "****", "x": 1}'),
    ('{"credentials": {"user": "x", "word": "y"}} rest', '{"credentials": ****'),
    ("secret = 'never closed", "secret = '****"),
    ("password=hunter,2;x end", "password=**** end"),
    ("myClientSecret := q", "myClientSecret := ****"),
    ("sent bearer abcdef12 to it", "sent bearer **** to it"),
    ("sent Basic dXNlcjpwYXNz to it", "sent Basic **** to it"),
    ("keys sk-proj-abcd1234, gsk_abcd1234", "keys ****, ****"),
    ("(ghp_abcdefghij0123)", "(****)"),
    ("AKIAIOSFODNN7EXAMPLE!", "****!"),
    ("jwt eyJhbGciOi.eyJzdWIi.abc_-x end", "jwt **** end"),
    ("-----BEGIN RSA PRIVATE KEY-----\nabc\n-----END RSA PRIVATE KEY----- end", "**** end"),
    ("-----BEGIN PRIVATE KEY-----\nabc", "****"),
]
KEPT = [
    "",
    "https://host:8080/path@x?page=2#part",
    "mailto: alice@example.com",
    "input_tokens=12 output_tokens: 5",
    "monkey: banana; turkey = big",
    "dedupe_key: x, session_key=12, idempotency_key='a'",
    "the bearer token is missing",
    "Basic understanding of it",
    "agent_001_1674123456_a1b2c3d4",
    "a task-something-long and a disk-full-error",
    "/data/agent.db: is locked by another program",
    "the tokenizer: fast",
]


@pytest.mark.parametrize(("text", "without"), MASKED)
def test_secrets_are_masked(text: str, without: str) -> None:
    assert mask(text) == without


@pytest.mark.parametrize("text", KEPT)
def test_what_is_no_secret_stays(text: str) -> None:
    assert mask(text) == text


def test_our_own_refusals_stay_readable() -> None:
    error = InvalidInputError("api_key", "must be a str")
    assert mask(str(error)) == "api_key: must be a str"


@pytest.mark.parametrize("name", ["api_key", "apiKey", "X-API-Key", "key", "private key", "authToken", "token", "passwd", "OAuth"])
def test_names_of_secrets_are_known_in_any_spelling(name: str) -> None:
    assert is_secret(name)


@pytest.mark.parametrize("name", ["monkey", "session_key", "keyboard", "author", "tokenizer", "path", "session_id", ""])
def test_other_names_are_no_secrets(name: str) -> None:
    assert not is_secret(name)


def test_counts_and_what_is_not_set_are_told() -> None:
    facts = {"input_tokens": 12, "tokens": ["a"], "api_key": None, "has_token": True, "password": 1234, "token_count": 3}
    assert masked(facts) == {
        "input_tokens": 12, "tokens": "****", "api_key": None, "has_token": True, "password": "****", "token_count": 3,
    }  # fmt: skip


@settings(deadline=None, print_blob=True)
@given(
    st.text() | st.lists(st.sampled_from([text for text, _ in MASKED] + ['"', "'", "\\", "key", "=", ": ", " ", "("])).map("".join)
)
def test_masking_again_changes_nothing(text: str) -> None:
    once = mask(text)
    assert mask(once) == once


@pytest.mark.parametrize(
    "piece",
    ["a", "a-", "://", "://a:b", "eyJ-", "bearer ", "basic a", "-----BEGIN ", "-----BEGIN PRIVATE KEY", 'key="', "key='\\", "key=(",
     '"', "\\", "key: ", "sk-", " ", 'k"', "aA", "a.", "token:b'\\\\"],
)  # fmt: skip
def test_the_time_grows_with_the_text_and_not_with_its_square(piece: str) -> None:
    """A pattern that goes back and forth would take some hundred times longer for a text that is sixteen times longer."""

    def seconds(size: int) -> float:
        text = piece * (size // len(piece))
        best = float("inf")
        for _ in range(3):
            began = time.process_time()
            mask(text)
            best = min(best, time.process_time() - began)
        return best

    assert seconds(160_000) < 80 * max(seconds(10_000), 0.0005)
