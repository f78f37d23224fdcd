# SPDX-License-Identifier: Apache-2.0
"""Options of the classical methods: out of range is one line that names the field, and no torch is needed to say so."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from scene_flow.classical.config import ClusterConfig, EgoConfig, GroundConfig, IcpConfig
from vision3d.errors import ConfigError

SECTIONS: dict[str, Any] = {"ground": GroundConfig, "icp": IcpConfig, "ego": EgoConfig, "cluster": ClusterConfig}
NAN = float("nan")


@pytest.mark.parametrize(
    ("section", "field", "value"),
    [
        ("ground", "height_m", 0.0), ("ground", "height_m", NAN), ("ground", "cell_m", 0.01),
        ("ground", "knot_m", 0.0), ("ground", "stiffness", 0.0), ("ground", "scale_m", 0.0), ("ground", "range_m", 0.0),
        ("icp", "voxel_m", 0.0), ("icp", "coarse_voxel_m", -1.0), ("icp", "radius_m", 0.0), ("icp", "radius_m", NAN),
        ("icp", "coarse_radius_m", 0.0), ("icp", "yaw_starts", 0), ("icp", "good_fitness", 1.1), ("icp", "threads", 0),
        ("ego", "gate_m", -0.1), ("ego", "min_fitness", 1.5), ("ego", "min_fitness", -0.5),
        ("cluster", "radius_m", 0.0), ("cluster", "splits", -1), ("cluster", "splits", 6),
        ("cluster", "thin_m", 0.0), ("cluster", "min_points", 1), ("cluster", "max_extent_m", 0.0),
        ("cluster", "max_points", 0), ("cluster", "max_speed_mps", 0.0), ("cluster", "min_speed_mps", -1.0),
        ("cluster", "seeds", 0), ("cluster", "refined", 0), ("cluster", "noise_m", 0.0), ("cluster", "reach_m", 0.0),
        ("cluster", "max_cost", 1.1), ("cluster", "min_gain", -0.1), ("cluster", "min_gain_points", -1.0),
    ],
)  # fmt: skip
def test_out_of_range_is_named(section: str, field: str, value: float) -> None:
    with pytest.raises(ConfigError, match=rf"^{section}\.{field} is .*between") as error:
        SECTIONS[section](**{field: value})
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("section", SECTIONS)
def test_defaults_are_in_range(section: str) -> None:
    SECTIONS[section]()


def test_bounds_themselves_are_allowed() -> None:
    assert EgoConfig(gate_m=0.0, min_fitness=1.0).gate_m == 0
    assert IcpConfig(yaw_starts=1).yaw_starts == 1
    assert ClusterConfig(splits=0, min_gain=0.0, min_points=2).min_points == 2


def test_needs_no_torch() -> None:
    code = "import sys; import scene_flow.classical.config; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
