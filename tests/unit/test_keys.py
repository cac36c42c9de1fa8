"""Keys of encrypted stores: what is one, where it comes from, and that it shows nowhere."""

from __future__ import annotations

import base64
import copy
import os
import pickle
import stat
import sys
import threading
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import sessionstore
from sessionstore import EncryptionKey, Passphrase, create_key_file, environment_key, file_key, keyring_key, keys

RAW = bytes(range(1, 33))
SECRET = "correct horse battery"


def shown(error: BaseException) -> str:
    """All that an error tells: its text, its causes, and the variables of the frames that it went through."""
    told = []
    current: BaseException | None = error
    while current is not None:
        told.append(f"{current} {current!r} {current.args!r}")
        trace = current.__traceback__
        while trace is not None:
            module = trace.tb_frame.f_globals.get("__name__", "")
            if str(module).startswith("sessionstore"):
                told.append(repr(trace.tb_frame.f_locals))
            trace = trace.tb_next
        current = current.__cause__ or current.__context__
    return "\n".join(told)


@pytest.mark.parametrize(
    "given",
    [RAW, bytearray(RAW), RAW.hex(), RAW.hex().upper(), base64.b64encode(RAW).decode(), base64.urlsafe_b64encode(RAW).decode(),
     base64.b64encode(RAW).decode().rstrip("="), lambda: RAW, RAW.hex],
)  # fmt: skip
def test_every_form_of_32_bytes_is_the_same_key(given: Any) -> None:
    assert EncryptionKey(given).resolved() == EncryptionKey(RAW)


@pytest.mark.parametrize(
    "given",
    [b"", b"x" * 31, b"x" * 33, bytes(32), RAW.hex()[:-1], RAW.hex()[:-2], RAW.hex() + "00", "password", "", "x" * 32, 5, 1.5,
     ["x"], object(), "00" * 32, "passphrase:", "passphrase:short", "passphrase:x'" + RAW.hex() + "'"],
)  # fmt: skip
def test_what_is_no_key_is_refused_without_being_shown(given: Any) -> None:
    with pytest.raises(sessionstore.ConfigError) as caught:
        EncryptionKey(given)
    if isinstance(given, str | bytes) and len(given) > 4:
        for form in (given, repr(given)) if isinstance(given, str) else (repr(given), given.hex()):
            assert form not in shown(caught.value)


@pytest.mark.parametrize("given", [None, b"short", "password", 3, lambda: lambda: RAW])
def test_what_a_callable_returns_is_looked_at_when_it_is_needed(given: Any) -> None:
    key = EncryptionKey(lambda: given)
    with pytest.raises(sessionstore.ConfigError, match=r"^key: "):
        key.resolved()


@pytest.mark.parametrize(
    "given",
    [
        RAW,
        bytearray(RAW),
        RAW.hex(),
        f" {RAW.hex()}\n",
        base64.b64encode(RAW).decode() + "\r\n",
        EncryptionKey(RAW),
        EncryptionKey(lambda: RAW),
        lambda: RAW,
    ],
)
def test_a_callable_may_return_each_form_of_a_key(given: Any) -> None:
    assert EncryptionKey(lambda: given).resolved() == EncryptionKey(RAW)


def test_a_callable_may_return_a_passphrase_or_a_key_that_holds_one() -> None:
    for given in (Passphrase(SECRET), f"passphrase:{SECRET}", EncryptionKey(Passphrase(SECRET))):
        assert EncryptionKey(partial(lambda each: each, given)).resolved() == EncryptionKey(Passphrase(SECRET))


def test_a_callable_that_never_comes_to_a_key_is_refused() -> None:
    key = EncryptionKey(lambda: key)
    with pytest.raises(sessionstore.ConfigError, match=r"^key: the callable"):
        key.resolved()


def test_blanks_around_a_written_key_do_not_count_and_those_of_a_passphrase_do(monkeypatch: pytest.MonkeyPatch) -> None:
    for text in (RAW.hex(), base64.b64encode(RAW).decode(), base64.urlsafe_b64encode(RAW).decode().rstrip("=")):
        assert EncryptionKey(f"\t{text} \n") == EncryptionKey(RAW)
        monkeypatch.setenv("SESSIONSTORE_KEY", f"{text}\n")
        assert sessionstore.environment_key().resolved() == EncryptionKey(RAW)
    assert EncryptionKey(f"passphrase:{SECRET} ") != EncryptionKey(f"passphrase:{SECRET}")


def test_a_text_is_a_passphrase_by_its_explicit_name_only() -> None:
    assert EncryptionKey(Passphrase(SECRET)) == EncryptionKey(f"passphrase:{SECRET}")
    assert EncryptionKey(Passphrase(SECRET)) != EncryptionKey(RAW)
    with pytest.raises(sessionstore.ConfigError, match=r"Passphrase\(\.\.\.\)"):
        EncryptionKey(SECRET)


@pytest.mark.parametrize(
    "text", ["", "short", "x" * 1025, "nul\0nul nul", "\ud800surrogate", "x'" + "ab" * 32 + "'", 7, b"bytes bytes"]
)
def test_passphrases_that_would_not_work_are_refused(text: Any) -> None:
    with pytest.raises(sessionstore.ConfigError, match=r"^passphrase: "):
        Passphrase(text)


def test_no_repr_tells_a_secret() -> None:
    for hidden in (
        EncryptionKey(RAW),
        EncryptionKey(lambda: RAW).resolved(),
        EncryptionKey(Passphrase(SECRET)),
        Passphrase(SECRET),
    ):
        for text in (repr(hidden), str(hidden), f"{hidden}", f"{[hidden]}"):
            assert "****" in text
            assert SECRET not in text
            assert RAW.hex() not in text
            assert repr(RAW) not in text


def test_secrets_are_not_copied_or_pickled() -> None:
    @dataclass
    class Holder:
        key: Any

    for hidden in (EncryptionKey(RAW), Passphrase(SECRET)):
        for carry in (copy.copy, copy.deepcopy, pickle.dumps, lambda secret: copy.deepcopy(Holder(secret))):
            with pytest.raises(TypeError, match="cannot be copied or pickled"):
                carry(hidden)


def test_a_key_from_the_environment_is_read_when_it_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    key = environment_key("MY_KEY")
    with pytest.raises(sessionstore.ConfigError, match=r"^MY_KEY: is not set"):
        key.resolved()
    monkeypatch.setenv("MY_KEY", "")
    with pytest.raises(sessionstore.ConfigError, match=r"^MY_KEY: is set and empty"):
        key.resolved()
    monkeypatch.setenv("MY_KEY", RAW.hex())
    assert key.resolved() == EncryptionKey(RAW)
    monkeypatch.setenv("MY_KEY", "password")
    with pytest.raises(sessionstore.ConfigError, match=r"^MY_KEY: must be 32 bytes") as caught:
        key.resolved()
    assert "password" not in shown(caught.value)


def test_a_new_key_file_is_random_private_and_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "a.key"
    create_key_file(path)
    create_key_file(tmp_path / "b.key")
    assert path.stat().st_mode & 0o777 == 0o600
    assert file_key(path).resolved() == EncryptionKey(path.read_text().strip())
    assert file_key(path).resolved() != file_key(tmp_path / "b.key").resolved()
    with pytest.raises(FileExistsError):
        create_key_file(path)


@pytest.mark.skipif(os.name != "posix", reason="folders are synced on POSIX only")
def test_a_new_key_file_is_on_the_disk_with_its_name_or_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it encrypts survives a power loss, so it must."""
    synced: list[bool] = []

    def sync(descriptor: int) -> None:
        synced.append(stat.S_ISDIR(os.fstat(descriptor).st_mode))

    monkeypatch.setattr(os, "fsync", sync)
    create_key_file(tmp_path / "a.key")
    assert synced == [False, True]

    def fail(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space"):
        create_key_file(tmp_path / "b.key")
    assert not (tmp_path / "b.key").exists()


def test_a_key_file_that_others_can_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.key"
    create_key_file(path)
    path.chmod(0o640)
    with pytest.raises(sessionstore.ConfigError, match="chmod 600"):
        file_key(path).resolved()


@pytest.mark.parametrize(
    ("content", "problem"),
    [(b"password\n", "32 bytes"), (b"\xff\xfe" * 16, "32 bytes"), (RAW.hex().encode() + b"\n" + RAW.hex().encode(), "32 bytes"),
     (b"x" * 5_000, "5000 bytes"), (None, "no such key file")],
)  # fmt: skip
def test_key_files_that_hold_no_key_are_refused_without_being_shown(content: bytes | None, problem: str, tmp_path: Path) -> None:
    path = tmp_path / "a.key"
    if content is not None:
        path.write_bytes(content)
        path.chmod(0o600)
    with pytest.raises(sessionstore.ConfigError, match=problem) as caught:
        file_key(path).resolved()
    told = shown(caught.value)
    assert "password" not in told
    assert RAW.hex() not in told
    assert "\\xff" not in told


class Keyring:
    """A keyring in memory, where real ones have the system's."""

    def __init__(self) -> None:
        self.kept: dict[tuple[str, str], str] = {}

    def get_password(self, service: str, name: str) -> str | None:
        return self.kept.get((service, name))

    def set_password(self, service: str, name: str, text: str) -> None:
        self.kept[service, name] = text


@pytest.fixture(autouse=True)
def own_data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where processes take turns to make a key."""
    monkeypatch.setattr(keys, "default_path", lambda: tmp_path / "data" / "sessions.db")


def use(backend: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make it the keyring of this process."""
    keyring = pytest.importorskip("keyring", reason="the extra `keyring` is not installed")
    monkeypatch.setattr(keyring.core, "_keyring_backend", backend)


def test_a_key_is_made_in_the_keyring_if_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    backend = Keyring()
    use(backend, monkeypatch)
    with pytest.raises(sessionstore.ConfigError, match="there is no such key"):
        keyring_key("agent", "store").resolved()
    made = keyring_key("agent", "store", create=True).resolved()
    assert made == keyring_key("agent", "store").resolved()
    assert made == keyring_key("agent", "store", create=True).resolved()
    assert len(bytes.fromhex(backend.kept["agent", "store"])) == 32


def test_programs_that_begin_at_once_make_one_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each sees no key at first. Of two keys the keyring would keep the last one only, and a store of the first would be lost."""
    both = threading.Barrier(2)

    class Slow(Keyring):
        looked = threading.local()

        def get_password(self, service: str, name: str) -> str | None:
            found = super().get_password(service, name)
            if not hasattr(self.looked, "once"):
                self.looked.once = True
                both.wait(20)
            return found

        def set_password(self, service: str, name: str, text: str) -> None:
            assert (service, name) not in self.kept, "a second key"
            super().set_password(service, name, text)

    use(Slow(), monkeypatch)
    made: list[EncryptionKey] = []
    threads = [
        threading.Thread(target=lambda: made.append(keyring_key("agent", "store", create=True).resolved())) for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 2
    assert made[0] == made[1]


def test_a_system_without_a_keyring_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    fail = pytest.importorskip("keyring.backends.fail", reason="the extra `keyring` is not installed")
    null = pytest.importorskip("keyring.backends.null", reason="the extra `keyring` is not installed")
    for backend in (fail.Keyring(), null.Keyring()):
        use(backend, monkeypatch)
        with pytest.raises(sessionstore.ConfigError, match="this system has none"):
            keyring_key("agent", "store", create=True).resolved()


def test_a_keyring_that_keeps_plain_text_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    class PlaintextKeyring(Keyring):
        pass

    class Chain(Keyring):
        backends = (Keyring(), PlaintextKeyring())

    for backend in (PlaintextKeyring(), Chain()):
        use(backend, monkeypatch)
        with pytest.raises(sessionstore.ConfigError, match="plain text"):
            keyring_key("agent", "store", create=True).resolved()
        assert backend.kept == {}


def test_without_the_extra_a_keyring_key_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "keyring", None)
    with pytest.raises(sessionstore.MissingExtraError) as caught:
        keyring_key("agent", "store").resolved()
    assert caught.value.extra == "keyring"


def test_equal_keys_have_equal_hashes() -> None:
    assert hash(EncryptionKey(RAW)) == hash(EncryptionKey(RAW.hex()))
    assert hash(Passphrase(SECRET)) == hash(Passphrase(SECRET))
    assert EncryptionKey(os.urandom(32)) != EncryptionKey(RAW)
    assert EncryptionKey(RAW) != RAW
