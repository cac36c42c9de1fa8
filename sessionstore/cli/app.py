"""The verbs and their options, and the one place where errors become a line and an exit code."""

from __future__ import annotations

import functools
import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Final, Literal

import typer

from ..errors import InvalidInputError, NotFoundError, SessionStoreError, WrongKeyError
from ..formats import ExportFormat, ImportFormat
from .branching import FORK_EXAMPLES, fork
from .ciphering import KeyFile, add_verbs, without_python
from .console import WRONG_USAGE, complain, one_line, prepare_stdout
from .copying import COPY_EXAMPLES, copy
from .draining import EXAMPLES as DRAIN_EXAMPLES
from .draining import drain
from .erasing import ERASE_EXAMPLES, erase
from .outbox import outbox
from .pointing import EXAMPLES as REMOTE_EXAMPLES
from .pointing import remote
from .safekeeping import BACKUP_EXAMPLES, RESTORE_EXAMPLES, VACUUM_EXAMPLES, backup, restore, vacuum
from .searching import SEARCH_EXAMPLES, search
from .target import Target

PROGRAM: Final = "sessionstore"
FAILED: Final = 1

app = typer.Typer(
    name=PROGRAM,
    help="Look into, fill and check a file of agent conversations.",
    epilog="Try it in five seconds:  sessionstore demo\n\n"
    "Exit codes: 0 done, 1 a failed check or store error, 2 wrong usage. Data go to stdout, everything else to stderr.",
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Json = Annotated[bool, typer.Option("--json", help="Write JSON instead of text.")]
Csv = Annotated[bool, typer.Option("--csv", help="Write CSV with a line of names.")]
AsTable = Annotated[bool, typer.Option("--table", help="Write a table, as without any option.")]
Agent = Annotated[str | None, typer.Option("--agent", metavar="ID", help="Only those of this agent.")]
User = Annotated[str | None, typer.Option("--user", metavar="ID", help="Only those of this user.")]
Status = Annotated[
    Literal["open", "completed", "failed", "expired"] | None, typer.Option("--status", help="Only those in this state.")
]
Tags = Annotated[list[str] | None, typer.Option("--tag", metavar="TAG", help="Only those with this tag. May be repeated.")]
Words = Annotated[
    str | None, typer.Option("--text", metavar="WORDS", help="Only those with these words in a message or the title.")
]
Since = Annotated[
    str | None,
    typer.Option("--since", metavar="WHEN", help="Only those changed since: 90m, 12h, 7d, 2w, a date or an ISO 8601 time."),
]

# What an argument of the library is called does not help who wrote a command.
_NAMED_BY_THEMSELVES: Final = ("source", "target")
_GLOBAL_OPTIONS: Final = ("--store", "--namespace", "--key-file")


app.add_typer(outbox, name="outbox")
app.command("drain", epilog=DRAIN_EXAMPLES)(drain)
app.command("remote", epilog=REMOTE_EXAMPLES)(remote)
app.command("fork", epilog=FORK_EXAMPLES)(fork)
app.command("search", epilog=SEARCH_EXAMPLES)(search)
app.command("backup", epilog=BACKUP_EXAMPLES)(backup)
app.command("restore", epilog=RESTORE_EXAMPLES)(restore)
app.command("copy", epilog=COPY_EXAMPLES)(copy)
app.command("erase", epilog=ERASE_EXAMPLES)(erase)
app.command("vacuum", epilog=VACUUM_EXAMPLES)(vacuum)
add_verbs(app)


def run(arguments: Sequence[str] | None) -> int:
    """Run the command line. Errors are one line on stderr, never a traceback."""
    prepare_stdout()
    with warnings.catch_warnings():
        warnings.showwarning = _show_warning
        return _run(arguments)


def _run(arguments: Sequence[str] | None) -> int:
    try:
        code = app(args=hoisted(sys.argv[1:] if arguments is None else arguments), prog_name=PROGRAM, standalone_mode=False)
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader has seen enough. Python would complain when it flushes stdout at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except typer.TyperException as error:
        context = getattr(error, "ctx", None)
        words = error.format_message().removeprefix("Invalid value: ").rstrip(".").replace("Value error, ", "", 1)
        complain(f"{words}; see: {context.command_path if context else PROGRAM} --help")
        return error.exit_code
    except NotFoundError as error:
        complain(f"there is no session {error.session_id!r}; see: {PROGRAM} sessions")
    except InvalidInputError as error:
        complain(error.reason if error.field in _NAMED_BY_THEMSELVES else str(error))
        # What a file holds is not the fault of the command line.
        return FAILED if error.field == "source" else WRONG_USAGE
    except WrongKeyError as error:
        complain(without_python(str(error)))
    except SessionStoreError as error:
        complain(str(error))
    except OSError as error:
        complain(f"{error.filename}: {error.strerror}" if error.filename is not None else str(error))
    else:
        return code if isinstance(code, int) else 0
    return FAILED


def hoisted(arguments: Sequence[str]) -> list[str]:
    """The arguments with the options of the store before the verb, wherever they stood before a `--`."""
    first: list[str] = []
    rest: list[str] = []
    given = iter(arguments)
    for word in given:
        name, equals, _ = word.partition("=")
        if word == "--":
            rest += [word, *given]
        elif name in _GLOBAL_OPTIONS:
            value = None if equals else next(given, None)
            first += [word] if value is None else [word, value]
            if not equals and value is None:
                # Nothing may follow, or it would be taken for the value that is missing.
                return first
        else:
            rest.append(word)
            if word in _options_with_value():
                rest += [value for value in (next(given, None),) if value is not None]
    return first + rest


@functools.cache
def _options_with_value() -> frozenset[str]:
    verbs = list(typer.main.get_command(app).commands.values())  # type: ignore[attr-defined]
    verbs += [each for verb in verbs for each in getattr(verb, "commands", {}).values()]
    options = [option for verb in verbs for option in verb.params if not getattr(option, "is_flag", True)]
    return frozenset(name for option in options for name in option.opts)


def _show_warning(message: Warning | str, *_: object, **__: object) -> None:
    sys.stderr.write(f"warning: {one_line(str(message))}\n")


def _version(wanted: bool) -> None:
    if wanted:
        import sessionstore

        sys.stdout.write(f"{PROGRAM} {sessionstore.__version__}\n")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _options(
    context: typer.Context,
    store: Annotated[
        str | None,
        typer.Option(
            "--store",
            metavar="PATH_OR_URL",
            help="The store: a path or an sqlite:/// URL. By default SESSIONSTORE_URL, else a file in the user's data folder.",
        ),
    ] = None,
    namespace: Annotated[str, typer.Option("--namespace", metavar="NS", help="The namespace of the sessions.")] = "",
    key_file: KeyFile = None,
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")] = False,
) -> None:
    del version
    context.obj = Target(store, namespace, key_file)
    if context.invoked_subcommand is None:
        context.get_help()


@app.command("demo", epilog="Example:  sessionstore demo --path /tmp/try-it")
def _demo(
    path: Annotated[
        Path | None,
        typer.Option("--path", metavar="FOLDER", help="Where to put the demo's file. By default a new temporary folder."),
    ] = None,
) -> None:
    """Record conversations, kill the program that writes, and see that nothing is lost."""
    from .demo import run_demo

    raise typer.Exit(run_demo(path))


@app.command("path", epilog='Example:  ls -l "$(sessionstore path)"')
def _path(context: typer.Context, json: Json = False) -> None:
    """Tell where the store is. Nothing is created."""
    from .looking import show_path

    show_path(context.obj, as_json=json)


@app.command("status", epilog="Example:  sessionstore --store agent.db status --json")
def _status(
    context: typer.Context,
    storage: Annotated[
        bool, typer.Option("--storage", help="Also what compression and blobs save; looks at every message.")
    ] = False,
    json: Json = False,
) -> None:
    """Show sizes, counts and how the file is kept safe."""
    from .looking import show_status

    show_status(context.obj, storage=storage, as_json=json)


@app.command("doctor", epilog="Example:  sessionstore doctor || echo 'restore a backup'")
def _doctor(context: typer.Context, json: Json = False) -> None:
    """Look at every page and message for damage; exit code 1 if a check fails."""
    from .looking import show_diagnosis

    raise typer.Exit(show_diagnosis(context.obj, as_json=json))


@app.command(
    "sessions",
    epilog="Examples:\n\n  sessionstore sessions --agent helper --since 7d\n\n"
    "  sessionstore sessions --all --json | jq -r .session_id",
)
def _sessions(
    context: typer.Context,
    *,
    agent: Agent = None,
    user: User = None,
    status: Status = None,
    tag: Tags = None,
    text: Words = None,
    since: Since = None,
    until: Annotated[str | None, typer.Option("--until", metavar="WHEN", help="Only those changed before: as for --since.")] = None,
    metadata: Annotated[
        list[str] | None,
        typer.Option("--metadata", metavar="KEY=VALUE", help="Only those with this value: JSON, else text. May be repeated."),
    ] = None,
    pinned: Annotated[bool, typer.Option("--pinned", help="Only pinned ones.")] = False,
    archived: Annotated[bool, typer.Option("--archived", help="Only archived ones.")] = False,
    limit: Annotated[int, typer.Option("--limit", min=1, max=1000, help="How many to list at most.")] = 50,
    cursor: Annotated[str | None, typer.Option("--cursor", metavar="CURSOR", help="Go on where an earlier list ended.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="List all of them, page after page.")] = False,
    json: Json = False,
) -> None:
    """List sessions, last changed first. Archived ones are left out."""
    from .looking import Choice, list_sessions

    if everything and cursor is not None:
        raise typer.BadParameter("--all and --cursor exclude each other.")
    choice = Choice(
        agent=agent, user=user, status=status, tags=tag, text=text, since=since, until=until, metadata=metadata, pinned=pinned,
        archived=archived,
    )  # fmt: skip
    list_sessions(context.obj, choice, limit=limit, cursor=cursor, everything=everything, as_json=json)


@app.command(
    "show", epilog="Examples:\n\n  sessionstore show user-alice --last 10\n\n  sessionstore show user-alice --json | jq .message"
)
def _show(
    context: typer.Context,
    session_id: Annotated[str, typer.Argument(metavar="ID", help="The session.")],
    last: Annotated[int | None, typer.Option("--last", min=0, metavar="N", help="Only the newest N messages.")] = None,
    state: Annotated[bool, typer.Option("--state", help="The state instead of the messages.")] = False,
    json: Json = False,
) -> None:
    """Show a conversation."""
    from .looking import show_session, show_state

    if state:
        show_state(context.obj, session_id, as_json=json)
    else:
        show_session(context.obj, session_id, last=last, as_json=json)


@app.command(
    "stats",
    epilog="Examples:\n\n  sessionstore stats --since 7d --by day\n\n  sessionstore stats --agent helper --json",
)
def _stats(
    context: typer.Context,
    *,
    agent: Agent = None,
    since: Annotated[
        str | None,
        typer.Option("--since", metavar="WHEN", help="What began since: 90m, 12h, 7d, 2w, a date or an ISO 8601 time."),
    ] = None,
    until: Annotated[str | None, typer.Option("--until", metavar="WHEN", help="What began before: as for --since.")] = None,
    by: Annotated[
        Literal["agent", "hour", "day", "week", "month"],
        typer.Option("--by", help="A row for each agent, or each stretch of time."),
    ] = "agent",
    json: Annotated[bool, typer.Option("--json", help="Write all figures as one JSON object.")] = False,
    as_csv: Csv = False,
    as_table: AsTable = False,
) -> None:
    """Show how well agents work: success, quality, response times, tokens."""
    from .figures import form_of, show_stats

    form = form_of(as_json=json, as_csv=as_csv, as_table=as_table)
    show_stats(context.obj, agent=agent, since=since, until=until, by=by, form=form)


@app.command(
    "query",
    epilog='Examples:\n\n  sessionstore query "SELECT * FROM v_success_daily"\n\n'
    '  sessionstore query "SELECT * FROM v_messages WHERE agent_id = :agent" --param agent=helper --csv\n\n'
    "The views are described in docs/schema.md.",
)
def _query(
    context: typer.Context,
    sql: Annotated[str, typer.Argument(metavar="SQL", help="One SELECT. - reads it from stdin.")],
    *,
    param: Annotated[
        list[str] | None, typer.Option("--param", metavar="NAME=VALUE", help="The value of :NAME in the SQL. May be repeated.")
    ] = None,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="At most so many rows.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Write a JSON object a row.")] = False,
    as_csv: Csv = False,
    as_table: AsTable = False,
) -> None:
    """Run SQL that only reads: over the views v_sessions, v_messages, v_success_daily and others, or the tables."""
    from .figures import form_of, run_query

    form = form_of(as_json=json, as_csv=as_csv, as_table=as_table)
    run_query(context.obj, sql, parameters=param or [], limit=limit, form=form)


@app.command(
    "import",
    epilog="Examples:\n\n  sessionstore import chats.jsonl.gz\n\n  cat backup.jsonl | sessionstore import - --on-conflict skip\n\n"
    '  sessionstore import ~/.go-deep-agent/memories "$(llm logs path)"',
)
def _import(
    context: typer.Context,
    files: Annotated[list[str], typer.Argument(metavar="FILE", help="Files, JSONL plain or gzip; - is stdin.")],
    file_format: Annotated[
        ImportFormat,
        typer.Option("--format", help="The layout; by default the first line, or the kind of path, tells."),
    ] = "auto",
    on_conflict: Annotated[
        Literal["fail", "skip", "replace", "new-id", "merge"],
        typer.Option("--on-conflict", help="What to do with a session whose id is taken."),
    ] = "fail",
    session_id: Annotated[
        str | None,
        typer.Option("--session-id", metavar="ID", help="The id for a file that holds one session; its name by default."),
    ] = None,
) -> None:
    """Store the conversations of files of this or other programs; each one is a transaction."""
    from .moving import import_files

    if session_id is not None and len(files) > 1:
        raise typer.BadParameter("--session-id goes with one FILE.")
    import_files(context.obj, files, file_format=file_format, on_conflict=on_conflict, session_id=session_id)


@app.command(
    "export",
    epilog="Examples:\n\n  sessionstore export -o backup.jsonl.gz\n\n"
    "  sessionstore export --format openai --tag good > train.jsonl\n\n"
    "  sessionstore export --format parquet --view v_messages -o messages.parquet",
)
def _export(
    context: typer.Context,
    session_ids: Annotated[list[str] | None, typer.Argument(metavar="ID", help="Only these sessions; else all.")] = None,
    *,
    target: Annotated[
        str,
        typer.Option(
            "-o", "--output", metavar="FILE", help="Where to write, a folder for go-deep-agent; .gz is compressed. - is stdout."
        ),
    ] = "-",
    file_format: Annotated[
        ExportFormat,
        typer.Option("--format", help="The layout; sessionstore loses nothing, csv and parquet hold a view."),
    ] = "sessionstore",
    view: Annotated[
        str | None, typer.Option("--view", metavar="VIEW", help="The view, such as v_messages, whose rows csv and parquet hold.")
    ] = None,
    all_namespaces: Annotated[bool, typer.Option("--all-namespaces", help="The sessions of every namespace.")] = False,
    agent: Agent = None,
    user: User = None,
    status: Status = None,
    tag: Tags = None,
    text: Words = None,
    since: Since = None,
) -> None:
    """Write sessions, or a view, to a file as they are at one moment."""
    from .looking import Choice
    from .moving import export_sessions

    choice = Choice(agent=agent, user=user, status=status, tags=tag, text=text, since=since)
    if session_ids and choice.filters():
        raise typer.BadParameter("give either IDs or filters.")
    if all_namespaces and (session_ids or (file_format != "sessionstore" and view is None)):
        raise typer.BadParameter("--all-namespaces goes with the format sessionstore, without IDs, or with --view.")
    options = {"format": file_format, "view": view, "all_namespaces": all_namespaces}
    export_sessions(context.obj, target, choice, session_ids, options)


@app.command(
    "serve",
    epilog="Examples:\n\n  sessionstore serve --db collected.db\n\n"
    "  sessionstore serve --db collected.db --api-key-file keys.txt --host 0.0.0.0",
)
def _serve(
    context: typer.Context,
    *,
    db: Annotated[
        str | None, typer.Option("--db", metavar="PATH_OR_URL", help="The store that receives; the same as --store.")
    ] = None,
    api_key_file: Annotated[
        Path | None,
        typer.Option("--api-key-file", metavar="FILE", help="The API keys, KEY or TENANT KEY a line. Only its owner may read it."),
    ] = None,
    host: Annotated[
        str, typer.Option("--host", metavar="ADDRESS", help="Where to listen; other addresses than this machine's need keys.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, metavar="PORT", help="0 picks a free one.")] = 8787,
    allowed_hosts: Annotated[
        list[str] | None,
        typer.Option("--allowed-host", metavar="NAME", help="A name that requests may be sent to, as of a proxy. Repeatable."),
    ] = None,
) -> None:
    """Run a collector: receive what other stores and trackers send, and answer questions about it."""
    from .serving import serve

    serve(context.obj, db=db, key_file=api_key_file, host=host, port=port, allowed_hosts=allowed_hosts or ())


@app.command("upgrade", epilog="Example:  sessionstore --store old.db upgrade")
def _upgrade(context: typer.Context) -> None:
    """Bring the file to this version's schema, after a backup of it."""
    from .moving import upgrade

    upgrade(context.obj)
