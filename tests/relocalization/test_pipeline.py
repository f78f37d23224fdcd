# SPDX-License-Identifier: Apache-2.0
"""The pipeline's own duties on a room small enough for every run: files out, patches in, frames matched in turn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pycolmap
import pytest
from room_reader import room
from simulated_map import Context

from relocalization.config import FavorConfig, TrackConfig
from relocalization.features.config import FeatureConfig
from relocalization.fit_config import FitConfig
from relocalization.pipeline import FavorPipeline
from vision3d.errors import DataError, UserError
from vision3d.geometry.trajectory import read_tum_trajectory
from vision3d.types import PoseResult

SIFT = FeatureConfig(name="sift", max_keypoints=1500)


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> tuple[FavorPipeline, Path]:
    folder = tmp_path_factory.mktemp("map")
    pipeline = FavorPipeline(FavorConfig(features=SIFT))
    pipeline.fit(room(16, "train"), folder, Context())
    return pipeline, folder


def test_results_become_a_trajectory_and_a_colmap_model(fitted: tuple[FavorPipeline, Path], tmp_path: Path) -> None:
    pipeline, folder = fitted
    model, test = pipeline.load(folder), room(16, "test")
    results = [pipeline.step(model, test[i]) for i in range(3)] + [pipeline.failure("broken", "no image")]
    assert [r.status for r in results] == ["ok"] * 3 + ["bad_input"]
    results = [PoseResult.from_json(r.to_json()) for r in results]
    pipeline.export(results, tmp_path)
    stamps, poses = read_tum_trajectory(tmp_path / "trajectory_tum.txt")
    assert stamps.tolist() == [test[i].stamp_ns for i in range(3)]
    assert np.allclose(poses, [r.T_world_cam for r in results[:3]], atol=1e-6)
    written = pycolmap.Reconstruction(str(tmp_path / "colmap"))
    assert sorted(i.name for i in written.images.values()) == sorted(r.name for r in results[:3])
    truths = [test.truth(i) for i in range(3)] + [test.truth(3)]
    metrics = {m.name: m for m in pipeline.score(results, truths)}
    assert metrics["n_localized"].value == 3
    assert metrics["recall_5cm_5deg"].value == 0.75
    exhibit = pipeline.exhibit(model, results, truths)
    assert set(exhibit.per_sample) == {r.name for r in results}
    assert set(exhibit.scenes[0].trajectories) == {"estimated", "true", "map images"}


def test_baselines_share_the_map_and_localize_too(fitted: tuple[FavorPipeline, Path]) -> None:
    pipeline, folder = fitted
    model, frame = pipeline.load(folder), room(16, "test")[2]
    for name, baseline in pipeline.baselines().items():
        assert baseline.step(model, frame).status == "ok", name


def test_a_map_of_other_features_is_refused(fitted: tuple[FavorPipeline, Path], tmp_path: Path) -> None:
    _, folder = fitted
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    index = tmp_path / "images.json"
    index.write_text(index.read_text().replace('"extractor": "sift"', '"extractor": "sift-of-old"'))
    with pytest.raises(DataError, match="was made with features 'sift-of-old'"):
        FavorPipeline(FavorConfig(features=SIFT)).load(tmp_path)


def test_adding_images_writes_a_larger_map(fitted: tuple[FavorPipeline, Path], tmp_path: Path) -> None:
    pipeline, folder = fitted
    pipeline.extend(folder, room(16, "test"), tmp_path, Context())
    before, after = pipeline.load(folder), pipeline.load(tmp_path)
    assert len(after.images) == len(before.images) + len(room(16, "test"))
    assert len(after) > len(before)
    assert pipeline.describe(after)["landmarks"] == len(after)


def test_frames_followed_in_turn_give_a_map_that_localizes(tmp_path: Path) -> None:
    pipeline = FavorPipeline(FavorConfig(features=SIFT, tracks=TrackConfig(source="sequential")))
    pipeline.fit(room(16, "train"), tmp_path, Context())
    model, test = pipeline.load(tmp_path), room(16, "test")
    result = pipeline.step(model, test[2])
    assert result.T_world_cam is not None
    assert np.linalg.norm(result.T_world_cam[:3, 3] - test.truth(2).T_world_cam[:3, 3]) < 0.03


def test_patches_need_a_dense_map(tmp_path: Path) -> None:
    pipeline = FavorPipeline(FavorConfig(features=SIFT, fit=FitConfig(patch_radius=1)))
    with pytest.raises(UserError, match="sift has no dense descriptor map"):
        pipeline.fit(room(16, "train"), tmp_path, Context())


def test_patches_of_a_dense_network_fit_a_map_too(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VISION3D_WEIGHTS", str(weights))
    features = FeatureConfig(name="alike-t", max_keypoints=400)
    pipeline = FavorPipeline(FavorConfig(features=features, fit=FitConfig(patch_radius=2, patch_stride=2)))
    pipeline.fit(room(16, "train"), tmp_path, Context())
    model, test = pipeline.load(tmp_path), room(16, "test")
    assert model.facts["field_cosine"] > 0.8
    assert pipeline.step(model, test[2]).status == "ok"
