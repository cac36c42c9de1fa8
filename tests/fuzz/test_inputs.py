"""Whatever is given to a public call, it does what it says, or raises one of our errors and writes nothing."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import fuzz_values
import pytest
from fuzz_calls import CALLED, ELSEWHERE, METHODS, NOT_GIVEN, Call, Method, calls
from fuzz_store import Stores, judged, tried, watching, works
from fuzz_values import PARAMETERS, PARAMETERS_OF
from hypothesis import strategies as st
from trials import Trial

from sessionstore import SessionStoreError

HERE = Path(__file__).parent
# An import tells what it stored before the conversation at fault; a search first brings the index up to date.
WRITE_ALL_THE_SAME = frozenset({"import_file", "search", "search_raw"})
# SQLite names the word at which it does not understand the user's own SQL.
TELLS_A_WORD = frozenset({"query"})


def test_every_public_input_is_fuzzed() -> None:
    """A new method, or a new parameter of one, needs values here, or a test of its own that is named."""
    missing = [
        f"{method.name}({name})"
        for method in CALLED
        for name in (*method.needed, *method.optional, *((method.several,) if method.several else ()))
        if method.parameter(name) is None and (method.name, name) not in NOT_GIVEN
    ]
    assert missing == []
    assert ELSEWHERE.keys() <= {method.name for method in METHODS}
    tests = "".join(file.read_text(encoding="utf-8") for file in HERE.glob("test_*.py"))
    assert [name for name in ELSEWHERE.values() if f"def {name}(" not in tests] == []


def test_no_strategy_is_so_long_in_words_that_hypothesis_warns() -> None:
    """It writes them down where a filter gives up a draw, and warns from 30,000 characters on: an error here. `tried` asks, too."""
    known = {name: value for name, value in vars(fuzz_values).items() if isinstance(value, st.SearchStrategy)}
    for name, parameter in {**PARAMETERS, **{".".join(names): each for names, each in PARAMETERS_OF.items()}}.items():
        known |= {f"good {name}": parameter.good, f"odd {name}": parameter.odd}
    assert {name: length for name, strategy in known.items() if (length := len(repr(strategy))) > 10_000} == {}


@pytest.mark.fault("G25", "G26")
def test_any_call_is_right_or_refused_and_the_store_goes_on(
    trial: Trial, stores: Stores, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    outcomes: Counter[str] = Counter()
    seen: set[str] = set()

    def check(made: list[Call]) -> None:
        with stores.fresh() as (store, path), watching(path) as watch:
            for call in made:
                name = call.method.name
                seen.add(name)
                answer = judged(
                    lambda call=call: call(store), watch, may_write=name in WRITE_ALL_THE_SAME, tells=name in TELLS_A_WORD
                )
                outcomes["refused" if isinstance(answer, SessionStoreError) else "done"] += 1
            works(store)
            assert store.doctor().ok
            # No id, text or name has become a file.
            assert {file.name for file in path.parent.iterdir() if not file.name.startswith("agent.db")} == set()
        assert list(tmp_path.iterdir()) == []

    examples = tried(trial, check, push=40, nightly=2_500, release=25_000, made=st.lists(calls(), min_size=4, max_size=10))
    total = outcomes.total()
    trial.report(
        f"{total:,} calls in {examples:,} stores: {outcomes['done']:,} done, {outcomes['refused']:,} refused, 0 other errors, "
        "0 refused calls that wrote",
        calls=total,
        methods=f"{len(seen)} of {len(CALLED)}",
    )


@pytest.mark.fault("G26")
@pytest.mark.parametrize("method", CALLED, ids=lambda method: method.name)
def test_every_method_takes_what_is_good_for_it(trial: Trial, stores: Stores, method: Method) -> None:
    """Else all calls of a method might be refused, and nothing would be tried."""
    done: list[Any] = []

    def check(given: dict[str, Any]) -> None:
        if not done:
            several = given.pop("several", ())
            with stores.fresh() as (store, _):
                answer = judged(lambda: Call(method, given, tuple(several))(store))
            if not isinstance(answer, SessionStoreError):
                done.append(answer)

    good = {name: known.good for name in method.needed if (known := method.parameter(name))}
    if "timeout" in method.optional and (known := method.parameter("timeout")):
        good["timeout"] = known.good
    if method.several is not None and (known := method.parameter(method.several)):
        good["several"] = known.good
    optional = [name for name in method.optional if (method.name, name) not in NOT_GIVEN]
    more = {name: known.good for name in optional if name not in good and (known := method.parameter(name))}
    tried(trial, check, push=40, nightly=40, release=40, given=st.fixed_dictionaries(good, optional=more))
    assert done
