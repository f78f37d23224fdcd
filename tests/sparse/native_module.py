# SPDX-License-Identifier: Apache-2.0
"""Puts another build of the compiled engine (one with sanitizers, say) in place of the installed one.

As a pytest plugin, with the path of the shared object in ``VISION3D_NATIVE_MODULE``::

    VISION3D_NATIVE_MODULE=build/asan/_native.so python -m pytest -p tests.sparse.native_module tests/sparse
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import os
import sys
from types import ModuleType

NAME = "vision3d.sparse._native"


def use(path: str) -> ModuleType:
    """Loads the module from this file, before anything imports the installed one.

    Raises:
        RuntimeError: one is loaded already.
    """
    if NAME in sys.modules:
        raise RuntimeError(f"{NAME} is loaded already, from {sys.modules[NAME].__file__}")
    loader = importlib.machinery.ExtensionFileLoader(NAME, path)
    spec = importlib.util.spec_from_file_location(NAME, path, loader=loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[NAME] = module
    loader.exec_module(module)
    return module


if os.environ.get("VISION3D_NATIVE_MODULE"):
    use(os.environ["VISION3D_NATIVE_MODULE"])
