# SPDX-License-Identifier: Apache-2.0
"""Fixtures of the engine's tests."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec

import pytest

from vision3d.sparse import backend


@pytest.fixture(params=["native", "reference"])
def engine(request: pytest.FixtureRequest) -> Iterator[str]:
    """Runs the test on the compiled engine and on the reference; its name."""
    if request.param == "native" and find_spec("vision3d.sparse._native") is None:
        pytest.skip("the compiled engine is not installed")
    with backend(request.param):
        yield request.param
