"""Where zstd comes from: from Python itself, or for older Pythons from its package, which may be missing."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from types import ModuleType


@cache
def zstd() -> ModuleType | None:
    """The module that packs and unpacks zstd; None if there is none."""
    for name in ("compression.zstd", "backports.zstd"):
        try:
            return import_module(name)
        except ImportError:
            continue
    return None
