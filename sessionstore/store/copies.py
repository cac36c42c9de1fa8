"""The call that copies a whole store into another one."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from .. import hints
from ..arguments import UNSET, Unset
from ..errors import InvalidInputError
from ..keys import EncryptionKey, Given, require_valid
from .calls import Calls


class CopyCalls(Calls):
    """Copies."""

    def copy_to(
        self,
        target: str | Path | hints.SessionStore | hints.AsyncSessionStore,
        *,
        key: EncryptionKey | Given | None | Unset = UNSET,
        progress: Callable[[int, int | None], object] | None = None,
    ) -> hints.CopyReceipt:
        """Copy everything into another store: all namespaces with their sessions, expired ones too, figures, agents and state.

        Both stores may be in use. Sessions are copied one after the other, with their forks, as they are at that moment; then both
        sides are compared, and what was changed in the source meanwhile is taken again. If it is killed, the target holds whole
        sessions, and another copy goes on: what is there and equal stays. A session that was changed in the target, or another
        one of the same name, is left as it is; the receipt names it. What is deleted in the source after it was copied stays.
        Events that wait for the remote and the settings of the remote are not copied.

        Args:
            target: A location as `open` takes it, which is made if it is not there; or an open store.
            key: What the file at a location is encrypted with, as for `open`. By default that of this store, so that a copy of an
                encrypted store is encrypted too; None makes a plain one.
            progress: Called with the messages done and all that there are to do; each is copied and compared.

        Raises:
            InvalidInputError: The target is this store.
            StoreCorruptError: A message of this store is damaged.
            StoreOpenError: The target cannot be opened; and all that `open` raises.
        """
        from ..copying import Copying

        if not isinstance(key, Unset):
            # First of all: a traceback shows the variables of a frame, and this one then holds no key.
            key = EncryptionKey.of(key)
            require_valid(key)
        self._require_open()
        with ExitStack() as stack:
            other = self._opened(stack, target, key)
            if other._database is self._database:  # noqa: SLF001 - a store, too
                raise InvalidInputError("target", "is this store itself")
            other._require_writable()  # noqa: SLF001
            run = Copying(self._read, other._read, other._write, progress)  # noqa: SLF001
            return run.finish(self._database.name, other._database.name)  # noqa: SLF001

    def _opened(self, stack: ExitStack, target: object, key: EncryptionKey | None | Unset) -> Calls:
        """The store that a location or another store stands for."""
        found = getattr(target, "_store", target)
        if isinstance(found, Calls):
            if not isinstance(key, Unset):
                raise InvalidInputError("key", "is for a location; an open store has its own")
            return found
        if not isinstance(found, str | Path):
            raise InvalidInputError("target", "must be a path, a URL or an open store")
        from ..opening import open as open_store

        settings = self._settings
        opened = open_store(
            found,
            key=self._database.key if isinstance(key, Unset) else key,
            durability=settings.durability,
            busy_timeout=settings.busy_timeout,
            # The environment may name a remote, which is to know nothing of the copies.
            remote=None,
        )
        stack.callback(opened.close, drain_timeout=0)
        return opened
