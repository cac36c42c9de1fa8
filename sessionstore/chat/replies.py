"""The answer of a model as it comes: an iterator of pieces of text that knows its reply at the end."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from .answers import Reply
from .conversations import now
from .running import Run


class _Streamed:
    """What both streams share."""

    def __init__(self, run: Run) -> None:
        self._run = run

    @property
    def reply(self) -> Reply:
        """The whole reply, after the last piece.

        Raises:
            RuntimeError: The stream was not read to its end, or failed.
        """
        if self._run.reply is None:
            raise RuntimeError("there is no reply before the stream has been read to its end")
        return self._run.reply

    def __del__(self) -> None:
        # Who breaks out of a loop often does not close; the next turn must not wait for that.
        run: Run | None = getattr(self, "_run", None)
        if run is not None:
            run.abandon()


class ReplyStream(_Streamed):
    """Pieces of text as they come. The turn is stored before the iteration ends; a stream that is closed earlier stores nothing."""

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> str:
        piece = now(self._run.step())
        if piece is None:
            raise StopIteration
        return piece

    def close(self) -> None:
        """Leave the answer where it is; nothing of the turn is stored. After the end it does nothing."""
        now(self._run.close())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


class AsyncReplyStream(_Streamed):
    """As `ReplyStream`, for `async for`. Use it in `async with` where you may leave it before its end."""

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> str:
        piece = await self._run.step()
        if piece is None:
            raise StopAsyncIteration
        return piece

    async def close(self) -> None:
        """Leave the answer where it is; nothing of the turn is stored. After the end it does nothing."""
        await self._run.close()

    aclose = close

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.close()
