# SPDX-License-Identifier: Apache-2.0
"""A folder for results that are slow to compute, found again by the content that they were computed from."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path


def cache_root() -> Path:
    """``$VISION3D_CACHE``, else ``~/.cache/vision3d``."""
    return Path(os.environ.get("VISION3D_CACHE") or Path.home() / ".cache" / "vision3d")


def content_key(files: Iterable[Path], *settings: object) -> str:
    """Hash of the files' names and bytes and of the settings' text."""
    digest = hashlib.sha256(repr(settings).encode())
    for path in files:
        digest.update(f"\0{path.name}\0{path.stat().st_size}\0".encode())
        with path.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()[:32]


def cached_folder(kind: str, key: str, make: Callable[[Path], None]) -> Path:
    """The folder ``kind/key`` of the cache; filled by ``make(folder)`` if it is not there yet.

    The folder appears under its name only when complete, so a killed run leaves nothing that looks finished.
    """
    target = cache_root() / kind / key
    if target.is_dir():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{key[:8]}-", dir=target.parent) as work:
        inner = Path(work) / "out"
        inner.mkdir()
        make(inner)
        try:
            os.replace(inner, target)
        except OSError:
            # Another process finished the same content first; its result is as good.
            if not target.is_dir():
                raise
            shutil.rmtree(inner, ignore_errors=True)
    return target
