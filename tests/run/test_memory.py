# SPDX-License-Identifier: Apache-2.0
"""The memory that a step needs: seen although it is given back before the end, and known on Linux only."""

from __future__ import annotations

import gc
import sys
from pathlib import Path

import numpy as np
import pytest

from vision3d.run import memory
from vision3d.run.memory import PeakMemory


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc is Linux's")
def test_memory_that_was_given_back_counts() -> None:
    peak = PeakMemory()
    if not peak_is_known(peak):
        pytest.skip("this system keeps /proc/self/clear_refs closed")
    gc.collect()  # what earlier tests left must not be given back in the middle of the measurement
    peak.start()
    large = np.ones(10_000_000)  # 80 MB, touched
    del large
    assert 70 < (peak.stop_mb() or 0.0) < 120
    # and what was needed before the start does not
    peak.start()
    assert (peak.stop_mb() or 0.0) < 20


def peak_is_known(peak: PeakMemory) -> bool:
    peak.start()
    return peak.stop_mb() is not None


def test_where_it_is_not_known_it_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_CLEAR", tmp_path / "absent/clear_refs")
    assert not peak_is_known(PeakMemory())
    monkeypatch.setattr(memory, "_CLEAR", tmp_path / "clear_refs")
    monkeypatch.setattr(memory, "_STATUS", tmp_path / "status")
    (tmp_path / "status").write_text("Name:\tpython\n")
    assert not peak_is_known(PeakMemory())
    assert PeakMemory().stop_mb() is None
