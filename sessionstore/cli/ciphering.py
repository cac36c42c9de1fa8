"""The verbs about encryption: encrypt, decrypt, rekey and new-key."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from ..keys import VARIABLE
from .console import counted, plain, say, size, write_json

if TYPE_CHECKING:
    from ..keys import EncryptionKey
    from ..values.receipts import ConversionReceipt
    from .target import Target

_ENCRYPT: Final = "Example:\n\n  sessionstore new-key agent.key\n\n  sessionstore --key-file agent.key encrypt agent.db"
_DECRYPT: Final = "Example:\n\n  sessionstore --key-file agent.key decrypt agent.db"
_REKEY: Final = "Example:\n\n  sessionstore --key-file agent.key rekey agent.db --new-key-file new.key"
_NEW_KEY: Final = "Example:\n\n  sessionstore new-key agent.key"

KeyFile = Annotated[
    Path | None,
    typer.Option(
        "--key-file",
        metavar="FILE",
        help="The key of an encrypted store: hex or base64 of 32 bytes. Only its owner may read it. By default SESSIONSTORE_KEY.",
    ),
]
Database = Annotated[Path | None, typer.Argument(metavar="PATH", help="The store; by default what --store names.")]
Json = Annotated[bool, typer.Option("--json", help="Write the receipt as JSON.")]


def encrypt(context: typer.Context, path: Database = None, *, json: Json = False) -> None:
    """Encrypt a store that no program has open. Keep the key well: without it nobody can read the store again."""
    from ..encrypting import encrypt_file

    receipt = encrypt_file(_path(context.obj, path), _key(context.obj))
    _report(receipt, as_json=json)


def decrypt(context: typer.Context, path: Database = None, *, json: Json = False) -> None:
    """Make an encrypted store plain again, which no program may have open."""
    from ..encrypting import decrypt_file

    receipt = decrypt_file(_path(context.obj, path), _key(context.obj))
    _report(receipt, as_json=json)


def rekey(
    context: typer.Context,
    path: Database = None,
    *,
    new_key_file: Annotated[Path, typer.Option("--new-key-file", metavar="FILE", help="The key that it gets; see new-key.")],
) -> None:
    """Encrypt a store with another key. No other program may have it open."""
    import sessionstore

    place = _path(context.obj, path)
    key = sessionstore.file_key(new_key_file).resolved()
    with sessionstore.open(place, key=_key(context.obj), must_exist=True, migrate=False, remote=None) as store:
        store.rekey(key)
    say(f"{place}: has the key in {new_key_file} now; older backups have the old one")


def new_key(file: Annotated[Path, typer.Argument(metavar="FILE", help="Where to; a file that is there is refused.")]) -> None:
    """Write a new random key to a file that only its owner can read. Copy it to a safe place, away from the store."""
    import sessionstore

    if os.path.lexists(file):
        raise typer.BadParameter(f"{file} is there already; a key is never overwritten.", param_hint="FILE")
    sessionstore.create_key_file(file)
    say(f"{file}: a new key. Copy it to a safe place: without it nobody can read what it encrypts")


def add_verbs(app: typer.Typer) -> None:
    """Make the verbs of this module an app's."""
    app.command("encrypt", epilog=_ENCRYPT)(encrypt)
    app.command("decrypt", epilog=_DECRYPT)(decrypt)
    app.command("rekey", epilog=_REKEY)(rekey)
    app.command("new-key", epilog=_NEW_KEY)(new_key)


def without_python(text: str) -> str:
    """What is said of a wrong key, without how a program would give another one."""
    return text.replace("key=..., ", "").replace(" (key=None)", "")


def _path(target: Target, path: Path | None) -> Path:
    if path is not None and target.location is not None:
        raise typer.BadParameter("give either PATH or --store.")
    return target.path() if path is None else path


def _key(target: Target) -> EncryptionKey:
    import sessionstore

    if target.key_file is not None:
        return sessionstore.file_key(target.key_file)
    if not os.environ.get(VARIABLE):
        raise typer.BadParameter(f"name the key: --key-file FILE, or the environment variable {VARIABLE}; new-key makes one.")
    return sessionstore.environment_key()


def _report(receipt: ConversionReceipt, *, as_json: bool) -> None:
    if as_json:
        write_json(plain(receipt))
    else:
        held = f"{counted(receipt.sessions, 'conversation')}, {counted(receipt.messages, 'message')}, {size(receipt.size_bytes)}"
        say(f"{receipt.path}: {'encrypted' if receipt.encrypted else 'decrypted'}; {held}")
    for copy in receipt.plain_copies:
        say(f"still plain, from before an upgrade or a restore: {copy}")
