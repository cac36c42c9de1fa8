"""The store that the options before the verb name."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from ..config import locate
from ..errors import ConfigError

if TYPE_CHECKING:
    from ..store import SessionStore


@dataclass(frozen=True, slots=True)
class Target:
    """What the options --store, --namespace and --key-file name."""

    location: str | None
    namespace: str
    key_file: Path | None = None

    @property
    def key(self) -> Any:
        """What the store is encrypted with, as `sessionstore.open()` takes it: by default what the environment names."""
        import sessionstore

        return sessionstore.UNSET if self.key_file is None else sessionstore.file_key(self.key_file)

    def path(self) -> Path:
        """The file that the location means; nothing is created."""
        try:
            return locate(self.location)[0]
        except ConfigError as error:
            raise typer.BadParameter(str(error), param_hint="--store") from error

    def open(self, *, writing: bool = False, migrate: bool = False) -> SessionStore:
        """Open the store; only writing verbs make a file that is not there, upgrade one, and follow the environment's remote."""
        import sessionstore

        self.path()
        return sessionstore.open(
            self.location,
            namespace=self.namespace,
            must_exist=not writing,
            migrate=writing or migrate,
            remote=sessionstore.UNSET if writing else None,
            key=self.key,
        )
