# SPDX-License-Identifier: Apache-2.0
"""Fixtures that every part of the tests shares."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

os.environ.setdefault("OPENCV_LOG_LEVEL", "ERROR")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# A new example is welcome at a desk; what is submitted is judged by the same ones every time.
settings.register_profile("ci", derandomize=True)
if os.environ.get("CI"):
    settings.load_profile("ci")
ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data beside the checkout; tests that need it are skipped without it."""
    folder = Path(os.environ.get("VISION3D_TEST_DATA", SHARED / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder} (set VISION3D_TEST_DATA)")
    return folder


@pytest.fixture(scope="session")
def weights() -> Path:
    """The folder of network weights; tests that need it are skipped without it."""
    folder = Path(os.environ.get("VISION3D_WEIGHTS", SHARED / "weights"))
    if not folder.is_dir():
        pytest.skip(f"no network weights at {folder} (set VISION3D_WEIGHTS)")
    return folder
