# SPDX-License-Identifier: Apache-2.0
"""The layout and the configurations for MMRotate: what its reader would find in them."""

from __future__ import annotations

import ast
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np
import pytest

from detection.bridge.mmrotate import Annotated, class_names, write_configs, write_split
from detection.problem import Detections
from vision3d.errors import ConfigError, DataError
from vision3d.geometry import rotated
from vision3d.types import BoxTruth

CLASSES = ("small vehicle", "ship")
BOXES = np.array([[40.25, 30.125, 20.0, 8.0, 0.3], [10.0, 12.0, 9.0, 9.0, -1.0]])


def image() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (64, 80, 3), dtype=np.uint8)


def as_their_reader(folder: Path, classes: tuple[str, ...]) -> dict[str, list[tuple[list[float], int, int]]]:
    """Every line of every file as ``x1 .. y4 class difficulty``: a header or a missing field would be an error."""
    found = {}
    for file in folder.glob("annfiles/*.txt"):
        fields = [line.split() for line in file.read_text().splitlines()]
        assert all(len(f) == 10 for f in fields)
        found[file.stem] = [([float(v) for v in f[:8]], classes.index(f[8]), int(f[9])) for f in fields]
        assert (folder / "images" / f"{file.stem}.png").is_file()
    return found


def test_boxes_round_trip(tmp_path: Path) -> None:
    found = Detections(BOXES, np.array([0.9, 0.02]), np.array([1, 0]))
    items = [Annotated.of_boxes("P0001__1.0", image(), found, 0.05), Annotated.of_boxes("empty", image(), found, 0.99)]
    assert write_split(tmp_path, "train", items, CLASSES) == {"images": 2, "boxes": 1, "empty": 1}
    read = as_their_reader(tmp_path / "train", ("small-vehicle", "ship"))
    assert read["empty"] == []
    ((quad, label, difficult),) = read["P0001__1.0"]
    assert (label, difficult) == (1, 0)
    np.testing.assert_allclose(rotated.from_corners(np.reshape(quad, (1, 4, 2))), BOXES[:1], atol=1e-9)
    stored = cv2.imread(str(tmp_path / "train" / "images" / "empty.png"))
    assert stored is not None
    assert np.array_equal(stored[:, :, ::-1], image())


def test_truth_keeps_its_quadrilaterals(tmp_path: Path) -> None:
    quads = rotated.corners(BOXES) + np.random.default_rng(1).normal(0, 0.3, (2, 4, 2))
    truth = BoxTruth(BOXES, np.array([0, 1]), np.array([1, 0], np.uint8), quads, CLASSES, (80, 64))
    write_split(tmp_path, "val", [Annotated.of_truth("a", image(), truth)], CLASSES)
    read = as_their_reader(tmp_path / "val", ("small-vehicle", "ship"))["a"]
    assert np.array_equal([quad for quad, _, _ in read], quads.reshape(2, 8))
    assert [(label, difficult) for _, label, difficult in read] == [(0, 1), (1, 0)]


def executed(path: Path, **modules: ModuleType) -> dict[str, Any]:
    """The names that a configuration file defines."""
    names: dict[str, Any] = {}
    before = {name: sys.modules.get(name) for name in modules}
    sys.modules.update(modules)
    try:
        exec(compile(path.read_text(), str(path), "exec"), names)
    finally:
        for name, module in before.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module
    return {name: value for name, value in names.items() if not name.startswith("__")}


def test_configuration_of_1x(tmp_path: Path) -> None:
    write_configs(tmp_path, ("ship",), 512, "pseudo", "val")
    path = tmp_path / "rotated_fcos_1x.py"
    # mmengine takes the base from the syntax tree, so it must be a literal.
    base = next(
        n for n in ast.parse(path.read_text()).body if isinstance(n, ast.Assign) and n.targets[0].id == "_base_"
    )  # type: ignore[attr-defined]
    assert ast.literal_eval(base.value) == "mmrotate::rotated_fcos/rotated-fcos-le90_r50_fpn_1x_dota.py"
    config = executed(path)
    train = config["train_dataloader"]["dataset"]
    assert train["metainfo"]["classes"] == ("ship",)
    assert len(train["metainfo"]["palette"]) == 1
    assert config["model"]["bbox_head"]["num_classes"] == 1
    assert (train["data_root"], train["ann_file"]) == (f"{tmp_path.resolve()}/", "pseudo/annfiles/")
    assert config["test_dataloader"]["dataset"]["data_prefix"] == {"img_path": "val/images/"}
    assert {"type": "mmdet.Resize", "scale": (512, 512), "keep_ratio": True} in train["pipeline"]


def test_configuration_of_0x(tmp_path: Path) -> None:
    write_configs(tmp_path, CLASSES, 256)
    installed = ModuleType("mmrotate")
    installed.__file__ = "/site/mmrotate/__init__.py"
    config = executed(tmp_path / "rotated_fcos_0x.py", mmrotate=installed)
    assert config["_base_"] == ["/site/mmrotate/.mim/configs/rotated_fcos/rotated_fcos_r50_fpn_1x_dota_le90.py"]
    # mmcv takes every name for an option.
    assert {"dirname", "join", "installed"} & set(config) == set()
    assert config["data"]["train"]["classes"] == ("small-vehicle", "ship")
    assert config["data"]["train"]["ann_file"] == f"{tmp_path.resolve()}/train/annfiles/"
    assert config["data"]["val"]["img_prefix"] == f"{tmp_path.resolve()}/val/images/"
    assert config["model"]["bbox_head"]["num_classes"] == 2
    assert config["angle_version"] == "le90"


def test_what_cannot_be_written(tmp_path: Path) -> None:
    none = Detections.none()
    for name in ("../evil", "", ".hidden", "a\nb"):
        with pytest.raises(DataError, match="no file name"):
            write_split(tmp_path, "train", [Annotated.of_boxes(name, image(), none)], CLASSES)
    with pytest.raises(DataError, match="occurs twice"):
        write_split(tmp_path, "train", [Annotated.of_boxes("a", image(), none)] * 2, CLASSES)
    with pytest.raises(DataError, match="become 'a-b'"):
        class_names(("a b", "a-b"))
    with pytest.raises(ConfigError, match="must be positive"):
        write_configs(tmp_path, CLASSES, 0)
