# SPDX-License-Identifier: Apache-2.0
"""One door to all backends: chosen by device, or by the user.

Order of precedence: ``with backend("reference"):``, the environment variable ``VISION3D_SPARSE_BACKEND``, the device
(CPU: native; CUDA: spconv when it is installed; anything else: reference).
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

from torch import Tensor

from vision3d.sparse.backends.base import Backend, SortedCoords, UniqueCoords

__all__ = ["ENV", "NAMES", "Backend", "SortedCoords", "UniqueCoords", "backend", "backend_for", "explain", "load"]

ENV = "VISION3D_SPARSE_BACKEND"
NAMES = ("native", "spconv", "reference")
_forced: list[str] = []
_loaded: dict[str, Backend] = {}


@contextmanager
def backend(name: str) -> Iterator[None]:
    """Use one backend for everything inside the block.

    Raises:
        ValueError: no such backend.
        ImportError: it is not available here; the message says why.
    """
    load(name)
    _forced.append(name)
    try:
        yield
    finally:
        _forced.pop()


def backend_for(tensor: Tensor) -> Backend:
    """The backend that handles tensors like this one.

    ``torch.compile`` guards on what ``with backend(...)`` says, so a change compiles anew; the environment variable is
    read when a graph is traced.
    """
    return _loaded[_forced[-1] if _forced else _default(tensor.device.type)]


def _default(device: str) -> str:
    name = _chosen(device)[0]
    load(name)
    return name


# What ``torch.compiler.assume_constant_result`` does; to call it would import the compiler with this module.
_default._dynamo_marked_constant = True  # type: ignore[attr-defined]


def load(name: str) -> Backend:
    """A backend by name. Raises ``ValueError`` for an unknown one, ``ImportError`` for one that is not available."""
    if name not in _loaded:
        _loaded[name] = _imported(name)
    return _loaded[name]


def _imported(name: str) -> Backend:
    if name == "native":
        from vision3d.sparse.backends.native import NativeBackend

        return NativeBackend()
    if name == "reference":
        from vision3d.sparse.backends.reference import ReferenceBackend

        return ReferenceBackend()
    if name == "spconv":
        from vision3d.sparse.backends.spconv import SpconvBackend

        return SpconvBackend()
    raise ValueError(f"unknown sparse backend {name!r}; there are: {', '.join(NAMES)}")


def explain(device: str = "cpu") -> str:
    """Which backend handles a device ("cpu", "cuda", ...) and why, in one line."""
    name, reason = _chosen(device, warn=False)
    return f"{name} ({reason})"


def _chosen(device: str, warn: bool = True) -> tuple[str, str]:
    if _forced:
        return _forced[-1], "chosen by `with backend(...)`"
    named = os.environ.get(ENV, "")
    if named:
        if named not in NAMES:
            raise ValueError(f"{ENV}={named}: there is no such backend; there are: {', '.join(NAMES)}")
        return named, f"chosen by {ENV}"
    if device == "cpu":
        if _has_native():
            return "native", "tensors on the CPU"
        if warn:
            _warn_once(
                "vision3d was installed without its compiled engine; sparse layers use the slow reference backend. "
                "Install a C++ compiler and run `pip install --force-reinstall --no-deps vision3d`"
            )
        return "reference", "the compiled engine is not installed"
    if device == "cuda":
        if importlib.util.find_spec("spconv") is not None:
            return "spconv", "tensors on a CUDA device"
        if warn:
            _warn_once(
                "spconv is not installed; sparse layers on CUDA use the slow reference backend. "
                "Install it with `pip install 'vision3d[cuda]'`"
            )
        return "reference", "tensors on a CUDA device, and spconv is not installed"
    return "reference", f"tensors on {device}, for which there is no faster backend"


@cache
def _has_native() -> bool:
    try:
        importlib.import_module("vision3d.sparse._native")
    except ImportError:
        return False
    return True


@cache
def _warn_once(message: str) -> None:
    warnings.warn(message, RuntimeWarning, stacklevel=4)
