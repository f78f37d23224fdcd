# SPDX-License-Identifier: Apache-2.0
"""FaVoR end to end on the synthetic room: exact poses, rendered images, features found in them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from room_reader import SIFT, Part, build_map, room
from simulated_map import Context, nudged

from relocalization.features.base import Features, make_extractor
from relocalization.landmark_map import LandmarkMap
from relocalization.localize import Localizer
from relocalization.pipeline import FavorPipeline
from vision3d.errors import DataError, UserError
from vision3d.geometry import se3
from vision3d.types import Frame, PoseResult

FRAMES = 16


@dataclass(frozen=True, eq=False)
class Run:
    """The map of the training frames, and the test frames with their features."""

    landmarks: LandmarkMap
    context: Context
    frames: list[Frame]
    features: list[Features]
    poses: list[np.ndarray]
    results: list[PoseResult]


@pytest.fixture(scope="module")
def run() -> Run:
    context, test = Context(), room(FRAMES, "test")
    landmarks = build_map(room(FRAMES, "train"), context=context)
    extractor = make_extractor(SIFT.features)
    frames = [test[i] for i in range(len(test))]
    features = [extractor(f.image) for f in frames]
    find = Localizer(landmarks, extractor, SIFT.localize)
    results = [find.localize(f, x) for f, x in zip(frames, features)]
    poses = [test.truth(i).T_world_cam for i in range(len(test))]  # type: ignore[union-attr]
    return Run(landmarks, context, frames, features, poses, results)


def errors(results: list[PoseResult], poses: list[np.ndarray]) -> np.ndarray:
    """(N, 2) metres and degrees, infinite for failures."""
    rows = []
    for result, true in zip(results, poses):
        T = result.T_world_cam
        if T is None:
            rows.append((np.inf, np.inf))
        else:
            turn = se3.rotation_angle_deg(T[:3, :3].T @ true[:3, :3])
            rows.append((float(np.linalg.norm(T[:3, 3] - true[:3, 3])), float(turn)))
    return np.array(rows)


def test_all_test_frames_are_localized_without_a_prior(run: Run) -> None:
    found = errors(run.results, run.poses)
    assert len(found) == FRAMES // 2
    assert np.median(found[:, 0]) < 0.01
    assert np.median(found[:, 1]) < 0.15
    assert found[:, 0].max() < 0.03
    for result in run.results:
        counts = result.extra["inliers_per_iteration"]
        assert len(counts) == 3
        assert counts[0] <= counts[-1]


def test_rough_prior_is_enough(run: Run) -> None:
    """Card, check 13: 30 cm and 15 degrees off, retrieval not allowed."""
    find = Localizer(run.landmarks, make_extractor(SIFT.features), replace(SIFT.localize, prior="given"))
    for k in (1, 4, 7):
        frame = replace(run.frames[k], prior_T_world_cam=nudged(run.poses[k], 0.3, 15.0, seed=k))
        assert errors([find.localize(frame, run.features[k])], [run.poses[k]])[0, 0] < 0.03


def test_prior_that_looks_the_other_way_fails_cleanly(run: Run) -> None:
    find = Localizer(run.landmarks, make_extractor(SIFT.features), replace(SIFT.localize, prior="given"))
    half_turn = se3.from_rt(np.diag([-1.0, 1.0, -1.0]), np.zeros(3))
    # the walk has turned by less than 90 degrees here, so nobody has seen what lies behind the camera
    frame = replace(run.frames[0], prior_T_world_cam=run.poses[0] @ half_turn)
    result = find.localize(frame, run.features[0])
    assert result.status == "failed"
    assert result.T_world_cam is None
    assert result.reason


@pytest.mark.parametrize(
    ("scale", "turn", "move"), [(1.0, [0.7, -1.9, 0.4], [30.0, -200.0, 8.0]), (3.7, [0.0, 0.0, 0.0], [0.0, 0.0, 0.0])]
)
def test_choice_of_the_world_frame_changes_nothing(
    run: Run, scale: float, turn: list[float], move: list[float]
) -> None:
    """Card, check 6: landmarks move along, boxes keep their size (or scale), the errors agree."""
    motion = se3.from_rt(se3.rotvec_to_rotation(turn), move)
    context = Context(store={k: v for k, v in run.context.store.items() if k.startswith("features/")})
    train = room(FRAMES, "train")
    moved = build_map(Part(train, range(len(train)), motion, scale), context=context)
    assert np.array_equal(moved.tracks.start, run.landmarks.tracks.start)
    assert np.array_equal(moved.tracks.keypoint, run.landmarks.tracks.keypoint)
    wanted = se3.transform(motion, scale * run.landmarks.points)
    # relative to the distance from the cameras: what the solver's last step leaves
    size = scale * np.linalg.norm(run.landmarks.points - run.landmarks.images.T_world_cam[0, :3, 3], axis=1)
    offset = np.linalg.norm(moved.points - wanted, axis=1) / size
    assert np.median(offset) < 1e-7
    assert offset.max() < 1e-6
    sides = moved.grids.half_sizes.numpy() / (scale * run.landmarks.grids.half_sizes.numpy())
    assert np.abs(sides - 1).max() < 1e-6
    find = Localizer(moved, make_extractor(SIFT.features), SIFT.localize)
    results = [find.localize(f, x) for f, x in zip(run.frames, run.features)]
    poses = []
    for pose in run.poses:
        grown = pose.copy()
        grown[:3, 3] *= scale
        poses.append(motion @ grown)
    # Boxes stand along the world's axes, so fields differ a little when it turns (card, trap 11): a match or two.
    there, here = errors(results, poses), errors(run.results, run.poses)
    assert np.abs(there[:, 0] / scale - here[:, 0]).max() < (0.003 if scale == 1 else 1e-4)
    assert np.abs(there[:, 1] - here[:, 1]).max() < (0.05 if scale == 1 else 1e-3)


def test_pipeline_fits_loads_and_steps_to_the_same(run: Run, tmp_path: Path) -> None:
    """What the runner does: through files, with every step's arrays from the cache of the run before."""
    pipeline = FavorPipeline(SIFT)
    pipeline.fit(room(FRAMES, "train"), tmp_path, run.context)
    landmarks = pipeline.load(tmp_path)
    result = pipeline.step(landmarks, run.frames[4])
    assert result.T_world_cam is not None
    assert run.results[4].T_world_cam is not None
    assert np.abs(result.T_world_cam - run.results[4].T_world_cam).max() < 1e-6
    assert pipeline.describe(landmarks)["landmarks"] == len(run.landmarks)
    for name, baseline in pipeline.baselines().items():
        assert errors([baseline.step(landmarks, run.frames[4])], [run.poses[4]])[0, 0] < 0.03, name
    other = FavorPipeline(replace(SIFT, features=replace(SIFT.features, max_keypoints=77)))
    assert other.load(tmp_path).extractor == landmarks.extractor, "how many key points is no matter of the map"
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    replace(landmarks, extractor="sift-of-elsewhere").save(foreign)
    with pytest.raises(DataError, match="features"):
        pipeline.load(foreign)


def test_same_input_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        build_map(Part(room(8), range(4))).save(tmp_path / name)
    for file in (tmp_path / "a").iterdir():
        assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes(), file.name


def test_maps_that_cannot_be_are_refused_in_one_line() -> None:
    with pytest.raises(UserError, match="at least 2 images"):
        build_map(Part(room(8), [0]))
    # two frames from one place: features match, but nothing has a depth
    still = Part(room(8), [0, 1], scale=0.0)
    with pytest.raises(UserError, match="triangulated") as error:
        build_map(still)
    assert "\n" not in str(error.value)
