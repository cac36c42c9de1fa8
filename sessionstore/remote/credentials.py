"""The key of a remote, held so that it shows nowhere by accident."""

from __future__ import annotations

import hmac
import inspect
import re
from collections.abc import Callable
from typing import Any, Final

from ..errors import ConfigError
from ..hidden import Hidden

MAX_KEY_CHARS: Final = 4_096
MASK: Final = "****"

_SHOWN_CHARS: Final = 4
_FEWEST_CHARS_TO_SHOW_SOME: Final = 12
_VISIBLE: Final = re.compile(r"[!-~]+")
_WITH_SCHEME: Final = re.compile(r"(?:bearer|basic|token)\s", re.IGNORECASE)


class ApiKey(Hidden):
    """A key, or a callable that returns the one to use now, so that keys can be changed while the program runs.

    Its repr and str tell the last four characters of a long key at most. It refuses to be copied or pickled, so that
    `dataclasses.asdict()` of what holds it and the like do not carry the key along.

    Raises:
        ConfigError: It is no key. The message does not show it.
    """

    __slots__ = ("_provider", "_refused", "_text")
    _provider: Callable[[], str] | None
    _refused: str | None
    _text: str | None

    def __init__(self, key: str | Callable[[], str]) -> None:
        self._wrap(key)
        # Tools that show the variables of a traceback must not find it there.
        del key
        require_valid(self)

    @classmethod
    def of(cls, key: ApiKey | str | Callable[[], str] | None) -> ApiKey | None:
        """The key for an argument that may be one already. It never raises.

        Who takes a key binds it anew with this, and only then calls `require_valid()`: a traceback shows the variables of a frame.
        """
        if key is None or isinstance(key, ApiKey):
            return key
        made = cls.__new__(cls)
        made._wrap(key)  # noqa: SLF001 - of this class
        return made

    @property
    def fault(self) -> str | None:
        """What is wrong with what was given as a key, which is not kept then."""
        return self._refused

    @property
    def is_asked_for(self) -> bool:
        """Whether a callable gives it, which may take its time."""
        return self._provider is not None

    def reveal(self) -> str:
        """The key itself, to be put into a request and nowhere else. A callable is asked each time; its errors are raised.

        Raises:
            ConfigError: The callable returned no key.
        """
        if self._provider is None:
            require_valid(self)
            return self._text or ""
        given: Any = self._provider()
        fault = _fault(given)
        if fault is not None:
            if inspect.iscoroutine(given):
                fault = "is a coroutine; it must not be async"
                given.close()
            del given
            raise ConfigError(f"api_key: what the callable returned {fault}")
        self._text = str.__str__(given)
        return self._text

    def _wrap(self, key: str | Callable[[], str]) -> None:
        self._text = self._provider = None
        self._refused = _fault_of_provider(key) if _is_provider(key) else _fault(key)
        if self._refused is not None:
            return
        if isinstance(key, str):
            self._text = str.__str__(key)
        else:
            self._provider = key

    def hidden_in(self, text: str) -> str:
        """A text without the key, for answers and errors that may quote it; of a callable, the key that it returned last."""
        return text if self._text is None else text.replace(self._text, MASK)

    def __repr__(self) -> str:
        shown = self._provider is None and self._text is not None and len(self._text) >= _FEWEST_CHARS_TO_SHOW_SOME
        return f"<ApiKey {MASK}{self._text[-_SHOWN_CHARS:] if shown and self._text else ''}>"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ApiKey):
            return NotImplemented
        if self._provider is not None or other._provider is not None:
            return self._provider == other._provider
        return hmac.compare_digest(self._text or "", other._text or "")

    def __hash__(self) -> int:
        return hash((ApiKey, self._provider or self._text))


def require_valid(key: ApiKey | None) -> None:
    """Refuse what is no key.

    Raises:
        ConfigError: It is none. The message does not show it.
    """
    if key is not None and key.fault is not None:
        raise ConfigError(f"api_key: {key.fault}")


def _is_provider(key: object) -> bool:
    return callable(key) and not isinstance(key, str)


def _fault_of_provider(provider: Any) -> str | None:
    """What is wrong with a callable that is to give keys; None for a good one."""
    call = provider if inspect.isroutine(provider) else getattr(provider, "__call__", None)  # noqa: B004 - async ones are found there
    is_async = inspect.iscoroutinefunction(provider) or inspect.iscoroutinefunction(call)
    return "must not be async: give a plain callable, which async calls ask in a thread" if is_async else None


def _fault(key: Any) -> str | None:
    """What is wrong with a key, without telling it; None for a good one. It does not raise: its frame holds the key."""
    if not isinstance(key, str):
        return f"must be a str or a callable that returns one, not {type(key).__name__}"
    if not key:
        return "must not be empty; leave it out if the remote needs none"
    if len(key) > MAX_KEY_CHARS:
        return f"must have at most {MAX_KEY_CHARS} characters"
    if _WITH_SCHEME.match(key):
        return 'must be the key alone, without "Bearer" before it'
    if not _VISIBLE.fullmatch(key):
        return "must be of visible ASCII characters, without spaces and line ends"
    return None
