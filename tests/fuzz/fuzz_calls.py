"""Calls of the public methods, found by looking at them: each parameter is drawn from what `fuzz_values` has for it."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from fuzz_values import PARAMETERS, PARAMETERS_OF, Parameter
from hypothesis import strategies as st

from sessionstore import Outbox, SessionStore, arguments

# Methods that these examples do not call, and which test gives them odd values instead.
ELSEWHERE: Final = {
    "close": "test_every_call_of_a_closed_store_says_so",
    "background": "test_a_background_takes_periods_only",
    "backup": "test_odd_paths_are_refused_or_name_one_file",
    "copy_to": "test_odd_paths_are_refused_or_name_one_file",
    "rekey": "test_odd_keys_are_refused_without_being_shown",
    "as_memory_backend": "test_a_memory_backend_keeps_any_conversation_or_refuses_it",
}
# Parameters that no example gives.
NOT_GIVEN: Final = {("timer", "strict"): "a block that must be recorded raises on its own", ("copy_to", "key"): "see rekey"}
_UNPACKED: Final = re.compile(r"Unpack\[(\w+)\]")


@dataclass(frozen=True)
class Method:
    """A public method, with its parameters: which must be given (the first ones by place), which may, which stand for several."""

    name: str
    by_place: tuple[str, ...]
    needed: tuple[str, ...]
    optional: tuple[str, ...]
    several: str | None = None

    def parameter(self, name: str) -> Parameter | None:
        """What may be given to a parameter."""
        return PARAMETERS_OF.get((self.name, name)) or PARAMETERS.get(name)


def methods_of(owner: type, prefix: str = "") -> Iterator[Method]:
    """The public methods of a class."""
    for name in sorted(vars_of(owner)):
        function = getattr(owner, name)
        if callable(function):
            yield _method(prefix + name, function)


def vars_of(owner: type) -> list[str]:
    """The public names of a class."""
    return [name for name in dir(owner) if not name.startswith("_")]


def _method(name: str, function: Callable[..., Any]) -> Method:
    by_place: list[str] = []
    needed: list[str] = []
    optional: list[str] = []
    several = None
    for parameter in list(inspect.signature(function).parameters.values())[1:]:
        if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
            several = parameter.name
        elif parameter.kind is inspect.Parameter.VAR_KEYWORD:
            found = _UNPACKED.search(str(parameter.annotation))
            assert found is not None, f"{name}: what is **{parameter.name}?"
            optional += getattr(arguments, found[1]).__annotations__
        elif parameter.default is inspect.Parameter.empty:
            needed.append(parameter.name)
            if parameter.kind is not inspect.Parameter.KEYWORD_ONLY:
                by_place.append(parameter.name)
        else:
            optional.append(parameter.name)
    return Method(name, tuple(by_place), tuple(needed), tuple(optional), several)


METHODS: Final = (*methods_of(SessionStore), *methods_of(Outbox, "outbox."))
CALLED: Final = tuple(method for method in METHODS if method.name not in ELSEWHERE)


@dataclass(frozen=True)
class Call:
    """A call that is to be made."""

    method: Method
    given: dict[str, Any]
    several: tuple[Any, ...]

    def __call__(self, store: SessionStore) -> Any:
        """Make it, and read to its end what it answers."""
        owner, _, name = self.method.name.rpartition(".")
        function = getattr(getattr(store, owner) if owner else store, name)
        positional = [self.given[each] for each in self.method.by_place]
        named = {each: value for each, value in self.given.items() if each not in self.method.by_place}
        if self.method.name == "track":
            return function(named.pop("name", None), **named)(_nothing)()
        answer = function(*positional, *self.several, **named)
        return _ENDINGS.get(self.method.name, _whole)(answer)


def _nothing() -> None:
    """Takes no time."""


def _whole(answer: Any) -> Any:
    return answer


def _timed(timer: Any) -> None:
    with timer:
        pass


_ENDINGS: Final[dict[str, Callable[[Any], Any]]] = {
    "iterate": list,
    "timer": _timed,
    "in_namespace": lambda store: store.count(),
}


@st.composite
def calls(draw: st.DrawFn) -> Call:
    """Any call: all of its values are good, or one is odd, or any may be."""
    method = draw(st.sampled_from(CALLED))
    optional = [name for name in method.optional if (method.name, name) not in NOT_GIVEN]
    # By default the remote, which is not there, is waited for.
    given = [*method.needed, *(name for name in optional if name == "timeout" or draw(st.booleans()))]
    names = [*given, *((method.several,) if method.several else ())]
    how = draw(st.sampled_from(["good", "good", "one", "any"]))
    odd = draw(st.sampled_from(names)) if names and how == "one" else None
    values: dict[str, Any] = {}
    for name in names:
        parameter = method.parameter(name)
        assert parameter is not None
        is_odd = name == odd or (how == "any" and draw(st.booleans()))
        values[name] = draw(parameter.odd if is_odd else parameter.good)
    several = values.pop(method.several) if method.several else ()
    return Call(method, values, tuple(several) if isinstance(several, list | tuple) else (several,))
