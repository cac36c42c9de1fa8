"""Importers and decoders return or refuse, whatever bytes they are given: on the seeds, and on mutations of them."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator

import pytest
from fuzz_seeds import mutated, seeds
from fuzz_targets import TARGETS, close_all
from trials import Trial

# A thousandth of a second each, or a tenth: files are stored, written out and read again.
LONG = re.compile(r"_file$|_lines$|llm_")


@pytest.fixture(scope="module", autouse=True)
def closed() -> Iterator[None]:
    """What the targets opened is closed at the end."""
    yield
    close_all()


@pytest.mark.fault("G26")
@pytest.mark.parametrize("name", TARGETS)
def test_a_target_keeps_its_promise_on_damaged_input(trial: Trial, name: str) -> None:
    chance = random.Random(trial.seed)
    began = list(seeds(name))
    at_first = len(began)
    if LONG.search(name):
        runs = trial.size(push=12, nightly=600, release=6_000)
        chance.shuffle(began)
        began = began[: trial.size(push=8, nightly=at_first, release=at_first)]
    else:
        runs = trial.size(push=60, nightly=5_000, release=100_000)
    for data in began:
        TARGETS[name](data)
    for _ in range(runs):
        data = mutated(chance.choice(seeds(name)), chance)
        try:
            TARGETS[name](data)
        except BaseException:
            print(f"{name}({data!r})")
            raise
    trial.report(f"{name}: {len(began):,} seeds and {runs:,} mutations of them, 0 findings", journal_mode=None, target=name)
