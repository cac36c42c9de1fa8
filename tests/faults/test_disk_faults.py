"""What a failing disk and a damaged file do: typed errors, nothing half stored, never wrong messages."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from trials import Trial

import sessionstore

Campaign = Callable[..., dict[str, Any]]
pytestmark = pytest.mark.timeout(3600)

SESSIONS = 5
MESSAGES = 40
WORDS = "the quick brown fox jumps over the lazy dog "


@pytest.mark.fault("F7")
def test_failed_writes_raise_typed_errors_and_lose_nothing(campaign: Campaign, trial: Trial, hands: int, strace: None) -> None:
    """ENOSPC and EIO from write and sync: what raised is not stored, what returned is, reads go on, and so do later writes."""
    figures = campaign("disk_faults", what="inject", most=trial.size(push=24, nightly=400, release=0), seed=trial.seed, hands=hands)
    assert figures["problems"] == []
    assert figures["lost"] == 0
    assert figures["faulty"] > figures["runs"] / 4, "too few of the faults were met"
    told = f"{figures['errors']:,} calls raised, {figures['acked']:,} were acknowledged, 0 lost, 0 hung"
    left = figures["of"] - figures["runs"]
    skipped = f"{left:,} of {figures['of']:,} faults: a sample" if left else None
    trial.report(f"{figures['runs']:,} of {figures['of']:,} faults: {told}", skipped=skipped, **figures)


@pytest.mark.fault("F7")
def test_a_file_size_limit_is_a_typed_error_and_ends_with_the_limit(campaign: Campaign, trial: Trial) -> None:
    figures = campaign("disk_faults", what="limit")
    assert figures["problems"] == []
    assert figures["errors"] > 0
    assert figures["lost"] == 0
    trial.report(f"RLIMIT_FSIZE: {figures['errors']} calls refused, {figures['acked']} acknowledged, 0 lost")


@pytest.mark.fault("F7", "F31")
@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="mounting a small file system needs root")
def test_a_full_disk_is_a_typed_error_and_ends_with_free_space(campaign: Campaign, trial: Trial) -> None:
    figures = campaign("disk_faults", what="fill")
    if "skipped" in figures:
        pytest.skip(figures["skipped"])
    assert figures["problems"] == []
    assert figures["errors"] > 0
    assert figures["lost"] == 0
    told = f"a full disk: {figures['errors']} calls refused, {figures['acked']} acknowledged, 0 lost"
    trial.report(told, file_system="tmpfs")


def text_of(session: int, seq: int) -> str:
    """The text of a message, short or over several pages."""
    return f"session {session} message {seq}: " + WORDS * (seq * 7 % 11) + ("long " * 2_000 if seq % 13 == 0 else "")


@pytest.fixture(scope="module")
def intact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A closed store with some hundred messages."""
    path = tmp_path_factory.mktemp("intact") / "intact.db"
    with sessionstore.open(path, durability="normal") as store:
        for number in range(SESSIONS):
            chat = store.session(f"chat-{number}", tags=["a", "b"], metadata={"number": number})
            chat.append_many([{"role": "user", "content": text_of(number, seq)} for seq in range(1, MESSAGES + 1)])
            chat.append("assistant", "done", model="m", input_tokens=3, dedupe_key="last")
    return path


def expected_texts(number: int) -> list[str]:
    """What `intact` holds in a session."""
    return [text_of(number, seq) for seq in range(1, MESSAGES + 1)] + ["done"]


def read_all(path: Path) -> tuple[str, bool | None]:
    """What reading a damaged file comes to, and whether the doctor calls it healthy."""
    outcome = "right"
    try:
        with sessionstore.open(path) as store:
            healthy = doctor_says(store)
            for number in range(SESSIONS):
                try:
                    texts = [message.text for message in store.messages(f"chat-{number}")]
                except sessionstore.SessionStoreError as error:
                    outcome = type(error).__name__
                else:
                    if texts != expected_texts(number):
                        return "wrong", healthy
            return outcome, healthy
    except sessionstore.SessionStoreError as error:
        return "refused: " + type(error).__name__, None


def doctor_says(store: sessionstore.SessionStore) -> bool:
    """The doctor's verdict; it may also stumble over the damage with a typed error."""
    try:
        return store.doctor().ok
    except sessionstore.SessionStoreError:
        return False


def damage(path: Path, chance: random.Random) -> None:
    """Overwrite 1 to 64 bytes at random places."""
    content = bytearray(path.read_bytes())
    for _ in range(chance.randint(1, 64)):
        content[chance.randrange(len(content))] ^= chance.randint(1, 255)
    path.write_bytes(content)


@pytest.mark.fault("F17")
@pytest.mark.filterwarnings("ignore::sessionstore.StoreWarning")
def test_flipped_bytes_never_become_wrong_messages(intact: Path, tmp_path: Path, trial: Trial) -> None:
    """Each damaged file is refused, or raises at reading (and the doctor finds it), or gives the right messages."""
    outcomes: Counter[str] = Counter()
    broken: list[str] = []
    files, found_by_doctor = trial.size(push=200, nightly=1_000, release=2_000), 0
    for number in range(files):
        path = tmp_path / f"damaged-{number}.db"
        shutil.copyfile(intact, path)
        damage(path, random.Random(f"{trial.seed}/{number}"))
        try:
            outcome, healthy = read_all(path)
        except Exception as error:
            outcome, healthy = f"untyped: {type(error).__name__}", None
        outcomes[outcome] += 1
        found_by_doctor += outcome == "right" and healthy is False
        if outcome == "wrong" or outcome.startswith("untyped") or (outcome != "right" and healthy):
            broken.append(f"file {number}: {outcome}, the doctor says healthy={healthy}")
        path.unlink()
    assert broken == []
    assert outcomes["right"] < files, "the damage did nothing: the test proves nothing"
    refused = sum(count for outcome, count in outcomes.items() if outcome.startswith("refused"))
    raised = files - refused - outcomes["right"]
    told = f"{refused} detected at open, {raised} at read, {found_by_doctor} by the doctor alone, 0 silent wrong rows"
    trial.report(f"{files:,} damaged files: {told}", outcomes=outcomes)


@pytest.mark.fault("F17")
@pytest.mark.parametrize("part", range(1, 8))
def test_a_file_cut_short_is_refused_and_kept(intact: Path, tmp_path: Path, part: int) -> None:
    path = tmp_path / "short.db"
    content = intact.read_bytes()
    cut = content[: len(content) * part // 8 - 100]
    path.write_bytes(cut)
    with pytest.raises(sessionstore.StoreCorruptError):
        sessionstore.open(path)
    assert path.read_bytes() == cut


def open_beside(path: Path, suffix: str, content: bytes) -> list[str | None]:
    """The messages of a store that is opened with strange bytes beside it."""
    path.with_name(path.name + suffix).write_bytes(content)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", sessionstore.StoreWarning)
        with sessionstore.open(path) as store:
            assert store.append("chat-0", "user", "still writable").seq == MESSAGES + 2
            return [message.text for message in store.messages("chat-1")]


@pytest.mark.fault("F18")
@pytest.mark.parametrize("suffix", ["-wal", "-shm", "-lock"])
@pytest.mark.parametrize("size", [0, 1, 31, 4_096, 100_000])
def test_garbage_beside_the_file_changes_nothing(intact: Path, tmp_path: Path, suffix: str, size: int) -> None:
    path = tmp_path / "a.db"
    shutil.copyfile(intact, path)
    assert open_beside(path, suffix, random.Random(size).randbytes(size)) == expected_texts(1)


@pytest.mark.fault("F18")
def test_a_garbage_log_is_told_of(intact: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    shutil.copyfile(intact, path)
    path.with_name("a.db-wal").write_bytes(random.Random(1).randbytes(9_000))
    with pytest.warns(sessionstore.StoreWarning, match="log"), sessionstore.open(path) as store:
        assert not store.doctor().ok


@pytest.mark.fault("F18")
def test_a_hot_rollback_journal_of_garbage_changes_nothing(intact: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    shutil.copyfile(intact, path)
    assert open_beside(path, "-journal", random.Random(1).randbytes(9_000)) == expected_texts(1)


@pytest.mark.fault("F18")
@pytest.mark.parametrize("suffix", ["-wal", "-shm", "-lock"])
def test_a_folder_in_place_of_a_sidecar_is_named(intact: Path, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / "a.db"
    shutil.copyfile(intact, path)
    path.with_name(path.name + suffix).mkdir()
    with pytest.raises(sessionstore.StoreOpenError, match=suffix):
        sessionstore.open(path)


def copy_live(source: Path, target: Path) -> None:
    """Copy a file and its log while this process has them open: another one does it, so that no lock of ours is dropped."""
    program = "import shutil, sys; [shutil.copyfile(sys.argv[1] + each, sys.argv[2] + each) for each in ('', '-wal')]"
    subprocess.run([sys.executable, "-c", program, str(source), str(target)], check=True)


@pytest.fixture
def live(tmp_path: Path) -> Path:
    """A file and its log in the middle of a store's life: the first messages are in the file, the others in the log."""
    source, copied = tmp_path / "source.db", tmp_path / "live.db"
    with sessionstore.open(source) as store:
        store.session("s").append_many([{"role": "user", "content": text_of(0, seq)} for seq in range(1, 6)])
    with sessionstore.open(source) as store:
        for seq in range(6, 21):
            store.append("s", "user", text_of(0, seq))
        copy_live(source, copied)
    return copied


@pytest.mark.fault("F17")
@pytest.mark.filterwarnings("ignore::sessionstore.StoreWarning")
def test_bytes_flipped_in_the_log_lose_whole_transactions_only(live: Path, tmp_path: Path, seed: int) -> None:
    """SQLite's checksums end the log at the first damaged frame: what is left is a prefix of what was written."""
    chance = random.Random(seed)
    log = live.with_name("live.db-wal").read_bytes()
    lengths = set()
    for number in range(30):
        path = tmp_path / f"log-{number}.db"
        shutil.copyfile(live, path)
        damaged = bytearray(log)
        damaged[chance.randrange(len(log))] ^= chance.randint(1, 255)
        path.with_name(path.name + "-wal").write_bytes(damaged)
        with sessionstore.open(path) as store:
            texts = [message.text for message in store.messages("s")]
        assert texts == [text_of(0, seq) for seq in range(1, len(texts) + 1)]
        assert len(texts) >= 5
        lengths.add(len(texts))
    assert len(lengths) > 1


@pytest.mark.fault("F18")
@pytest.mark.filterwarnings("ignore::sessionstore.StoreWarning")
def test_the_log_of_an_earlier_life_brings_nothing_back(live: Path, tmp_path: Path) -> None:
    """The log was copied into the file and the file has moved on; then the old log turns up again, with other salts."""
    old_log = live.with_name("live.db-wal").read_bytes()
    with sessionstore.open(live) as store:
        store.truncate("s", after=5)
    live.with_name("live.db-wal").write_bytes(old_log[:16] + bytes(8) + old_log[24:])
    with sessionstore.open(live) as store:
        assert [message.text for message in store.messages("s")] == [text_of(0, seq) for seq in range(1, 6)]


@pytest.mark.fault("F18")
@pytest.mark.filterwarnings("ignore::sessionstore.StoreWarning")
def test_the_log_of_another_store_never_gives_wrong_messages(live: Path, intact: Path, tmp_path: Path) -> None:
    """SQLite itself would mix both files. What comes out is an error, or one store's messages whole, and the doctor tells."""
    path = tmp_path / "victim.db"
    shutil.copyfile(intact, path)
    shutil.copyfile(live.with_name("live.db-wal"), path.with_name("victim.db-wal"))
    outcome, healthy = read_all(path)
    assert outcome != "wrong"
    assert outcome == "right" or not healthy
