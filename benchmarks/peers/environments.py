"""A virtual environment for each peer, made by venv and pip when it is missing or its requirements have changed."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
import tomllib
import venv
from collections.abc import Callable
from functools import cache
from pathlib import Path

import platformdirs

from .catalog import Peer

_ROOT = Path(__file__).parent.parent.parent
_STAMP = "requirements"
_VERSIONS = "import importlib.metadata as m, json, sys; print(json.dumps({n: m.version(n) for n in sys.argv[1:]}))"

# The interpreter that a peer runs in.
Interpreters = Callable[[Peer], Path]


def default_folder() -> Path:
    """Where environments are kept from run to run."""
    return platformdirs.user_cache_path("sessionstore") / "peers"


def in_folder(folder: Path) -> Interpreters:
    """Environments of their own, made where they are missing."""

    @cache
    def interpreter(peer: Peer) -> Path:
        place = folder / peer.name
        python = place / ("Scripts" if sys.platform == "win32" else "bin") / "python"
        stamp = place / _STAMP
        wanted = _fingerprint(peer)
        if not stamp.exists() or stamp.read_text() != wanted:
            print(f"making the environment of {peer.name} in {place}", file=sys.stderr, flush=True)
            shutil.rmtree(place, ignore_errors=True)
            venv.create(place, with_pip=True)
            subprocess.run([str(python), "-m", "pip", "install", "--quiet", *_arguments(peer)], check=True, stdout=sys.stderr)
            stamp.write_text(wanted)
        return python

    return interpreter


def always(python: Path) -> Interpreters:
    """One environment for all, which has what is needed."""
    return lambda _: python


def version(python: Path, peer: Peer) -> str:
    """The version of a peer in its environment."""
    told = subprocess.run([str(python), "-c", _VERSIONS, peer.main], check=True, capture_output=True, text=True).stdout
    return str(json.loads(told)[peer.main])


def _arguments(peer: Peer) -> list[str]:
    if peer.extra is None:
        return list(peer.requires)
    project = f"{_ROOT}[{peer.extra}]" if peer.extra else str(_ROOT)
    return [*peer.requires, "--editable", project]


def _fingerprint(peer: Peer) -> str:
    said = [sys.version, *_arguments(peer)]
    if peer.extra is not None:
        # What the package needs; the rest of the file is of no interest here.
        said.append(repr(tomllib.loads((_ROOT / "pyproject.toml").read_text())["project"]))
    return hashlib.sha256("\n".join(said).encode()).hexdigest()
