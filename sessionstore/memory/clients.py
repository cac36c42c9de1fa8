"""Whose a backend's client is: one that was made for the backend ends with it, one that was given stays open."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any, Self


class HoldsClient:
    """Closing a backend, by `with` or `close()`."""

    _is_owned: bool
    _client: Any

    def close(self) -> None:
        """Close the connections that were made for this."""
        if self._is_owned:
            self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


class AsyncHoldsClient:
    """Closing an awaited backend, by `async with`, `close()` or `aclose()`."""

    _is_owned: bool
    _end_client: Callable[[], Awaitable[object]]

    async def close(self) -> None:
        """Close the connections that were made for this."""
        if self._is_owned:
            await self._end_client()

    aclose = close

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.close()
