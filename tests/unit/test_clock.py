"""Ids that are made here are what others take them for."""

from __future__ import annotations

import time
import uuid

from sessionstore import clock


def test_a_key_is_a_uuid_of_version_7_of_the_present_and_no_two_are_alike() -> None:
    before = time.time_ns() // 1_000_000
    keys = [clock.new_key() for _ in range(10_000)]
    after = time.time_ns() // 1_000_000
    assert len(set(keys)) == len(keys)
    for key in keys:
        made = uuid.UUID(key)
        assert str(made) == key
        assert (made.version, made.variant) == (7, uuid.RFC_4122)
        assert before <= made.int >> 80 <= after


def test_each_bit_of_a_key_that_is_not_told_is_drawn() -> None:
    """74 of the 128: the others are the time, the version and the variant."""
    ones = zeros = 0
    for _ in range(1_000):
        made = uuid.UUID(clock.new_key()).int
        ones, zeros = ones | made, zeros | ~made
    drawn = (1 << 76) - 1 ^ 0b11 << 62
    assert ones & zeros & drawn == drawn


def test_an_id_is_a_uuid_of_version_4_of_which_each_other_bit_is_drawn() -> None:
    ones = zeros = 0
    ids = [clock.new_id() for _ in range(1_000)]
    assert len(set(ids)) == len(ids)
    for each in ids:
        made = uuid.UUID(each)
        assert str(made) == each
        assert (made.version, made.variant) == (4, uuid.RFC_4122)
        ones, zeros = ones | made.int, zeros | ~made.int
    drawn = (1 << 128) - 1 ^ 0xF << 76 ^ 0b11 << 62
    assert ones & zeros & drawn == drawn


def test_a_token_has_the_digits_that_were_asked_for_and_each_is_drawn() -> None:
    for digits in (1, 8, 24, 32):
        tokens = [clock.new_token(digits) for _ in range(500)]
        assert {len(token) for token in tokens} == {digits}
        assert all(len({token[place] for token in tokens}) > 1 for place in range(digits))
