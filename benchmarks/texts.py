"""English-like messages, the same in every run."""

from __future__ import annotations

import random
from functools import cache

CHARS = 430
_DIFFERENT = 512
_WORDS = """
    the of and a to in is you that it he was for on are as with his they be at one have this from or had by word but what some we
    can out other were all there when up use your how said an each she which do their time if will way about many then them write
    would like so these her long make thing see him two has look more day could go come did number sound no most people my over
    know water than call first who may down side been now find any new work part take get place made live where after back little
    only round man year came show every good me give our under name very through just form sentence great think say help low line
    differ turn cause much mean before move right boy old too same tell does set three want air well also play small end put home
    read hand port large spell add even land here must big high such follow act why ask men change went light kind off need house
    picture try us again animal point mother world near build self earth father session message agent answer question morning
""".split()  # noqa: SIM905 - a list of quoted words reads worse


def text(number: int) -> str:
    """About 430 characters of sentences, some of them quoted, in two paragraphs or so."""
    return _texts()[number % _DIFFERENT]


def turn(number: int) -> list[dict[str, str]]:
    """What a user said and what the assistant answered."""
    return _turns()[number % len(_turns())]


def history(count: int) -> list[dict[str, str]]:
    """A conversation of so many messages."""
    return [message for number in range((count + 1) // 2) for message in turn(number)][:count]


@cache
def _turns() -> tuple[list[dict[str, str]], ...]:
    return tuple(
        [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
        for question, answer in zip(_texts()[::2], _texts()[1::2], strict=True)
    )


@cache
def _texts() -> tuple[str, ...]:
    chance = random.Random(430)
    return tuple(_text(chance) for _ in range(_DIFFERENT))


def _text(chance: random.Random) -> str:
    written = ""
    while len(written) < CHARS:
        written += _sentence(chance) + ("\n\n" if chance.random() < 0.2 else " ")
    return written[:CHARS]


def _sentence(chance: random.Random) -> str:
    words = " ".join(chance.choice(_WORDS) for _ in range(chance.randint(5, 16))).capitalize()
    return f'"{words}."' if chance.random() < 0.1 else f"{words}."
