"""Nothing of an encrypted store can be read without its key: not in any file of it, and the key in nothing that is shown."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from trials import Trial

import sessionstore

pytest.importorskip("sqlcipher3", reason="the extra `encryption` is not installed")

TOKENS = 300
KEY = bytes(range(1, 33))
CANARY = "5e55105710732c0ffee0123456789abcdef0fedcba98765432100badc0de5afe"
PASSPHRASE = "canary-passphrase-of-a-user"

WRITER = """
import os, sys, sessionstore
path, names = sys.argv[1], sys.stdin.read().split()
store = sessionstore.open(path, key=bytes(range(1, 33)))
store.set_remote(sessionstore.Remote("http://127.0.0.1:9", sync_messages=True))
third = len(names) // 3
for number, (word, noted, told) in enumerate(zip(names[:third], names[third:2 * third], names[2 * third:])):
    chat = store.session(f"s{number}", agent_id="agent", metadata={"noted": noted}, title=noted)
    chat.append("user", f"{word} " * 40, metadata={"noted": noted})
    store.log_activity("agent", "spoke", details={"told": told})
store.query("SELECT text, count(*) FROM v_messages GROUP BY text ORDER BY text DESC")
assert store.outbox.stats().pending > third
sys.stdout.write("written\\n"); sys.stdout.flush(); sys.stdin.close()
os.kill(os.getpid(), 19)
"""

SHOWN = """
import logging, sys, traceback
logging.basicConfig(level=logging.DEBUG, stream=sys.stderr)
import sessionstore, anyio
from sessionstore import EncryptionKey, Passphrase
folder, canary, phrase = sys.argv[1], bytes.fromhex(sys.argv[2]), sys.argv[3]
other = bytes(range(1, 33))

def show(call, **given):
    try:
        result = call()
        print(repr(result), str(result), file=sys.stderr)
        if hasattr(result, "close"):
            print(repr(result.status()), result.doctor(), file=sys.stderr)
            result.close()
    except BaseException as error:
        trace = traceback.TracebackException.from_exception(error, capture_locals=True)
        # The frames of this program hold the key for good reason; those of the library may not.
        for each in (trace, *([trace.__cause__] if trace.__cause__ else []), *([trace.__context__] if trace.__context__ else [])):
            each.stack = traceback.StackSummary.from_list([frame for frame in each.stack if frame.filename != "<string>"])
        print("".join(trace.format()), repr(error), error.args, vars(error), file=sys.stderr)

path, plain, wrong = folder + "/a.db", folder + "/plain.db", folder + "/wrong.db"
sessionstore.open(plain).close()
sessionstore.open(wrong, key=other).close()
forms = (canary, canary.hex(), bytearray(canary), EncryptionKey(canary), lambda: canary, Passphrase(phrase), "passphrase:" + phrase)
for key in forms:
    for place in (plain, wrong, folder + "/no/such/folder.db", folder):
        show(lambda: sessionstore.open(place, key=key))
    show(lambda: sessionstore.open(path + str(type(key)) [8:12], key=key))
    show(lambda: sessionstore.encrypt_file(wrong, key))
    show(lambda: sessionstore.decrypt_file(wrong, key))
    show(lambda: sessionstore.restore(wrong, plain, key=key))

    async def asynchronous():
        async with sessionstore.aopen(wrong, key=key) as store:
            await store.count()
    try:
        anyio.run(asynchronous)
    except sessionstore.SessionStoreError as error:
        captured = error
        def again():
            raise captured
        show(again)
for bad in (canary[:31], canary + b"x", canary.hex()[:-1], canary.hex() + "0", [canary], {"key": canary.hex()}, phrase):
    show(lambda: sessionstore.open(path, key=bad))
    show(lambda: EncryptionKey(bad))
    show(lambda: Passphrase(bad) if not isinstance(bad, str) else EncryptionKey(bad))
    with sessionstore.open(wrong, key=other) as store:
        show(lambda: store.rekey(bad))
    try:
        sessionstore.aopen(path, key=bad).__await__().send(None)
    except BaseException as error:
        print(repr(error), file=sys.stderr)
with sessionstore.open(wrong, key=other) as store:
    blocker = sessionstore.open(wrong, key=other)
    show(lambda: store.rekey(canary))
    show(lambda: store.rekey(Passphrase(phrase)))
    for each in (store, blocker, store.settings, store.status(), vars(store._database)):
        print(repr(each), file=sys.stderr)
    blocker.close()
"""


def tokens(seed: int) -> list[str]:
    """Words that stand nowhere else."""
    chance = random.Random(seed)
    return ["".join(chance.choices("abcdefghijklmnopqrstuvwxyz", k=16)) for _ in range(TOKENS)]


@pytest.mark.fault("F36")
@pytest.mark.skipif(sys.platform == "win32", reason="stops a process by a signal")
@pytest.mark.timeout(300)
def test_no_word_of_an_encrypted_store_stands_in_any_of_its_files(tmp_path: Path, trial: Trial) -> None:
    """While it is open, its log is long, and nothing is closed: the database, -wal, -shm, and temporary files."""
    words = tokens(trial.seed)
    folder, temporary = tmp_path / "store", tmp_path / "tmp"
    folder.mkdir()
    temporary.mkdir()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SESSIONSTORE")}
    environment |= dict.fromkeys(("TMPDIR", "SQLITE_TMPDIR", "TEMP", "TMP"), str(temporary))
    command = [sys.executable, "-c", WRITER, str(folder / "agent.db")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, text=True) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdin.write("\n".join(words))
        child.stdin.close()
        assert child.stdout.readline() == "written\n"
        files = [each for each in (*folder.rglob("*"), *temporary.rglob("*")) if each.is_file()]
        contents = {each.name: each.read_bytes() for each in files}
        child.kill()
    assert {"agent.db", "agent.db-wal", "agent.db-shm"} <= contents.keys()
    assert len(contents["agent.db-wal"]) > 100_000
    found = {(name, word) for name, content in contents.items() for word in words if word.encode() in content}
    assert found == set()
    for name in (b"messages", b"sessions", b"CREATE TABLE"):
        assert not [each for each, content in contents.items() if name in content]
    with sessionstore.open(folder / "agent.db", key=KEY) as store:
        held = repr(store.query("SELECT text FROM v_messages").rows)
        held += repr([info.metadata for info in store.list(limit=1000).items])
        held += repr([each.details for each in store.activity(limit=1000)])
        assert sum(word in held for word in words) == TOKENS, "the experiment does not store what it looks for"
    trial.report(f"0 of {TOKENS} words in {sum(map(len, contents.values())):,} bytes of {len(contents)} files")


@pytest.mark.fault("F35")
def test_the_key_shows_nowhere(tmp_path: Path) -> None:
    """In logs at DEBUG, reprs, errors, and the variables of the frames of their tracebacks."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SESSIONSTORE")}
    done = subprocess.run(
        [sys.executable, "-c", SHOWN, str(tmp_path), CANARY, PASSPHRASE],
        capture_output=True, text=True, env=environment, check=False, timeout=110,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3_000:]
    told = done.stdout + done.stderr
    assert "WrongKeyError" in told
    assert "MissingExtraError" not in told
    raw = bytes.fromhex(CANARY)
    for form in (CANARY, CANARY.upper(), CANARY[:-1], repr(raw)[2:-1], repr(raw[:31])[2:-1], PASSPHRASE):
        assert [line for line in told.splitlines() if form in line] == []


@pytest.mark.fault("F36")
@pytest.mark.timeout(3600)
def test_a_flipped_bit_is_never_read_as_something_else(tmp_path: Path, trial: Trial) -> None:
    """Everywhere in the file: what opens and reads, reads as it was written."""
    chance = random.Random(trial.seed)
    flips = trial.size(push=150, nightly=500, release=2_000)
    path = tmp_path / "agent.db"
    with sessionstore.open(path, key=KEY) as store:
        chat = store.session("chat")
        chat.append_many([{"role": "user", "content": f"text {number} " * 20} for number in range(300)])
        expected = [message.text for message in chat.messages()]
    whole = path.read_bytes()
    outcomes = {"refused": 0, "found by doctor": 0}
    for _ in range(flips):
        bit = chance.randrange(len(whole) * 8)
        with path.open("r+b") as file:
            file.seek(bit // 8)
            file.write(bytes([whole[bit // 8] ^ (1 << bit % 8)]))
        try:
            with sessionstore.open(path, key=KEY) as store:
                # A page that is not needed may be damaged.
                assert not store.doctor().ok, f"bit {bit}"
                assert [message.text for message in store.messages("chat")] == expected, f"bit {bit}"
            outcomes["found by doctor"] += 1
        except (sessionstore.StoreCorruptError, sessionstore.WrongKeyError):
            outcomes["refused"] += 1
        for suffix in ("-wal", "-shm"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)
        path.write_bytes(whole)
    assert sum(outcomes.values()) == flips
    assert all(outcomes.values())
    trial.report(f"{flips:,} of {flips:,} flipped bits detected", **outcomes)
