"""The body of a request: read with a limit, unpacked with a limit, in a limited time."""

from __future__ import annotations

import zlib
from typing import Any, Final

import anyio
from starlette.requests import ClientDisconnect, Request

from ..remote.capabilities import MAX_BYTES
from ..remote.compression import zstd
from .problems import Problem

MAX_RAW_BYTES: Final = 8 << 20
_SECONDS: Final = 30.0
_WINDOW_LOG: Final = 23
_GZIP: Final = 16 + zlib.MAX_WBITS
_ZSTD: Final[Any] = zstd()
_BROKEN: Final = (zlib.error, ValueError, EOFError) if _ZSTD is None else (zlib.error, ValueError, EOFError, _ZSTD.ZstdError)
ENCODINGS: Final = ("zstd", "gzip") if _ZSTD is not None else ("gzip",)


async def body_of(request: Request) -> bytes:
    """The body, unpacked.

    Raises:
        Problem: It is too large, no JSON by its headers, packed in an unknown way or broken, or does not come.
    """
    content_type = request.headers.get("content-type")
    if content_type is not None and not _is_json(content_type):
        raise Problem(415, "unsupported_media_type", "the body must be application/json")
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("identity", "", *ENCODINGS):
        raise Problem(415, "unsupported_encoding", f"Content-Encoding must be one of {', '.join(ENCODINGS)}")
    is_packed = encoding not in ("identity", "")
    raw = await _raw(request, MAX_RAW_BYTES if is_packed else MAX_BYTES)
    return unpacked(raw, encoding) if is_packed else raw


def unpacked(raw: bytes, encoding: str) -> bytes:
    """What was packed with gzip or zstd.

    Raises:
        Problem: It is broken, or too large.
    """
    try:
        whole, is_whole = _unpack(raw, encoding)
    except _BROKEN:
        raise _broken(encoding) from None
    if len(whole) > MAX_BYTES:
        raise _too_large()
    if not is_whole:
        raise _broken(encoding)
    return whole


def _unpack(raw: bytes, encoding: str) -> tuple[bytes, bool]:
    if encoding == "gzip":
        gzip = zlib.decompressobj(_GZIP)
        return gzip.decompress(raw, MAX_BYTES + 1), gzip.eof and not gzip.unused_data
    # A frame may ask for a window of any size, and so for as much memory.
    frame = _ZSTD.ZstdDecompressor(options={_ZSTD.DecompressionParameter.window_log_max: _WINDOW_LOG})
    return frame.decompress(raw, MAX_BYTES + 1), frame.eof and not frame.unused_data


async def _raw(request: Request, limit: int) -> bytes:
    length = request.headers.get("content-length", "")
    if length.isdigit() and int(length) > limit:
        raise _too_large()
    parts: list[bytes] = []
    size = 0
    try:
        with anyio.fail_after(_SECONDS):
            async for part in request.stream():
                size += len(part)
                if size > limit:
                    raise _too_large()
                parts.append(part)
    except TimeoutError:
        raise Problem(408, "timeout", "the body did not come in time", Connection="close") from None
    except ClientDisconnect:
        raise Problem(400, "disconnected", "the body was cut short") from None
    return b"".join(parts)


def _is_json(content_type: str) -> bool:
    kind = content_type.partition(";")[0].strip().lower()
    return kind == "application/json" or kind.endswith("+json")


def _too_large() -> Problem:
    return Problem(413, "too_large", f"a body has at most {MAX_BYTES} bytes, unpacked")


def _broken(encoding: str) -> Problem:
    return Problem(400, "broken_encoding", f"the body is no whole {encoding} stream")
