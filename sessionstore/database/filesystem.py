"""Which kind of file system a file is on: a write-ahead log is safe on local ones only."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

MOUNTINFO: Final = Path("/proc/self/mountinfo")

# The shared memory and the locks of a write-ahead log do not work across machines.
_NETWORK: Final = re.compile(
    r"nfs\d?|cifs|smb\w*|9p|virtiofs|fuse(\..*)?|afs|ceph|glusterfs|lustre|beegfs|gpfs|ncpfs|vboxsf|prl_fs"
)
_OCTAL: Final = re.compile(r"\\([0-7]{3})")
_OVERLAY: Final = "overlay"


def kind_of(path: Path, mountinfo: str | None = None) -> str | None:
    """The type of the file system that holds a path, None where the system does not tell.

    Args:
        path: An absolute path.
        mountinfo: The text of Linux's mountinfo; read from /proc by default.
    """
    if mountinfo is None:
        mountinfo = _read_mountinfo()
    return _longest_prefix(path, dict(_mounts(mountinfo)))


def is_network(kind: str | None) -> bool:
    """Whether a file system may be shared between machines."""
    return kind is not None and _NETWORK.fullmatch(kind) is not None


def _read_mountinfo() -> str:
    try:
        return MOUNTINFO.read_text(errors="surrogateescape")
    except OSError:
        return ""


def _mounts(mountinfo: str) -> list[tuple[Path, str]]:
    """Mount points and types, in the order of mounting: a later mount on a point hides the earlier one.

    An overlay is as safe as what it writes to, so its type is that of its upper folder's mount.
    """
    found: list[tuple[Path, str]] = []
    for line in mountinfo.splitlines():
        fields, _, rest = line.partition(" - ")
        words, kind_words = fields.split(" "), rest.split(" ")
        if len(words) < 5 or not kind_words[0]:
            continue
        kind = kind_words[0]
        if kind == _OVERLAY and len(kind_words) > 2:
            kind = _below_overlay(kind_words[2], dict(found))
        found.append((Path(_unescaped(words[4])), kind))
    return found


def _below_overlay(options: str, mounts: dict[Path, str]) -> str:
    for option in options.split(","):
        if option.startswith("upperdir="):
            below = _longest_prefix(Path(_unescaped(option.removeprefix("upperdir="))), mounts)
            return below if is_network(below) and below is not None else _OVERLAY
    return _OVERLAY


def _longest_prefix(path: Path, mounts: dict[Path, str]) -> str | None:
    for folder in (path, *path.parents):
        if folder in mounts:
            return mounts[folder]
    return None


def _unescaped(text: str) -> str:
    return _OCTAL.sub(lambda match: chr(int(match[1], 8)), text)
