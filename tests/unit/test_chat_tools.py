"""Functions become tools by their signatures, and models are told what went wrong with their calls."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from functools import partial
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, Field

from sessionstore import InvalidInputError
from sessionstore.chat.answers import ToolRequest
from sessionstore.chat.tools import Arguments, Told, Tool, Toolbox, told_error, told_result


class Unit(StrEnum):
    C = "c"
    F = "f"


class Place(BaseModel):
    city: str
    zip: str | None = None


@dataclass
class Sky:
    clear: bool
    at: datetime


def weather(
    place: Place,
    json: Annotated[int, Field(description="How many days", ge=1)] = 1,
    *,
    unit: Unit = Unit.C,
    schema: Literal["short", "long"] | None = None,
) -> None:
    """Tell the weather.

    For a few days.
    """


def test_a_schema_has_types_defaults_and_descriptions() -> None:
    described = Tool(weather).described["function"]
    assert (described["name"], described["description"]) == ("weather", "Tell the weather.\n\nFor a few days.")
    parameters = described["parameters"]
    assert parameters["required"] == ["place"]
    assert parameters["additionalProperties"] is False
    assert set(parameters["properties"]) == {"place", "json", "unit", "schema"}
    assert parameters["properties"]["json"] == {"default": 1, "description": "How many days", "minimum": 1, "type": "integer"}
    json.dumps(parameters)


def test_arguments_are_checked_and_converted() -> None:
    arguments = Tool(weather).arguments('{"place": {"city": "Rome"}, "unit": "f", "json": 2}')
    assert arguments == Arguments({"place": Place(city="Rome"), "json": 2, "unit": Unit.F})


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "JSON"),
        ("[]", "object"),
        ('{"place": {"city": "Rome"}, "json": 0}', "json: Input should be greater"),
        ('{"place": {}}', "place.city: Field required"),
        ('{"place": {"city": "Rome"}, "colour": 1}', "colour: Extra inputs"),
        ("{}", "place: Field required"),
    ],
)
def test_wrong_arguments_are_told_to_the_model(text: str, problem: str) -> None:
    told = Tool(weather).arguments(text)
    assert isinstance(told, Told)
    assert told.error == "ValidationError"
    assert problem in told.text


def test_a_call_object_and_a_bound_method_are_tools() -> None:
    class Search:
        async def __call__(self, words: str) -> str:
            """Search."""
            return words

        def count(self, words: str) -> int:
            return len(words)

    assert Tool(Search()).is_async
    assert Tool(Search()).name == "Search"
    assert Tool(Search().count).arguments('{"words": "x"}') == Arguments({"words": "x"})


def test_what_a_partial_binds_is_not_the_models_to_choose() -> None:
    def search(index: list[str], words: str, most: int = 5, marker: object = Tool) -> list[str]:
        """Search."""
        return [f"{marker}", *(each for each in index if words in each)][:most]

    for tool in (Tool(partial(search, ["a word"], marker="m")), Tool(partial(search, index=["a word"], marker="m"))):
        described = tool.described["function"]
        assert (described["name"], described["description"]) == ("search", "Search.")
        assert list(described["parameters"]["properties"]) == ["words", "most"]
        arguments = tool.arguments('{"words": "word"}')
        assert isinstance(arguments, Arguments)
        assert tool.function(**arguments.named) == ["m", "a word"]


def test_a_default_that_json_does_not_have_is_left_to_the_function() -> None:
    def find(words: str, marker: Any = Tool) -> Any:
        return marker

    assert Tool(find).arguments('{"words": "x"}') == Arguments({"words": "x"})
    assert "default" not in Tool(find).described["function"]["parameters"]["properties"]["marker"]


def takes_anything(*values: int) -> None: ...


def takes_any_names(**values: int) -> None: ...


def takes_by_place(value: int, /) -> None: ...


def takes_what_has_no_schema(value: Tool) -> None: ...


def takes_what_is_not_there(value: Nowhere) -> None: ...  # type: ignore[name-defined]  # noqa: F821


def é() -> None: ...  # noqa: PLC2401


@pytest.mark.parametrize(
    "function",
    [
        takes_anything, takes_any_names, takes_by_place, takes_what_has_no_schema, takes_what_is_not_there, é,
        lambda: 1, int, "weather", None,
    ],
)  # fmt: skip
def test_what_cannot_be_a_tool_is_refused(function: Any) -> None:
    with pytest.raises(InvalidInputError, match="tools"):
        Tool(function)


def test_a_toolbox_knows_its_tools_by_name() -> None:
    box = Toolbox([weather])
    assert [each["function"]["name"] for each in box.described] == ["weather"]
    assert box.first_async is None
    unknown = box.prepared(ToolRequest("call_1", "whether", "{}"))
    assert isinstance(unknown, Told)
    assert "weather" in unknown.text
    with pytest.raises(InvalidInputError, match="different names"):
        Toolbox([weather, weather])


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("as it is", "as it is"),
        (None, "null"),
        ({"é": [1.5]}, '{"é":[1.5]}'),
        (Place(city="Rome"), '{"city":"Rome","zip":null}'),
        (Sky(True, datetime(2026, 1, 1, tzinfo=UTC)), '{"clear":true,"at":"2026-01-01T00:00:00Z"}'),
        ({1}, "[1]"),
    ],
)
def test_a_result_is_told_as_text_or_json(value: Any, text: str) -> None:
    assert told_result(value) == Told(text)


def test_a_result_that_json_does_not_have_is_told_as_a_failure() -> None:
    cycle: list[Any] = []
    cycle.append(cycle)
    for value in (object(), cycle):
        told = told_result(value)
        assert told.error is not None
        assert told.text.startswith("The tool failed")


def test_what_an_error_says_is_told_without_secrets_and_not_without_end() -> None:
    told = told_error(ValueError("api_key=sk-Zq8vT3nL5wXy7RbKd2Hf " + "x" * 10_000 + "\ud800"))
    assert "Zq8v" not in told.text
    assert len(told.text) <= 2_000
    told.text.encode()


def test_the_model_is_told_which_tools_there_are() -> None:
    request = ToolRequest("call_1", "nothing", "{}")
    assert Toolbox([weather]).prepared(request) == Told("There is no such tool. There are: weather.", "LookupError")
    assert Toolbox([]).prepared(request) == Told("There is no such tool. There are none.", "LookupError")
