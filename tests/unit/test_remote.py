"""Which addresses a remote may have, and that two spellings of one remote are the same."""

from __future__ import annotations

import dataclasses
import traceback
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sessionstore import ConfigError, InvalidInputError
from sessionstore.remote.credentials import ApiKey
from sessionstore.remote.settings import MAX_URL_CHARS, Remote, normal_url

SPELLINGS = [
    ("https://api.example.com", "https://api.example.com"),
    ("https://api.example.com/", "https://api.example.com"),
    ("HTTPS://API.Example.COM:443/", "https://api.example.com"),
    ("https://api.example.com:8443/v1//", "https://api.example.com:8443/v1"),
    ("https://api.example.com:0443/V1/Agents", "https://api.example.com/V1/Agents"),
    ("https://h:/x", "https://h/x"),
    ("https://h/a%2fb", "https://h/a%2Fb"),
    ("https://[2001:DB8:0:0::1]:443/x", "https://[2001:db8::1]/x"),
    ("https://xn--e1afmkfd.xn--p1ai", "https://xn--e1afmkfd.xn--p1ai"),
    ("https://10.0.0.8:9000", "https://10.0.0.8:9000"),
    ("https://169.254.169.254/x", "https://169.254.169.254/x"),
    ("https://0x7f.1", "https://0x7f.1"),
    ("https://my_host.internal", "https://my_host.internal"),
    ("http://localhost", "http://localhost"),
    ("http://LOCALHOST:80/x/", "http://localhost/x"),
    ("http://localhost:443", "http://localhost:443"),
    ("http://127.0.0.1:8000", "http://127.0.0.1:8000"),
    ("http://127.8.8.8", "http://127.8.8.8"),
    ("http://[::1]:8000/", "http://[::1]:8000"),
    ("http://[::ffff:127.0.0.1]", "http://[::ffff:127.0.0.1]"),
    ("http://[::FFFF:7f00:1]", "http://[::ffff:127.0.0.1]"),
]

REFUSED = [
    ("http://api.example.com", "https://"),
    ("http://localhost.example.com", "https://"),
    ("http://127.0.0.1.example.com", "https://"),
    ("http://0.0.0.0", "https://"),
    ("http://0x7f.1", "https://"),
    ("http://127.1", "https://"),
    ("http://[::2]", "https://"),
    ("ftp://h", "https:// and a host"),
    ("file:///etc/passwd", "https:// and a host"),
    ("javascript:alert(1)", "https:// and a host"),
    ("//h", "https:// and a host"),
    ("h", "https:// and a host"),
    ("localhost:8000", "https:// and a host"),
    ("", "https:// and a host"),
    ("http://", "https:// and a host"),
    ("https:///x", "https:// and a host"),
    ("https:h", "https:// and a host"),
    ("http://[::1", "https:// and a host"),
    (" https://h", "spaces"),
    ("https://h ", "spaces"),
    ("https://h/a b", "spaces"),
    ("https://h\n", "spaces"),
    ("ht\ttps://h", "spaces"),
    ("https://h\0", "spaces"),
    ("https://h\x7f", "spaces"),
    ("https://пример.рф", "xn--"),
    ("https://h\u2024com", "xn--"),
    ("https://h/ü", "xn--"),
    ("https://user:canary@h/", "user name"),
    ("https://canary@h", "user name"),
    ("https://@h", "user name"),
    ("https://h/?api_key=canary", "query"),
    ("https://h?", "query"),
    ("https://h/#canary", "fragment"),
    ("https://h:0", "port"),
    ("https://h:99999", "port"),
    ("https://h:65536", "port"),
    ("https://h:000443", "port"),
    ("https://h:-1", "port"),
    ("https://h:80:80", "port"),
    ("https://h:x", "port"),
    ("https://[::1]80", "colon|https:// and a host"),
    ("https://:80", "host of letters"),
    ("https://a..b", "host of letters"),
    ("https://.h", "host of letters"),
    ("https://-h", "host of letters"),
    ("https://h%41", "host of letters"),
    ("https://h,x", "host of letters"),
    ("https://" + "a" * 64, "host of letters"),
    ("https://" + "a." * 130 + "b", "host of letters"),
    ("https://[fe80::1%25eth0]", "IPv6|https:// and a host"),
    ("https://[v1.abc]", "IPv6|https:// and a host"),
    ("https://[canary]", "IPv6|https:// and a host"),
    ("https://h\\@evil", "none of"),
    ("https://h/<x>", "none of"),
    ("https://h/a/../b", "path"),
    ("https://h/./b", "path"),
    ("https://h/a//b", "path"),
    ("https://h/" + "a" * MAX_URL_CHARS, f"at most {MAX_URL_CHARS}"),
    (b"https://h", "be a str"),
    (None, "be a str"),
]


@pytest.mark.parametrize(("spelling", "normal"), SPELLINGS)
def test_a_remote_has_one_spelling(spelling: str, normal: str) -> None:
    assert Remote(spelling).base_url == normal
    assert Remote(spelling) == Remote(normal)
    assert normal_url(normal) == normal


@pytest.mark.parametrize(("url", "words"), REFUSED, ids=lambda value: ascii(value)[:30])
def test_what_is_no_safe_address_is_refused_and_not_shown(url: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=rf"^base_url: (?=must ).*(?:{words})") as caught:
        Remote(url)
    assert "canary" not in "".join(traceback.format_exception(caught.value))


def test_plain_http_is_possible_where_it_is_asked_for() -> None:
    assert Remote("http://collector.local:8000/", allow_http=True).base_url == "http://collector.local:8000"
    with pytest.raises(ConfigError, match="allow_http=True permits it"):
        Remote("http://collector.local:8000/")


LABELS = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,8}[a-z0-9])?", fullmatch=True)


@settings(deadline=None, print_blob=True)
@given(
    scheme=st.sampled_from(["https", "http"]),
    host=st.lists(LABELS, min_size=1, max_size=4).map(".".join)
    | st.ip_addresses(v=4).map(str)
    | st.ip_addresses(v=6).map("[{}]".format),
    port=st.none() | st.integers(1, 65_535),
    path=st.lists(st.from_regex(r"[A-Za-z0-9_~-]{1,6}", fullmatch=True), max_size=3),
    slashes=st.integers(0, 2),
)
def test_every_spelling_of_a_remote_is_equal(scheme: str, host: str, port: int | None, path: list[str], slashes: int) -> None:
    shown_port = "" if port is None else f":{port}"
    plain = f"{scheme}://{host}{shown_port}" + "".join(f"/{part}" for part in path)
    loud = f"{scheme.upper()}://{host.upper()}{shown_port}" + "".join(f"/{part}" for part in path) + "/" * slashes
    normal = normal_url(plain, allow_http=True)
    assert normal_url(loud, allow_http=True) == normal
    assert normal_url(normal, allow_http=True) == normal


@settings(deadline=None, print_blob=True)
@given(st.text(max_size=40) | st.text(max_size=20).map("https://h".__add__) | st.text(max_size=20).map("https://{}/x".format))
def test_any_text_is_an_address_or_refused(url: str) -> None:
    try:
        normal = normal_url(url)
    except InvalidInputError:
        return
    assert normal_url(normal) == normal
    assert normal.startswith(("https://", "http://"))


@pytest.mark.parametrize(
    ("setting", "value", "words"),
    [
        ("timeout", 0, "more than 0"),
        ("timeout", -1, "at least 0"),
        ("timeout", float("nan"), "finite"),
        ("timeout", float("inf"), "finite"),
        ("timeout", 3_601, "at most"),
        ("timeout", "30", "int or a float"),
        ("timeout", True, "int or a float"),
        ("max_retries", -1, "from 0"),
        ("max_retries", 101, "to 100"),
        ("max_retries", 1.0, "an int"),
        ("max_retries", True, "an int"),
        ("retry_delay", -0.1, "at least 0"),
        ("retry_delay", 10**400, "out of range"),
        ("allow_http", 1, "True or False"),
        ("api_key", "Bearer canary-key", "alone"),
        ("ca_file", 5, "a path"),
        ("trust_env", "yes", "True or False"),
        ("sync_messages", 1, "True or False"),
        ("max_outbox_bytes", 0, "65536"),
        ("on_full", "block", "one of"),
    ],
)
def test_other_settings_are_checked(setting: str, value: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=rf"^{setting}: .*{words}") as caught:
        Remote("https://h", **{setting: value})
    assert "canary" not in str(caught.value)


def test_defaults_and_what_is_given_are_kept() -> None:
    usual = ("https://h", None, 30.0, 3, 1.0, False, None, False, False, 1 << 30, "drop_oldest_metrics")
    assert dataclasses.astuple(Remote("https://h")) == usual
    settings = Remote("https://h", timeout=5, max_retries=0, retry_delay=0)
    assert (settings.timeout, settings.max_retries, settings.retry_delay) == (5.0, 0, 0.0)
    assert isinstance(settings.timeout, float)
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings.timeout = 1  # type: ignore[misc]


def test_the_key_does_not_show_in_the_settings() -> None:
    settings = Remote("https://h", ApiKey("canary-0123456789-wxyz"))
    assert "canary" not in repr(settings)
    assert "<ApiKey ****wxyz>" in repr(settings)
    changed = dataclasses.replace(settings, timeout=5)
    assert changed.api_key is settings.api_key
