# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import subprocess
import sys

import pytest

from vision3d.errors import ConfigError
from vision3d.voxels.marching import Marching


def test_the_shift_is_that_of_the_published_code() -> None:
    assert Marching().shift == pytest.approx(-4.5951, abs=1e-4)
    first_opacity = 1 - (1 + 2.718281828 ** Marching().shift) ** -0.1
    assert first_opacity == pytest.approx(0.0010045, abs=1e-7)


@pytest.mark.parametrize("bad", [{"step": 0.0}, {"samples": -1}, {"alpha0": 1.0}, {"early_stop": 1.0}])
def test_values_out_of_range_are_named(bad: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(bad))):
        Marching(**bad)  # type: ignore[arg-type]


def test_configs_can_hold_it_without_torch() -> None:
    code = "import sys, vision3d.voxels.marching; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
