"""A key is held so that it shows nowhere by accident, and what is no key is refused without showing it."""

from __future__ import annotations

import copy
import dataclasses
import json
import pickle
import traceback
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sessionstore
from sessionstore import ConfigError
from sessionstore.remote.credentials import MAX_KEY_CHARS, ApiKey, require_valid
from sessionstore.remote.settings import Remote

TEXT = "canary-0123456789-wxyz"


@pytest.mark.parametrize("show", [repr, str, format, "{}".format, "%s".__mod__, ascii, lambda key: f"{key!r:>5}"])
def test_a_long_key_shows_its_last_four_characters(show: Callable[[object], str]) -> None:
    assert show(ApiKey(TEXT)) == "<ApiKey ****wxyz>"


@pytest.mark.parametrize(("text", "shown"), [("a" * 12, "****aaaa"), ("a" * 11, "****"), ("a", "****")])
def test_a_short_key_shows_nothing(text: str, shown: str) -> None:
    assert repr(ApiKey(text)) == f"<ApiKey {shown}>"


def test_a_key_is_revealed_where_it_is_asked_for() -> None:
    assert ApiKey(TEXT).reveal() == TEXT


def test_an_argument_becomes_a_key_once() -> None:
    key = ApiKey(TEXT)
    assert ApiKey.of(key) is key
    assert ApiKey.of(TEXT) == key
    assert ApiKey.of(None) is None


@pytest.mark.parametrize("wrong", ["Bearer canary-0123456789-wxyz", "canary 0123456789", "", 7, b"canary"])
def test_an_argument_that_is_no_key_is_wrapped_first_and_refused_then(wrong: Any) -> None:
    """Between the two, the caller's variable no longer holds it."""
    key = ApiKey.of(wrong)
    assert "canary" not in repr(key) + repr([getattr(key, name) for name in ApiKey.__slots__])
    with pytest.raises(ConfigError, match="api_key: must"):
        require_valid(key)
    require_valid(ApiKey.of(TEXT))
    require_valid(None)


def set_remote_of_new_store(api_key: Any) -> None:
    # As the library does it, for this frame is shown, too.
    api_key = ApiKey.of(api_key)
    with sessionstore.open(in_memory=True) as store:
        store.set_remote("https://h", api_key)


@pytest.mark.parametrize(
    "call",
    [
        lambda key: ApiKey(key()),
        lambda key: Remote("https://h", key()),
        lambda key: sessionstore.open(in_memory=True, remote="https://h", api_key=key()),
        lambda key: sessionstore.AgentPerformanceTracker("https://h", key()),
        lambda key: sessionstore.AgentOperationsTracker("https://h", key()),
        lambda key: set_remote_of_new_store(key()),
    ],
)
def test_a_malformed_key_shows_in_no_variable_of_the_traceback(call: Callable[[Callable[[], str]], object]) -> None:
    with pytest.raises(ConfigError) as caught:
        call(lambda: f"Bearer {TEXT}")
    shown = traceback.TracebackException.from_exception(caught.value, capture_locals=True).format()
    assert [line for line in shown if TEXT in line] == []


def test_a_callable_is_asked_each_time() -> None:
    keys = iter(["first-key-0001", "second-key-0002"])
    key = ApiKey(lambda: next(keys))
    assert repr(key) == "<ApiKey ****>"
    assert key.hidden_in("first-key-0001") == "first-key-0001"
    assert key.reveal() == "first-key-0001"
    assert key.reveal() == "second-key-0002"
    assert key.hidden_in("x second-key-0002 y") == "x **** y"
    assert repr(key) == "<ApiKey ****>"


def test_an_error_of_the_callable_is_its_callers_to_see() -> None:
    def broken() -> str:
        raise LookupError("no keyring")

    with pytest.raises(LookupError, match="no keyring"):
        ApiKey(broken).reveal()


def test_a_key_is_hidden_in_what_quotes_it() -> None:
    assert ApiKey(TEXT).hidden_in(f"401: bad key {TEXT!r}") == "401: bad key '****'"


@pytest.mark.parametrize(
    "leak",
    [
        pickle.dumps,
        copy.copy,
        copy.deepcopy,
        lambda key: key.__getstate__(),
        lambda key: key.__reduce__() and key.__reduce_ex__(2),
        lambda key: dataclasses.asdict(Remote("https://h", key)),
        lambda key: dataclasses.astuple(Remote("https://h", key)),
        json.dumps,
        vars,
        iter,
        len,
        bytes,
    ],
)
def test_no_copy_of_it_is_made(leak: Callable[[Any], Any]) -> None:
    with pytest.raises(TypeError) as caught:
        leak(ApiKey(TEXT))
    assert TEXT not in "".join(traceback.format_exception(caught.value))


def test_equal_keys_are_equal() -> None:
    def provider() -> str:
        return TEXT

    assert ApiKey(TEXT) == ApiKey(TEXT)
    assert ApiKey(TEXT) != ApiKey(TEXT + "x")
    assert ApiKey(TEXT) != TEXT
    assert ApiKey(provider) == ApiKey(provider)
    assert ApiKey(provider) != ApiKey(TEXT)
    assert ApiKey(TEXT) != ApiKey(provider)
    assert len({ApiKey(TEXT), ApiKey(TEXT), ApiKey(provider)}) == 2


# -- what is refused

NO_KEYS = [
    "",
    None,
    12,
    b"canary-bytes",
    ["canary"],
    "canary\n",
    "canary\r\nX-Injected: 1",
    " canary",
    "canary ",
    "can ary",
    "canary\t",
    "canary\0",
    "canary\x7f",
    "canary-\u0430-with-a-cyrillic-letter",
    "canary\u200b",
    "canary\ud800",
    "canary" * 2_000,
    "Bearer canary",
    "bearer canary",
    "Basic canary",
]


def what_a_debugger_sees(error: BaseException) -> str:
    """The texts of an error and of its causes, and the variables in this library's frames."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    own = [frame.f_locals for frame in frames if frame.f_globals["__name__"].startswith("sessionstore.")]
    assert own
    return "".join(traceback.format_exception(error)) + repr(error) + repr(own)


@pytest.mark.parametrize("given", NO_KEYS, ids=lambda given: ascii(given)[:24])
def test_what_is_no_key_is_refused_and_not_shown(given: Any) -> None:
    with pytest.raises(ConfigError, match=r"^api_key: must ") as caught:
        ApiKey(given)
    assert "canary" not in what_a_debugger_sees(caught.value)


@pytest.mark.parametrize("given", NO_KEYS, ids=lambda given: ascii(given)[:24])
def test_a_callable_that_returns_no_key_is_refused_when_it_is_asked(given: Any) -> None:
    key = ApiKey(lambda: given)
    with pytest.raises(ConfigError, match=r"^api_key: what the callable returned must ") as caught:
        key.reveal()
    assert "canary" not in what_a_debugger_sees(caught.value)
    assert "canary" not in repr(key)


def test_the_longest_key_is_taken() -> None:
    assert ApiKey("a" * MAX_KEY_CHARS).reveal() == "a" * MAX_KEY_CHARS
    with pytest.raises(ConfigError, match=f"at most {MAX_KEY_CHARS} characters"):
        ApiKey("a" * (MAX_KEY_CHARS + 1))


@settings(deadline=None, print_blob=True)
@given(st.text(max_size=30))
def test_any_text_is_a_key_or_refused(text: str) -> None:
    try:
        key = ApiKey(text)
    except ConfigError as error:
        assert text == "" or text not in str(error) or len(text) < 4  # noqa: PT017 - either outcome is right
        return
    assert key.reveal() == text
    assert text.isascii()
    assert text.isprintable()
    assert " " not in text
    assert len(text) < 12 or text not in repr(key)


def test_a_subclass_of_str_is_taken_as_its_text() -> None:
    class Odd(str):
        __slots__ = ()

        def __str__(self) -> str:
            return "another"

    revealed = ApiKey(Odd(TEXT)).reveal()
    assert revealed == TEXT
    assert type(revealed) is str


def test_an_async_callable_is_refused_before_it_is_asked() -> None:
    class Asked:
        async def __call__(self) -> str:
            raise AssertionError

    async def asked(name: str) -> str:
        raise AssertionError(name)

    for provider in (Asked(), partial(asked, "x")):
        with pytest.raises(ConfigError, match="api_key: must not be async"):
            ApiKey(provider)  # type: ignore[arg-type]
    hidden = ApiKey(lambda: asked("x"))  # type: ignore[arg-type, return-value]
    with pytest.raises(ConfigError, match="returned is a coroutine"):
        hidden.reveal()
