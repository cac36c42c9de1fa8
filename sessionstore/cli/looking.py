"""The verbs that read: path, status, doctor, sessions and show. None of them creates or upgrades a store."""

from __future__ import annotations

import json
import re
import shlex
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import typer
from rich.table import Table
from rich.text import Text

from .. import clock
from ..values import STATE_SCOPES
from .console import counted, harmless, one_line, output, plain, print_indented, print_trimmed, say, size, write_fields, write_json

if TYPE_CHECKING:
    from ..store import SessionStore
    from ..values import Message, SessionInfo
    from .target import Target

_AGO: Final = re.compile(r"(\d{1,6})([mhdw])")
_UNITS: Final = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_ROLE_STYLES: Final = {"user": "bold cyan", "assistant": "bold green", "tool": "bold yellow", "function": "bold yellow"}
_OTHER_STYLE: Final = "bold magenta"
_FACTS: Final = (("model", "{}"), ("input_tokens", "{} tokens in"), ("output_tokens", "{} out"), ("response_time_ms", "{:.0f} ms"))
_PAGE: Final = 500
_MOST_NAMESPACES: Final = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """Which sessions, as the options say it."""

    agent: str | None = None
    user: str | None = None
    status: str | None = None
    tags: Sequence[str] | None = None
    text: str | None = None
    since: str | None = None
    until: str | None = None
    metadata: Sequence[str] | None = None
    pinned: bool = False
    archived: bool = False

    def filters(self) -> dict[str, Any]:
        """The filters of the library's calls, those alone that are given."""
        given = {
            "agent_id": self.agent,
            "user_id": self.user,
            "status": self.status,
            "tag": self.tags or None,
            "text": self.text,
            "since": None if self.since is None else moment(self.since, "--since"),
            "until": None if self.until is None else moment(self.until, "--until"),
            "metadata": plain_values(self.metadata) if self.metadata else None,
            "pinned": self.pinned or None,
            "archived": self.archived or None,
        }
        return {name: value for name, value in given.items() if value is not None}


def plain_values(pairs: Sequence[str]) -> dict[str, Any]:
    """The metadata that KEY=VALUE ask for; a value that is no JSON is a text."""
    wanted: dict[str, Any] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals:
            raise typer.BadParameter("must be KEY=VALUE.", param_hint="--metadata")
        if key in wanted:
            raise typer.BadParameter("names a key twice.", param_hint="--metadata")
        wanted[key] = _json_or_text(value)
    return wanted


def _json_or_text(value: str) -> Any:
    try:
        return json.loads(value, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        return value


def _refuse_constant(name: str) -> None:
    raise ValueError(name)


def moment(text: str, option: str) -> datetime:
    """The instant of 90m, 12h, 7d, 2w (ago) or of an ISO 8601 date or time; without an offset it is local time."""
    ago = _AGO.fullmatch(text)
    try:
        if ago:
            return clock.utc_now() - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
        return datetime.fromisoformat(text).astimezone()
    except (ValueError, OverflowError, OSError) as error:
        raise typer.BadParameter(
            "must be like 90m, 12h, 7d, 2w, 2026-01-31 or 2026-01-31T12:00+01:00.", param_hint=option
        ) from error


def show_path(target: Target, *, as_json: bool) -> None:
    """Where the store is, and whether it exists."""
    path = target.path().absolute()
    exists = path.is_file()
    size_bytes = path.stat().st_size if exists else 0
    if as_json:
        write_json({"path": str(path), "exists": exists, "size_bytes": size_bytes})
        return
    sys.stdout.write(f"{one_line(str(path))}\n")
    say(f"it exists, {size(size_bytes)}" if exists else "it does not exist yet; the first program that opens it creates it", "dim")


def show_status(target: Target, *, storage: bool, as_json: bool) -> None:
    """How the store is doing."""
    with target.open() as store:
        fields = plain(store.status(storage=storage))
    if as_json:
        write_json(fields)
        return
    fields |= fields.pop("storage") or {}
    fields["warnings"] = "; ".join(fields["warnings"]) or "none"
    write_fields(fields)


def show_diagnosis(target: Target, *, as_json: bool) -> int:
    """Every check; the exit code says whether all of them passed."""
    with target.open() as store:
        diagnosis = store.doctor()
    if as_json:
        write_json({"ok": diagnosis.ok, "checks": [plain(check) for check in diagnosis.checks]})
    else:
        width = max(len(check.name) for check in diagnosis.checks)
        console = output()
        for check in diagnosis.checks:
            mark = Text("ok    ", "green") if check.ok else Text("FAILED", "bold red")
            console.print(mark, Text(f"{check.name:<{width}}  {one_line(check.detail)}"), soft_wrap=True)
    return 0 if diagnosis.ok else 1


def list_sessions(target: Target, choice: Choice, *, limit: int, cursor: str | None, everything: bool, as_json: bool) -> None:
    """One page of sessions, or all of them."""
    filters = choice.filters()
    with target.open() as store:
        page = store.list(limit=limit, cursor=cursor, **filters)
        shown = _all_pages(store, limit, filters) if everything else iter(page.items)
        if not page.items:
            say(_why_none(store, filtered=bool(filters), later_page=cursor is not None), "dim")
        elif as_json:
            for info in shown:
                write_json(_session_json(info))
        else:
            _print_table(list(shown))
    if page.next_cursor is not None and not everything:
        say(f"more: --cursor {page.next_cursor}", "dim")


def print_sessions(infos: Sequence[SessionInfo], *, as_json: bool, none: str) -> None:
    """Sessions as a table or as lines of JSON; if there are none, the words that say so."""
    if not infos:
        say(none, "dim")
    elif as_json:
        for info in infos:
            write_json(_session_json(info))
    else:
        _print_table(list(infos))


def show_session(target: Target, session_id: str, *, last: int | None, as_json: bool) -> None:
    """A conversation."""
    from ..errors import NotFoundError
    from ..formats import native

    with target.open() as store:
        info = store.get(session_id)
        if info is None:
            raise NotFoundError(session_id)
        messages = store.iterate(session_id, page_size=_PAGE) if last is None else iter(store.messages(session_id, last=last))
        if as_json:
            write_json(native.session_object(info))
            for message in messages:
                write_json(native.message_object(message))
        else:
            print_conversation(info, messages)


def show_state(target: Target, session_id: str, *, as_json: bool) -> None:
    """The values of a session, of its user and of its application."""
    from ..errors import NotFoundError
    from ..inputs import encode_json

    with target.open() as store:
        info = store.get(session_id)
        if info is None:
            raise NotFoundError(session_id)
        scopes = {
            scope: store.state(session_id, scope=scope) for scope in STATE_SCOPES if scope != "user" or info.user_id is not None
        }
    if as_json:
        write_json(scopes)
        return
    for scope, values in scopes.items():
        for name, value in values.items():
            output().print(Text(f"{scope:<7}  ", "dim"), Text(one_line(f"{name} = {encode_json(value)}")), sep="", soft_wrap=True)
    if not any(scopes.values()):
        say("no state", "dim")


def print_conversation(info: SessionInfo, messages: Iterator[Message]) -> None:
    """A conversation as a chat."""
    console = output()
    console.print(Text(one_line(info.title or info.session_id), "bold"), soft_wrap=True)
    console.print(Text(_about(info), "dim"), soft_wrap=True)
    for message in messages:
        console.print()
        console.print(_heading(message), soft_wrap=True)
        for text in _body(message):
            print_indented(console, text)


def _session_json(info: SessionInfo) -> dict[str, Any]:
    from ..formats import native

    return {name: value for name, value in native.session_object(info).items() if name != "type"}


def _all_pages(store: SessionStore, limit: int, filters: dict[str, Any]) -> Iterator[SessionInfo]:
    cursor = None
    while True:
        page = store.list(limit=limit, cursor=cursor, **filters)
        yield from page.items
        cursor = page.next_cursor
        if cursor is None:
            return


def _why_none(store: SessionStore, *, filtered: bool, later_page: bool) -> str:
    if later_page:
        return "no more sessions"
    if store.namespace in store.namespaces():
        return "no session matches" if filtered else "no sessions here but archived ones; see --archived"
    return ("no session matches" if filtered else "no sessions here") + other_namespaces(store)


def other_namespaces(store: SessionStore) -> str:
    """The namespaces that have sessions, if the store's own has none: to be put behind what says that nothing is there."""
    namespaces = store.namespaces()
    if store.namespace in namespaces or not namespaces:
        return ""
    shown = [shlex.quote(name) for name in namespaces[:_MOST_NAMESPACES]]
    more = len(namespaces) - len(shown)
    return f"; other namespaces have some: {', '.join(shown)}" + (f" and {more:,} more" if more else "") + "; see --namespace"


def _print_table(infos: list[SessionInfo]) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("SESSION", overflow="ellipsis")
    table.add_column("MESSAGES", justify="right", no_wrap=True)
    table.add_column("CHANGED", no_wrap=True)
    for name in ("STATUS", "AGENT", "USER", "TAGS", "TITLE"):
        table.add_column(name, overflow="ellipsis")
    for info in infos:
        cells = (info.session_id, str(info.message_count), _local(info.updated_at), info.status, info.agent_id, info.user_id,
                 ", ".join(info.tags), info.title)  # fmt: skip
        # A column that may wrap gives way where the terminal is narrow; its text is cut instead of being wrapped.
        table.add_row(*(Text(one_line(cell or ""), no_wrap=True, overflow="ellipsis") for cell in cells))
    print_trimmed(output(), table)


def _about(info: SessionInfo) -> str:
    facts = [info.session_id, info.status, counted(info.message_count, "message"), f"made {_local(info.created_at)}"]
    facts += [f"{name} {value}" for name, value in (("agent", info.agent_id), ("user", info.user_id)) if value]
    facts += ["tags " + ", ".join(info.tags)] if info.tags else []
    return one_line(" · ".join(facts))


def _heading(message: Message) -> Text:
    who = message.role or message.kind
    name = message.to_dict().get("name")
    facts = [f"#{message.seq}", _local(message.created_at)]
    facts += [form.format(getattr(message, field)) for field, form in _FACTS if getattr(message, field) is not None]
    heading = Text(one_line(who), _ROLE_STYLES.get(who, _OTHER_STYLE))
    if isinstance(name, str):
        heading.append(f" {one_line(name)}")
    return heading.append("  " + one_line(" · ".join(facts)), "dim")


def _body(message: Message) -> Iterator[Text]:
    from ..content import calls_of
    from ..formats import jsonlines

    if message.tool_call_id is not None:
        yield Text(one_line(f"answers {message.tool_call_id}"), "dim")
    if message.text:
        yield Text(harmless(message.text))
    if isinstance(message.content, list):
        for part in message.content:
            if not (isinstance(part, dict) and isinstance(part.get("text"), str)):
                yield Text(f"[{one_line(str(part.get('type', 'part') if isinstance(part, dict) else 'part'))}]", "dim")
    for call_id, name, arguments in calls_of(message.to_dict()):
        yield Text(one_line(f"calls {name or 'a tool'}({arguments or ''})"), "yellow").append(one_line(f"  {call_id}"), "dim")
    if message.role is None:
        yield Text(jsonlines.dumps(message.to_dict()), "dim")


def _local(instant: datetime) -> str:
    return instant.astimezone().strftime("%Y-%m-%d %H:%M:%S")
