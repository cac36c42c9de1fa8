"""The pure parts of the collector: times, bodies, places, keys, schemas."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, NotRequired, TypedDict

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from sessionstore import ConfigError, InvalidInputError, clock
from sessionstore.collector import access, answering, arriving, bodies, problems, reading, schemas
from sessionstore.collector.problems import Problem
from sessionstore.queries.collecting.arrivals import Figures, namespace_of, place_of, source_and_namespace
from sessionstore.remote.events import PATHS

AT = "2026-03-01T10:00:00.250000+00:00"
names = st.text(st.characters(exclude_categories=("C", "Z"), max_codepoint=0x2000), max_size=256).filter(
    lambda text: text.isprintable() and text.isascii()
)


@given(st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30)), st.sampled_from([0, 330, -720]))  # noqa: DTZ001
def test_an_instant_is_read_as_the_store_writes_it(naive: datetime, minutes: int) -> None:
    told = naive.replace(tzinfo=UTC) + timedelta(0)
    shown = told.astimezone(clock.utc_now().astimezone().tzinfo if minutes else UTC)
    assert bodies.moment(shown.isoformat()) == bodies.Moment(clock.to_text(told))


@pytest.mark.parametrize("text", ["", "yesterday", "2026-13-01T00:00:00", "2026-03-01T10:00:00+99:00", 5, None, "2" * 65,
                                  "0001-01-01T00:00:00+14:00", "2026-03-01T10:00:00.2500000000+00:00x"])  # fmt: skip
def test_what_is_no_instant_is_refused(text: object) -> None:
    with pytest.raises(ValueError, match="must be an ISO 8601 time"):
        bodies.moment(text)


def figures(**attributes: Any) -> dict[str, Any]:
    return {"name": "message", "value": 1.5, "unit": "ms", "agent_id": "a", "session_id": "s", "timestamp": AT,
            "attributes": {"seq": 2, "role": "assistant", **attributes}}  # fmt: skip


@pytest.mark.parametrize(
    "body",
    [
        figures(),
        figures(model="m-1", input_tokens=3, output_tokens=0, response_time_ms=1.5),
        figures(elapsed_ms=2.0, finish_reason="stop", more="is ignored"),
        figures(role=None, reasoning_tokens=2**63 - 1),
        {**figures(), "start_time": "2026-03-01T09:00:00+00:00"},
    ],
)
def test_the_short_way_of_figures_says_what_the_model_says(body: dict[str, Any]) -> None:
    short = arriving._plain_figures(body, body["attributes"])
    assert isinstance(short, Figures)
    assert short == arriving._message_figures(body)
    assert json.loads(short.row.facts or "{}").keys() <= {*bodies.Figures.model_fields}


@pytest.mark.parametrize(
    "wrong",
    [{"seq": 0}, {"seq": 1 << 24}, {"seq": True}, {"seq": "1"}, {"role": "boss"}, {"input_tokens": -1}, {"input_tokens": 1 << 63},
     {"input_tokens": True}, {"model": ""}, {"model": " m"}, {"response_time_ms": -1.0}, {"response_time_ms": float("inf")}],
)  # fmt: skip
def test_figures_that_are_wrong_are_refused_on_both_ways(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        arriving.content_of("metric", figures(**wrong))


@pytest.mark.parametrize("start_time", ["yesterday", 5])
def test_a_message_whose_session_began_at_no_time_is_refused(start_time: object) -> None:
    with pytest.raises(ValidationError) as refused:
        arriving.content_of("metric", {**figures(), "start_time": start_time})
    assert arriving.told(refused.value).field == "start_time"


def test_a_time_zone_that_was_assumed_of_a_session_s_beginning_is_noted() -> None:
    told = arriving.content_of("metric", {**figures(), "start_time": "2026-03-01T10:00:00"})
    assert isinstance(told, Figures)
    assert arriving.ASSUMED in json.loads(told.row.facts or "{}")["metadata"]


def test_a_value_beyond_all_numbers_is_refused_on_both_ways() -> None:
    with pytest.raises(ValidationError):
        arriving.content_of("metric", {**figures(), "value": float("inf")})


def test_the_short_way_knows_every_figure_of_the_model() -> None:
    assert set(arriving._FIGURES) == set(bodies.Figures.model_fields)


def test_every_kind_of_event_has_a_reader_and_a_model() -> None:
    assert set(arriving._READERS) == set(arriving.MODELS) == set(PATHS)


def test_a_refusal_names_a_field_of_ours_and_no_value() -> None:
    with pytest.raises(ValidationError) as refused:
        arriving.content_of("conversation_start", {"session_id": "s", "start_time": AT, "metadata": {"evil": {"x": 2**70}}})
    reason, field = arriving.told(refused.value)
    assert (reason, field) == ("whole numbers must fit into 64 bits", "metadata")


@given(names, names)
def test_no_two_namespaces_share_a_place(one: str, other: str) -> None:
    places = [namespace_of("t", "s", each) for each in (one, other)]
    assert (places[0] == places[1]) == (one == other)
    assert all(len(each) <= 256 and source_and_namespace(each)[0] == "s" for each in places)


def test_a_namespace_cannot_pass_for_the_hash_of_another() -> None:
    hashed = namespace_of("t", "s", "x" * 256)
    assert namespace_of("t", "s", source_and_namespace(hashed)[1]) != hashed


@pytest.mark.parametrize("source", ["a/b", "a b", "ä", "x" * 65])
def test_a_source_cannot_reach_into_another_place(source: str) -> None:
    for find in (lambda: namespace_of("t", source, ""), lambda: place_of("t", source)):
        with pytest.raises(InvalidInputError, match="source"):
            find()


def test_a_place_ends_before_the_next_tenant_s() -> None:
    place = place_of("team")
    assert place.end is not None
    assert place.namespace <= namespace_of("team", "zzz", "\U0010ffff"[:0] + "~" * 200) < place.end
    assert not place.namespace <= namespace_of("team0", "", "") < place.end
    assert not place.namespace <= namespace_of("team.a", "", "") < place.end


def test_keys_are_found_by_bearer_only_and_never_shown() -> None:
    keys = access.ApiKeys([("red", "r" * 16), ("blue", "b" * 16)])
    assert (keys.tenant("Bearer " + "r" * 16), keys.tenant("bearer  " + "b" * 16)) == ("red", "blue")
    assert repr(keys) == "<2 API keys>"
    for wrong in (None, "", "Bearer", "Bearer r", "Token " + "r" * 16, "r" * 16, "Bearer \udcff"):
        with pytest.raises(Problem) as refused:
            keys.tenant(wrong)
        assert refused.value.status == 401
    with pytest.raises(ConfigError, match="one tenant"):
        access.ApiKeys([("red", "r" * 16), ("blue", "r" * 16)])


@pytest.mark.fault("F37")
def test_only_addresses_of_this_machine_are_loopback() -> None:
    assert all(map(access.is_loopback, ("127.0.0.1", "127.9.9.9", "::1", "localhost")))
    assert not any(map(access.is_loopback, ("0.0.0.0", "::", "10.0.0.1", "example.com", "localhost.example.com", "")))


def test_a_small_body_may_unpack_to_the_limit_and_no_further() -> None:
    import zlib

    for size, fits in ((reading.MAX_BYTES, True), (reading.MAX_BYTES + 1, False)):
        packer = zlib.compressobj(wbits=31)
        raw = packer.compress(b" " * size) + packer.flush()
        if fits:
            assert len(reading.unpacked(raw, "gzip")) == size
        else:
            with pytest.raises(Problem, match="at most"):
                reading.unpacked(raw, "gzip")


class _Shape(TypedDict):
    word: Literal["a", "b"]
    numbers: list[float | None]
    more: NotRequired[dict[str, Any]]


def test_a_type_becomes_the_schema_that_says_the_same() -> None:
    assert schemas.schema_of(_Shape) == {
        "type": "object",
        "title": "_Shape",
        "required": ["word", "numbers"],
        "properties": {
            "word": {"enum": ["a", "b"]},
            "numbers": {"type": "array", "items": {"anyOf": [{"type": "number"}, {"type": "null"}]}},
            "more": {"type": "object", "additionalProperties": {}},
        },
    }
    assert set(schemas.schema_of(schemas.CollectedConversation)["required"]) >= {"session_id", "metadata", "source", "namespace"}
    with pytest.raises(TypeError):
        schemas.schema_of(set[int])


def test_a_question_s_time_is_a_date_or_an_aware_time() -> None:
    assert answering.instant("start_date", None) is None
    assert str(answering.instant("start_date", "2026-03-01")) == "2026-03-01"
    naive = answering.instant("start_date", "2026-03-01T10:00:00")
    assert isinstance(naive, datetime)
    assert naive.tzinfo is not None
    with pytest.raises(InvalidInputError, match="start_date"):
        answering.instant("start_date", "soon")


def test_an_error_of_the_store_that_nobody_expects_tells_nothing() -> None:
    problem = problems.of_error(ConfigError("/home/secret"))
    assert (problem.status, "secret" in json.dumps(problem.body())) == (500, False)


@pytest.mark.fault("F37")
@pytest.mark.parametrize("name", ["", "a b", "https://host", "host:80", "[fd00::1]:80", "bücher.example", "host/path", "*"])
def test_what_is_no_name_of_a_host_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="allowed host"):
        access.own_names("127.0.0.1", [name], has_keys=False)


def test_names_are_looked_at_without_keys_or_when_they_are_given() -> None:
    assert access.own_names("0.0.0.0", [], has_keys=True) is None
    assert access.own_names("::1", ["FD00::1", "[fd00::2]", "Host"], has_keys=True) == {
        *access.LOOPBACK_NAMES, "[fd00::1]", "[fd00::2]", "host",
    }  # fmt: skip
    assert access.own_names("127.0.0.2", [], has_keys=False) == {*access.LOOPBACK_NAMES, "127.0.0.2"}
