# SPDX-License-Identifier: Apache-2.0
"""Options of the fitted network: out of range is one line that names the field, and no torch is needed to say so."""

from __future__ import annotations

import subprocess
import sys

import pytest

from scene_flow.classical.nsfp_config import NsfpConfig
from vision3d.errors import ConfigError


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("variant", "slow"), ("points", -1), ("iterations", 0), ("patience", -1), ("learning_rate", 0.0),
        ("truncate_m2", 0.0), ("cell_m", 0.0), ("cell_m", float("nan")), ("field_mb", 0),
    ],
)  # fmt: skip
def test_out_of_range_is_named(field: str, value: object) -> None:
    with pytest.raises(ConfigError, match=rf"^nsfp\.{field} is "):
        NsfpConfig(**{field: value})  # type: ignore[arg-type]


def test_patience_of_the_variants() -> None:
    assert NsfpConfig().steps_without_gain == 100 and NsfpConfig(variant="fast").steps_without_gain == 30
    assert NsfpConfig(variant="fast", patience=7).steps_without_gain == 7


def test_needs_no_torch() -> None:
    code = "import sys; import scene_flow.classical.nsfp_config; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
