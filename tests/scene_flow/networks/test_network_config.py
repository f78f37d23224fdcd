# SPDX-License-Identifier: Apache-2.0
"""Options of the networks: ranges, what a stored network remembers, and that they cost no import of torch."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from scene_flow.networks.config import (
    ARCHITECTURE,
    NetworkConfig,
    TransportConfig,
    architecture_of,
    with_architecture,
)
from vision3d.errors import ConfigError


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"voxel_size_m": 0.0}, "network.voxel_size_m is 0.0: must lie between 0.001 and 10"),
        ({"size": "huge"}, "network.size is 'huge': must be one of full, small"),
        ({"representative": "max"}, "network.representative is 'max': must be one of mean, first"),
        ({"features": "cnn"}, "network.features is 'cnn': must be one of unet, setconv"),
        ({"local": "yes"}, "network.local is 'yes': must be one of auto, on, off"),
        ({"points": 31}, "network.points is 31: must be 0 "),
        ({"points": -1}, "network.points is -1"),
        ({"max_keys": 5}, "network.max_keys is 5: must be 0 "),
        ({"neighbours": 0}, "network.neighbours is 0"),
        ({"cell_m": -1.0}, "network.cell_m is -1.0"),
    ],
)
def test_what_is_out_of_range_is_named(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        NetworkConfig(**values)
    assert message in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("values", [{"iterations": -1}, {"radius_m": 0.0}])
def test_so_is_the_transports(values: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"network.transport.{next(iter(values))} is"):
        TransportConfig(**values)


def test_clouds_of_lidar_size_are_compared_locally() -> None:
    auto = NetworkConfig()
    assert not auto.compares_locally(8192, 8192) and not auto.compares_locally(32768, 32768)
    assert auto.compares_locally(32769, 32768) and auto.compares_locally(90_000, 90_000)
    assert NetworkConfig(local="on").compares_locally(10, 10)
    assert not NetworkConfig(local="off").compares_locally(90_000, 90_000)


def test_architecture_survives_json_and_nothing_else_is_taken() -> None:
    stored = NetworkConfig(
        "small", 0.2, True, "first", "setconv", False, points=64, max_keys=64, transport=TransportConfig(3, 5.0)
    )
    memory = json.loads(json.dumps(architecture_of(stored)))
    mine = NetworkConfig(points=1000, transport=TransportConfig(radius_m=20.0, fallback=False))
    merged = with_architecture(mine, memory)
    assert all(getattr(merged, name) == getattr(stored, name) for name in ARCHITECTURE)
    assert merged.transport == TransportConfig(3, 20.0, fallback=False)
    assert (merged.points, merged.max_keys) == (1000, mine.max_keys)
    whole = architecture_of(NetworkConfig(voxel_size_m=1))
    assert with_architecture(NetworkConfig(), json.loads(json.dumps(whole))).voxel_size_m == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"size": None}, "must be of type str"),
        ({"size": "huge"}, "must be one of full, small"),
        ({"voxel_size_m": "0.07"}, "must be of type float"),
        ({"depth": 3}, "'depth' is missing or too many"),
    ],
)
def test_a_foreign_architecture_is_refused(change: dict[str, Any], message: str) -> None:
    memory = {**architecture_of(NetworkConfig()), **change}
    with pytest.raises(ConfigError, match=message):
        with_architecture(NetworkConfig(), memory)
    del memory["iterations"]
    with pytest.raises(ConfigError, match="missing or too many"):
        with_architecture(NetworkConfig(), memory)


def test_options_cost_no_import_of_torch() -> None:
    code = "import sys, scene_flow.networks.config; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
