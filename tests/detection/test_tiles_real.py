# SPDX-License-Identifier: Apache-2.0
"""Real images of DOTA: cut, merged, submitted and read back, the labels stay what they were."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from detection.dota.config import SplitConfig, TileConfig
from detection.dota.merge import concatenated, merge_tiles
from detection.dota.oracle import tiled_truth
from detection.dota.results_files import read_results
from detection.dota.sidecar import read_sidecar, tile_of_name
from detection.dota.split import split
from detection.dota.submission import write_submission
from detection.metrics.config import MetricsConfig
from detection.metrics.table import score_boxes
from detection.problem import Detections
from vision3d.contracts import DataConfig, Reader
from vision3d.geometry import rotated
from vision3d.readers.dota import SPEC
from vision3d.types.images import BoxResult


def folder(shared_data: Path, name: str) -> Path:
    path = shared_data / name
    if not path.is_dir():
        pytest.skip(f"no {name} in {shared_data}")
    return path


@pytest.fixture
def full(shared_data: Path) -> Reader:
    return SPEC.open(str(folder(shared_data, "dota_full")), DataConfig())


@pytest.mark.parametrize("config", [TileConfig(), TileConfig(512, 100, (0.5, 1.0, 1.5)), TileConfig(256, 0)])
def test_labels_come_back_from_tiles(full: Reader, config: TileConfig) -> None:
    for index in range(len(full)):
        truth = full.truth(index)
        assert truth is not None
        found = tiled_truth(truth, config)
        assert found.ids is not None
        assert found.ids.tolist() == list(range(len(truth.boxes)))
        assert np.abs(found.boxes - truth.boxes).max() < 1e-9
        assert (found.labels == truth.labels).all()


def test_labels_survive_a_submission(full: Reader, tmp_path: Path) -> None:
    truths = {full.key(i): full.truth(i) for i in range(len(full))}
    found = {name: tiled_truth(truth, TileConfig()) for name, truth in truths.items()}
    classes = next(iter(truths.values())).classes
    for form in ("Task1.zip", "folder"):
        back, names = read_results(write_submission(tmp_path / form, found, classes), classes)
        assert names == classes
        for name, truth in truths.items():
            order = np.argsort(truth.labels, kind="stable")
            assert rotated.iou_pairs(back[name].boxes, truth.boxes[order]).min() > 1 - 1e-9
            assert (back[name].labels == truth.labels[order]).all()


def test_tiles_of_real_images_lose_no_object(full: Reader, tmp_path: Path) -> None:
    outcome = split(full, tmp_path / "tiles", SplitConfig(512, 100), {"data": "dota_full"}, threads=2)
    assert (outcome.images, outcome.outside) == (4, 0)
    sidecar = read_sidecar(tmp_path / "tiles")
    tiles = SPEC.open(str(tmp_path / "tiles"), DataConfig())
    assert len(tiles) == outcome.tiles
    parts: dict[str, list[Detections]] = {}
    for i in range(len(tiles)):
        truth, tile = tiles.truth(i), sidecar.tile(tiles.key(i))
        assert truth is not None
        assert tile is not None
        assert tile_of_name(tiles.key(i)) == tile
        there = Detections(tile.to_image(truth.boxes), np.ones(len(truth.boxes)), truth.labels)
        parts.setdefault(tile.image, []).append(there)
    for i in range(len(full)):
        truth = full.truth(i)
        assert truth is not None
        found = concatenated(parts[full.key(i)])
        near = np.abs(found.boxes[None, :, :4] - truth.boxes[:, None, :4]).max(2)
        assert near.min(1).max() < 1e-6


def test_names_of_the_devkit_are_understood(shared_data: Path) -> None:
    """The half-size tiles of the devkit start at the corner of their image: boxes double."""
    reader = SPEC.open(str(folder(shared_data, "dota_half")), DataConfig())
    for i in range(len(reader)):
        tile = tile_of_name(reader.key(i))
        assert tile is not None
        assert (tile.scale, tile.left, tile.top) == (0.5, 0, 0)
        assert tile.image in ("P0770", "P1088")
        truth = reader.truth(i)
        assert truth is not None
        assert (tile.to_image(truth.boxes)[:, :4] == truth.boxes[:, :4] * 2).all()


def test_true_boxes_of_tiles_merged_again_score_one_on_the_whole_images(full: Reader, tmp_path: Path) -> None:
    """Splitting, reading the tiles and merging by suppression, whole: only an object labelled twice is then one."""
    split(full, tmp_path / "tiles", SplitConfig(), {"data": "dota_full"}, threads=2)
    tiles = SPEC.open(str(tmp_path / "tiles"), DataConfig())
    sidecar = read_sidecar(tmp_path / "tiles")
    labels = {tiles.key(i): tiles.truth(i) for i in range(len(tiles))}
    found = merge_tiles(
        ((name, Detections(t.boxes, np.ones(len(t.boxes)), t.labels)) for name, t in labels.items() if t is not None),
        sidecar.tile,
        0.99,
    )
    truths = [full.truth(i) for i in range(len(full))]
    results = [
        BoxResult(
            name=full.key(i),
            status="ok",
            boxes=found[full.key(i)].boxes,
            scores=found[full.key(i)].scores,
            labels=found[full.key(i)].labels,
            classes=truth.classes,
            size=truth.size,
        )
        for i, truth in enumerate(truths)
        if truth is not None
    ]
    assert len(results) == 4
    for protocol in ("devkit-1.0", "devkit-1.5", "mmrotate"):
        scores = {m.name: m.value for m in score_boxes(results, truths, MetricsConfig(difficult=protocol))}
        for name in ("ap50", "ap50_voc07", "ap75", "ap50_95"):
            assert scores[name] == pytest.approx(1, abs=1e-9), (protocol, name)
