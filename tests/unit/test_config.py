"""Where a location leads, and which settings are refused."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, replace
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote

import pytest

from sessionstore import ConfigError
from sessionstore.config import DEFAULT_NAME, OpenOptions, StoreSettings, default_path, key_of_environment, locate

ODD_NAMES = (
    "q?mode=memory.db",
    "p%20q.db",
    "a#b.db",
    "with space.db",
    "ünïcode-✓.db",
    "-dash.db",
    "semi;colon.db",
    "'quote'.db",
    '"double".db',
    "back\\slash.db",
    "a&b=c+d.db",
    "100%.db",
)


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SESSIONSTORE_URL", raising=False)


@pytest.mark.parametrize("name", [*ODD_NAMES, "file:x?mode=memory", "~/x.db", "line\nfeed.db", "agent.db", "a:b.db"])
def test_a_path_is_taken_literally(name: str) -> None:
    assert locate(name) == (Path(name), False)
    assert locate(Path(name)) == (Path(name), False)


@pytest.mark.parametrize("name", ODD_NAMES)
def test_an_odd_name_survives_a_url(name: str) -> None:
    assert locate(f"sqlite:///{quote(name)}") == (Path(name), False)
    assert locate(f"sqlite:////data/{quote(name)}") == (Path("/data") / name, False)


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("sqlite:///agent.db", "agent.db"),
        ("sqlite:////var/agent.db", "/var/agent.db"),
        ("SQLite:///agent.db", "agent.db"),
        ("sqlite+pysqlite:///agent.db", "agent.db"),
        ("sqlite:///a/b/agent.db", "a/b/agent.db"),
        ("sqlite:///%7E/x.db", "~/x.db"),
    ],
)
def test_a_url_names_a_file(url: str, path: str) -> None:
    assert locate(url) == (Path(path), False)


@pytest.mark.parametrize(
    "url",
    [
        "sqlite://",
        "sqlite:///",
        "sqlite://host/agent.db",
        "sqlite:///agent.db?mode=memory",
        "sqlite:///agent.db#x",
        "sqlite:///:memory:",
        "sqlite:///a%00b",
        "sqlite:///a%FFb",
        "sqlite:///folder/",
        "sqlite+aiosqlite:///agent.db",
        "sqlite+pysqlcipher://:secret@/agent.db",
        "http://host/agent.db",
        "file:///agent.db",
        "mysql://u:secret@h/d",
    ],
)
def test_a_bad_url_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match=r"^(location|in_memory)") as caught:
        locate(url)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("location", ["", ":memory:", "a\0b", "a\ud800", "folder/", "/"])
def test_a_bad_path_is_refused(location: str) -> None:
    with pytest.raises(ConfigError, match=r"^location"):
        locate(location)


@pytest.mark.parametrize("location", [b"agent.db", 5, True, PurePosixPath("agent.db"), [], object()])
def test_only_texts_and_paths_are_locations(location: object) -> None:
    with pytest.raises(ConfigError, match=type(location).__name__):
        locate(location)


def test_the_environment_names_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    for value, path in (("agent.db", "agent.db"), ("sqlite:////var/agent.db", "/var/agent.db")):
        monkeypatch.setenv("SESSIONSTORE_URL", value)
        assert locate(None) == (Path(path), False)
    assert locate("other.db") == (Path("other.db"), False)


@pytest.mark.parametrize("value", [":memory:", "postgresql://u:secret@h/d", "folder/"])
def test_a_bad_environment_is_refused(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("SESSIONSTORE_URL", value)
    with pytest.raises(ConfigError) as caught:
        locate(None)
    assert "secret" not in str(caught.value)


def test_without_an_environment_the_user_data_folder_is_used_and_may_be_made(monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(2):
        path, own_folder = locate(None)
        assert path == default_path()
        assert path.is_absolute()
        assert (path.name, path.parent.name) == (DEFAULT_NAME, "sessionstore")
        assert own_folder
        # An empty variable is none.
        monkeypatch.setenv("SESSIONSTORE_URL", "")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("namespace", None),
        ("namespace", " "),
        ("namespace", "a\0"),
        ("namespace", 5),
        ("durability", "off"),
        ("durability", "FULL"),
        ("durability", None),
        ("busy_timeout", -1),
        ("busy_timeout", float("nan")),
        ("busy_timeout", float("inf")),
        ("busy_timeout", "5"),
        ("busy_timeout", True),
        ("busy_timeout", None),
        ("max_text_bytes", 0),
        ("max_text_bytes", -1),
        ("max_text_bytes", 1e6),
        ("max_text_bytes", True),
        ("max_text_bytes", 500_000_001),
    ],
)
def test_a_bad_setting_is_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=rf"^{name}"):
        replace(StoreSettings(), **{name: value})


@pytest.mark.parametrize("name", OpenOptions.__slots__)
@pytest.mark.parametrize("value", [0, 1, None, "yes"])
def test_an_option_is_true_or_false(name: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=rf"^{name}"):
        OpenOptions(**{name: value})


def test_settings_are_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        StoreSettings().namespace = "x"  # type: ignore[misc]
    with pytest.raises(FrozenInstanceError):
        OpenOptions().read_only = True  # type: ignore[misc]


def test_the_defaults_are_the_safe_ones() -> None:
    assert StoreSettings().durability == "full"
    assert OpenOptions() == OpenOptions(
        must_exist=False, create_parents=False, read_only=False, migrate=True, follow_symlinks=False, strict_permissions=False
    )


@pytest.mark.parametrize(
    ("named", "remote", "is_for_it"),
    [
        (None, "https://api.example.com", True),
        (None, "http://127.0.0.1:8787", True),
        (None, "http://another.machine", False),
        ("https://api.example.com/", "https://api.example.com", True),
        ("https://api.example.com", "https://another.example.com", False),
    ],
)
def test_the_key_of_the_environment_goes_to_its_own_remote_only(
    monkeypatch: pytest.MonkeyPatch, named: str | None, remote: str, is_for_it: bool
) -> None:
    monkeypatch.setenv("SESSIONSTORE_SYNC_TOKEN", "canary-key-0123456789")
    monkeypatch.delenv("SESSIONSTORE_SYNC_URL", raising=False)
    if named is not None:
        monkeypatch.setenv("SESSIONSTORE_SYNC_URL", named)
    assert (key_of_environment(remote) is not None) == is_for_it
