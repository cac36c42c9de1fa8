"""Python functions as the tools of a model: described by their signatures, called with checked arguments."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Collection, Iterable
from functools import partial
from typing import Any, Final, NamedTuple, get_type_hints

from ..arguments import several
from ..errors import InvalidInputError
from ..masking import mask
from .answers import ToolRequest

_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_MOST_CHARS_OF_ERROR: Final = 2_000
_BY_NAME: Final = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


class Told(NamedTuple):
    """What a model is told of a tool call. `error` is the type of what went wrong, if something did."""

    text: str
    error: str | None = None


class Arguments(NamedTuple):
    """The checked arguments of a call."""

    named: dict[str, Any]


class Tool:
    """A function that a model may call. Its docstring tells the model what it is for."""

    def __init__(self, function: Callable[..., Any]) -> None:
        given: object = function
        if not callable(given) or isinstance(given, type):
            raise InvalidInputError("tools", "must be functions")
        self.function = function
        # What a partial has bound is nothing that the model may choose.
        bound = function.keywords if isinstance(function, partial) else {}
        named = function.func if isinstance(function, partial) else function
        self.name = str(getattr(named, "__name__", type(named).__name__))
        if not _NAME.fullmatch(self.name):
            raise InvalidInputError(
                "tools", "names must be 1 to 64 letters, digits, dashes or underscores; give a lambda a name by def"
            )
        called = named if inspect.isroutine(named) else named.__call__  # type: ignore[operator]
        self.is_async = inspect.iscoroutinefunction(called)
        self._fields = _fields(self.name, function, called, bound)
        self._model, self._parameters = _arguments_model(self.name, self._fields)
        self.description = inspect.getdoc(named) or ""

    @property
    def described(self) -> dict[str, Any]:
        """The tool, as chat completions describe one."""
        function = {"name": self.name, "description": self.description, "parameters": self._parameters}
        return {"type": "function", "function": function}

    def arguments(self, text: str) -> Arguments | Told:
        """The arguments that a model wrote as JSON, checked; or what is wrong with them."""
        from pydantic import ValidationError

        try:
            checked = self._model.model_validate_json(text)
        except ValidationError as error:
            faults = "; ".join(f"{'.'.join(map(str, each['loc'])) or 'arguments'}: {each['msg']}" for each in error.errors())
            return Told(_shortened(f"The arguments are wrong: {faults}"), "ValidationError")
        return Arguments(
            {name: getattr(checked, field) for field, (name, _, _) in self._fields.items() if field in checked.model_fields_set}
        )


class Toolbox:
    """The tools of an agent, by their names."""

    def __init__(self, functions: Iterable[Callable[..., Any]]) -> None:
        made = [Tool(function) for function in several("tools", functions)]
        self._tools = {tool.name: tool for tool in made}
        if len(self._tools) < len(made):
            raise InvalidInputError("tools", "must have different names")

    @property
    def described(self) -> list[dict[str, Any]]:
        """All of them, for the model."""
        return [tool.described for tool in self._tools.values()]

    @property
    def first_async(self) -> str | None:
        """The name of a tool that has to be awaited; None if there is none."""
        return next((tool.name for tool in self._tools.values() if tool.is_async), None)

    def prepared(self, request: ToolRequest) -> tuple[Tool, Arguments] | Told:
        """The tool that is asked for, with its arguments; or what the model is told instead."""
        tool = self._tools.get(request.name)
        if tool is None:
            known = f"There are: {', '.join(self._tools)}." if self._tools else "There are none."
            return Told(f"There is no such tool. {known}", "LookupError")
        arguments = tool.arguments(request.arguments)
        return arguments if isinstance(arguments, Told) else (tool, arguments)


def told_result(value: Any) -> Told:
    """What a model is told of a tool's result: a text as it is, anything else as JSON."""
    if isinstance(value, str):
        return Told(str.__str__(value))
    from pydantic_core import PydanticSerializationError, to_json

    try:
        return Told(to_json(value).decode())
    except (PydanticSerializationError, ValueError, RecursionError) as error:
        return told_error(error)


def told_error(error: Exception) -> Told:
    """What a model is told of a tool that failed."""
    return Told(_shortened(f"The tool failed: {type(error).__name__}: {error}"), type(error).__name__)


def _shortened(text: str) -> str:
    # What an error quotes may be half of a character, which no JSON holds.
    whole = text.encode(errors="replace").decode()
    return mask(whole)[:_MOST_CHARS_OF_ERROR]


def _fields(
    name: str, function: Callable[..., Any], called: Callable[..., Any], bound: Collection[str]
) -> dict[str, tuple[str, Any, Any]]:
    """For each parameter that is not bound a field name that no model class has, its own name, its type and its default."""
    try:
        parameters = [each for each in inspect.signature(function).parameters.values() if each.name not in bound]
        hints = get_type_hints(called, include_extras=True)
    except (TypeError, ValueError, NameError) as error:
        raise InvalidInputError("tools", f"the signature of {name} cannot be read: {error}") from error
    if any(parameter.kind not in _BY_NAME for parameter in parameters):
        raise InvalidInputError("tools", f"{name} must take its arguments by name: no *, no ** and no / in its signature")
    return {
        f"argument_{number}": (parameter.name, hints.get(parameter.name, Any), parameter.default)
        for number, parameter in enumerate(parameters)
    }


def _arguments_model(name: str, fields: dict[str, tuple[str, Any, Any]]) -> tuple[Any, dict[str, Any]]:
    """What checks the arguments, and its JSON schema."""
    from pydantic import ConfigDict, Field, create_model
    from pydantic.errors import PydanticUserError

    definitions: dict[str, Any] = {
        field: (hint, Field(... if default is inspect.Parameter.empty else default, alias=alias))
        for field, (alias, hint, default) in fields.items()
    }
    try:
        model = create_model(f"{name}_arguments", __config__=ConfigDict(extra="forbid"), **definitions)
        return model, _schema(model)
    except PydanticUserError as error:
        raise InvalidInputError(
            "tools", f"the types of {name} have no JSON schema; use those that JSON has: {error.code}"
        ) from error


def _schema(model: Any) -> dict[str, Any]:
    from pydantic.json_schema import GenerateJsonSchema

    class Untitled(GenerateJsonSchema):
        def field_title_should_be_set(self, schema: Any) -> bool:
            return False

        def emit_warning(self, kind: Any, detail: str) -> None:
            """None: a default that JSON does not have is the function's own business."""

    schema: dict[str, Any] = model.model_json_schema(schema_generator=Untitled)
    schema.pop("title", None)
    return schema
