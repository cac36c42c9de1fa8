"""The checksums that SQLCipher puts at the end of each page, computed here: they tell with which key a page was written."""

from __future__ import annotations

import hashlib
import hmac
import struct
from typing import Final

from ..keys import EncryptionKey

PAGE: Final = 4_096
SALT: Final = 16
_MAC: Final = 64
_MAC_ROUNDS: Final = 2
_MAC_SALT_MASK: Final = 0x3A
_LOG_HEADER: Final = 32
_FRAME_HEADER: Final = 24
FIRST_FRAME: Final = _LOG_HEADER + _FRAME_HEADER + PAGE


class PageChecker:
    """Knows the pages of one file: those that begin with its salt and have its key."""

    def __init__(self, key: EncryptionKey, salt: bytes) -> None:
        mac_salt = bytes(byte ^ _MAC_SALT_MASK for byte in salt)
        self._mac_key = hashlib.pbkdf2_hmac("sha512", key.raw(salt), mac_salt, _MAC_ROUNDS, 32)

    def is_own(self, page: bytes, number: int) -> bool:
        """Whether a page was written with the key, in this place."""
        # The reserved end of a page: 16 bytes of nonce, 64 of checksum. The first one begins with the salt.
        content = page[SALT if number == 1 else 0 : -_MAC]
        return hmac.compare_digest(hmac.digest(self._mac_key, content + number.to_bytes(4, "little"), "sha512"), page[-_MAC:])


def any_own(first: bytes, key: EncryptionKey) -> bool:
    """Whether one of the pages that a file begins with is the key's: then the key is not what is wrong with it."""
    checker = PageChecker(key, first[:SALT])
    return any(checker.is_own(first[(n - 1) * PAGE : n * PAGE], n) for n in range(1, len(first) // PAGE + 1))


def is_foreign_log(log: bytes, first: bytes, key: EncryptionKey) -> bool:
    """Whether SQLite would take a log for the file's own that was written with another key or for another file.

    Args:
        log: Its beginning, to the end of the first frame.
        first: The pages that the database begins with.
        key: The key of the database, if it is the right one.
    """
    if len(log) < FIRST_FRAME or not _is_valid(log) or not any_own(first, key):
        return False
    (number,) = struct.unpack_from(">I", log, _LOG_HEADER)
    return not PageChecker(key, first[:SALT]).is_own(log[_LOG_HEADER + _FRAME_HEADER : FIRST_FRAME], number)


def _is_valid(log: bytes) -> bool:
    """Whether SQLite's own checksums of the header and the first frame are right; it ignores a log where they are not."""
    order = ">" if log[3] & 1 else "<"
    frame = log[_LOG_HEADER:FIRST_FRAME]
    of_header = _checksum(log[:24], order, (0, 0))
    of_frame = _checksum(frame[:8] + frame[_FRAME_HEADER:], order, of_header)
    told_header, told_frame = struct.unpack_from(">II", log, 24), struct.unpack_from(">II", frame, 16)
    return (of_header, of_frame, log[16:24]) == (told_header, told_frame, frame[8:16])


def _checksum(content: bytes, order: str, start: tuple[int, int]) -> tuple[int, int]:
    first, second = start
    words = struct.unpack(f"{order}{len(content) // 4}I", content)
    for even, odd in zip(words[::2], words[1::2], strict=True):
        first = (first + even + second) & 0xFFFFFFFF
        second = (second + odd + first) & 0xFFFFFFFF
    return first, second
