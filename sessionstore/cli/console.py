"""What goes to the terminal: data to stdout, talk to stderr, and stored text without the power to command a terminal."""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from rich.console import Console, RenderableType
from rich.markup import escape
from rich.padding import Padding
from rich.text import Text

from ..formats import jsonlines

if TYPE_CHECKING:
    from ..formats.streams import Progress

# The exit code.
WRONG_USAGE: Final = 2

# Control characters but line feed and tab, and what turns the direction of writing.
_UNSAFE: Final = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")
_WIDE: Final = 100_000


def harmless(text: str) -> str:
    """A text whose control characters are written out in hexadecimal digits; line breaks and tabs stay."""
    return _UNSAFE.sub(_written_out, text.replace("\r\n", "\n"))


def one_line(text: str) -> str:
    """As `harmless`, with line breaks and tabs as spaces."""
    return harmless(text).replace("\n", " ").replace("\t", " ")


def prepare_stdout() -> None:
    """Make stdout take every text: UTF-8 for programs, what a terminal lacks written out."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        if sys.stdout.isatty():
            sys.stdout.reconfigure(errors="backslashreplace")
        else:
            sys.stdout.reconfigure(encoding="utf-8")


def output() -> Console:
    """Where data go. Lines are broken for terminals only: a program that reads them gets them as they are."""
    width = None if sys.stdout.isatty() else _WIDE
    return Console(width=width, markup=False, highlight=False, emoji=False, soft_wrap=False)


def print_indented(console: Console, text: Text) -> None:
    """A text two columns to the right; on a terminal its broken lines, too."""
    if console.is_terminal:
        console.print(Padding(text, (0, 0, 0, 2)))
    else:
        for line in text.plain.split("\n"):
            console.print(Text(f"  {line}"), soft_wrap=True)


def print_trimmed(console: Console, what: RenderableType) -> None:
    """A table or the like, in a program's hands without the blanks that fill its lines."""
    if console.is_terminal:
        console.print(what)
        return
    with console.capture() as capture:
        console.print(what)
    sys.stdout.writelines(f"{line.rstrip()}\n" for line in capture.get().splitlines())


def say(text: str, style: str = "") -> None:
    """Talk to the user, on stderr."""
    Console(stderr=True, markup=False, highlight=False, emoji=False).print(Text(harmless(text), style), soft_wrap=True)


def complain(text: str) -> None:
    """Say in one line what went wrong."""
    sys.stderr.write(f"error: {one_line(text)}\n")


def write_json(value: object) -> None:
    """One JSON value on one line of stdout."""
    sys.stdout.write(jsonlines.dumps(value) + "\n")


def write_fields(fields: Mapping[str, object]) -> None:
    """Names and values, one a line."""
    width = max(map(len, fields))
    for name, value in fields.items():
        sys.stdout.write(f"{name.replace('_', ' '):<{width}}  {one_line(str(value))}\n")


def size(count: int) -> str:
    """A number of bytes in words."""
    amount = float(count)
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if amount < 1024 or unit == "GiB":
            break
        amount /= 1024
    return f"{count} bytes" if unit == "bytes" else f"{amount:.1f} {unit}"


def counted(number: int, noun: str) -> str:
    """A number of things in words: 1 message, 2,526 messages."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def plain(value: Any) -> dict[str, Any]:
    """A value object as JSON has it."""
    return {name: field.isoformat() if isinstance(field, datetime) else field for name, field in asdict(value).items()}


@contextmanager
def progress_bar(title: str, *, show: bool = True) -> Iterator[Progress]:
    """A bar on stderr while something runs, if stderr is a terminal."""
    if not show or not sys.stderr.isatty():
        yield _unseen
        return
    from rich.progress import Progress as Bar

    with Bar(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(escape(one_line(title)), total=None)

        def report(done: int, total: int | None) -> None:
            bar.update(task, completed=done, total=total)

        yield report


def _unseen(done: int, total: int | None) -> None:
    """Nobody looks."""


def _written_out(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
