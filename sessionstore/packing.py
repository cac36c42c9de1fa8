"""Compression: texts of messages and contents of blobs, made small where it pays and read back within bounds.

A packed message is a byte that names the compression, its plain size in four bytes, and the compressed JSON `[text, extra]`.
"""

from __future__ import annotations

import zlib
from typing import Any, Final

from . import inputs
from .content import decoded
from .errors import MissingExtraError
from .remote.compression import zstd

ZSTD: Final = "zstd"
ZLIB: Final = "zlib"
# What is larger is stored as it is, so that nothing that is read may claim to be larger.
MOST_PACKED: Final = 16 << 20
MOST_COMPRESSED: Final = 64 << 20
LIVE_LEVEL: Final = 3
ARCHIVE_LEVEL: Final = 9

_FORMATS: Final = (ZLIB, ZSTD)
_SIZE_BYTES: Final = 4
HEADER_BYTES: Final = 1 + _SIZE_BYTES
# It has to save a tenth.
_WORTH: Final = 0.9
_SAMPLE: Final = 64 << 10
# Far more than the levels used here need; a forged frame may ask for as much memory as it likes.
_LARGEST_WINDOW: Final = 25


class DamagedPackingError(ValueError):
    """Compressed data that nobody wrote like this: cut short, changed, or larger than anything that is compressed."""


def compressed(data: bytes, *, level: int) -> tuple[str, bytes]:
    """The data made smaller, and by what: zstd where there is one, else zlib."""
    module = zstd()
    if module is None:
        return ZLIB, zlib.compress(data, 1 if level <= LIVE_LEVEL else level)
    return ZSTD, module.compress(data, level)


def decompressed(encoding: str, data: bytes, size: int, *, most: int) -> bytes:
    """Data of so many bytes that was compressed; no more than that is ever made of it.

    Raises:
        DamagedPackingError: It is damaged, or says that it is larger than `most`.
        MissingExtraError: It needs zstd, and there is none.
    """
    if not 0 < size <= most or encoding not in _FORMATS:
        raise DamagedPackingError(f"claims {size} bytes")
    plain = _unzipped(data, size) if encoding == ZLIB else _from_zstd(data, size)
    if len(plain) != size:
        raise DamagedPackingError("has another size than it says")
    return plain


def squeezed(data: bytes) -> tuple[str | None, bytes]:
    """The content of a blob as it is to be stored, and how that is encoded: None for as it is."""
    if len(data) > MOST_COMPRESSED or not _pays(data[:_SAMPLE]):
        return None, data
    encoding, small = compressed(data, level=LIVE_LEVEL)
    return (encoding, small) if len(small) <= len(data) * _WORTH else (None, data)


def pack(text: str | None, extra: str | None, *, level: int) -> bytes | None:
    """The text and the rest of a message in one; None if that would save too little."""
    length = sum(len(part.encode()) for part in (text, extra) if part is not None)
    plain = inputs.encode_json([text, extra]).encode()
    if len(plain) > MOST_PACKED:
        return None
    encoding, data = compressed(plain, level=level)
    if HEADER_BYTES + len(data) > length * _WORTH:
        return None
    return bytes([_FORMATS.index(encoding)]) + len(plain).to_bytes(_SIZE_BYTES) + data


def unpack(packed: object) -> tuple[str | None, str | None]:
    """The text and the rest of a packed message.

    Raises:
        DamagedPackingError: It is damaged.
        MissingExtraError: It needs zstd, and there is none.
    """
    # Damage may have made another type of it.
    if not isinstance(packed, bytes) or len(packed) < HEADER_BYTES or packed[0] >= len(_FORMATS):
        raise DamagedPackingError("is too short, or of an unknown kind")
    plain = decompressed(_FORMATS[packed[0]], packed[HEADER_BYTES:], plain_size(packed), most=MOST_PACKED)
    try:
        parts: Any = decoded(plain.decode())
    except ValueError as error:
        raise DamagedPackingError("holds no JSON") from error
    if not isinstance(parts, list) or len(parts) != 2 or not all(part is None or isinstance(part, str) for part in parts):
        raise DamagedPackingError("does not hold two texts")
    return parts[0], parts[1]


def plain_size(packed: bytes) -> int:
    """How many bytes a packed message says it is, unpacked."""
    return int.from_bytes(packed[1:HEADER_BYTES])


def _pays(sample: bytes) -> bool:
    """Whether compressing is worth a try. Pictures do not shrink, and may be large."""
    return len(compressed(sample, level=1)[1]) <= len(sample) * _WORTH


def _unzipped(data: bytes, size: int) -> bytes:
    unzip = zlib.decompressobj()
    try:
        plain = unzip.decompress(data, size + 1)
    except zlib.error as error:
        raise DamagedPackingError("does not decompress") from error
    if not unzip.eof or unzip.unused_data:
        raise DamagedPackingError("ends too early or too late")
    return plain


def _from_zstd(data: bytes, size: int) -> bytes:
    module = zstd()
    if module is None:
        raise MissingExtraError("reading what was compressed with zstd", "zstd")
    try:
        reader = module.ZstdDecompressor(options={module.DecompressionParameter.window_log_max: _LARGEST_WINDOW})
        plain: bytes = reader.decompress(data, size + 1)
    except module.ZstdError as error:
        raise DamagedPackingError("does not decompress") from error
    if not reader.eof or reader.unused_data:
        raise DamagedPackingError("ends too early or too late")
    return plain
