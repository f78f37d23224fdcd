# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import pytest
from layouts import Posed

from vision3d.contracts import DataConfig
from vision3d.readers.synthetic import SPEC


def _frames(source: str) -> Posed:
    reader = SPEC.open(source, DataConfig())
    return [(reader[i], reader.truth(i).T_world_cam) for i in range(len(reader))]


@pytest.fixture(scope="session")
def small() -> Posed:
    """Four frames of 160x120 with depth and pose."""
    return _frames("synthetic:room?frames=4&width=160&height=120&noise=0")


@pytest.fixture(scope="session")
def vga() -> Posed:
    """Four frames of 640x480, the size that 7-Scenes and TUM prescribe."""
    return _frames("synthetic:room?frames=4&noise=0")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder of its own."""
    monkeypatch.setenv("VISION3D_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"
