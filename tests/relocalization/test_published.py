# SPDX-License-Identifier: Apache-2.0
"""Published estimates through our evaluator: the known numbers must come out to the printed digit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from relocalization.pose_files import read_poses, write_pose_list
from relocalization.published import (
    REFERENCE_GAP,
    check_evaluator,
    same_digits,
    similarity_scale,
    truth_gap,
    truth_gaps,
)
from vision3d.errors import DataError
from vision3d.geometry.se3 import from_rt, rotvec_to_rotation


@pytest.fixture(scope="module")
def published(shared_data: Path) -> Path:
    folder = shared_data / "reloc_metadata" / "visloc_pgt"
    if not folder.is_dir():
        pytest.skip(f"no published estimates at {folder}")
    return folder


def test_published_estimates_give_the_known_numbers(published: Path) -> None:
    checks = check_evaluator(published)
    assert len(checks) == 12
    assert {(c.truth, c.method) for c in checks} == {
        (t, m) for t in ("sfm", "dslam") for m in ("hloc", "dsac_rgb", "dsac_rgbd")
    }
    assert [c for c in checks if not c.agrees] == []
    recalls = {(c.method, c.scene): c.measured[2] for c in checks if c.truth == "sfm"}
    assert recalls["hloc", "stairs"] == pytest.approx(72.0)
    assert recalls["dsac_rgb", "stairs"] == pytest.approx(92.0)


def test_every_frame_has_the_error_that_the_dsac_files_state_themselves(published: Path) -> None:
    # Another program computed these, frame by frame, from the same SfM truth; six printed digits.
    gaps = [c.own_error_gap for c in check_evaluator(published) if c.truth == "sfm" and c.method != "hloc"]
    assert len(gaps) == 4
    for gap in gaps:
        assert gap is not None
        assert gap[0] < 2e-4  # degrees
        assert gap[1] < 1e-5  # metres


def test_an_evaluator_with_another_convention_would_not_pass(published: Path) -> None:
    # Comparing world-to-camera translations instead of centres: the mistake this test exists for.
    check = next(c for c in check_evaluator(published) if (c.truth, c.method, c.scene) == ("sfm", "hloc", "stairs"))
    est = read_poses(published / "estimates/sfm/7scenes/stairs_hloc.txt")
    true = read_poses(published / "pgt/sfm/7scenes/stairs_test.txt").by_name()
    from vision3d.geometry.se3 import invert

    apart = [invert(T)[:3, 3] - invert(true[name])[:3, 3] for name, T in est.by_name().items()]
    assert not same_digits(float(np.median(np.linalg.norm(apart, axis=1))) * 100, check.reference[0])


def test_the_two_truths_are_as_far_apart_as_is_known(published: Path) -> None:
    gaps = truth_gaps(published)
    assert [g.scene for g in gaps] == ["chess", "heads", "redkitchen", "stairs"]
    for gap in gaps:
        cm, _, largest, within, scale = REFERENCE_GAP[gap.scene]
        assert same_digits(gap.median_cm, cm)
        assert same_digits(gap.largest_cm, largest)
        assert same_digits(gap.recall_5cm_5deg * 100, within)
        assert gap.scale == pytest.approx(float(scale), abs=6e-4)


def test_scale_of_a_known_similarity() -> None:
    rng = np.random.default_rng(0)
    points = rng.normal(0, 1, (50, 3))
    moved = 0.93 * points @ rotvec_to_rotation([0.3, -1.0, 2.0]).T + [5.0, -2.0, 1.0]
    assert similarity_scale(points, moved) == pytest.approx(0.93)


def test_truths_without_a_common_image_are_refused(tmp_path: Path) -> None:
    T = [from_rt(np.eye(3), [0.0, 0.0, 0.0])]
    write_pose_list(tmp_path / "a.txt", ["a"], T)
    write_pose_list(tmp_path / "b.txt", ["b"], T)
    with pytest.raises(DataError, match="no image in common"):
        truth_gap("x", read_poses(tmp_path / "a.txt"), read_poses(tmp_path / "b.txt"))


def test_a_folder_without_estimates_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has no estimates"):
        check_evaluator(tmp_path)


@pytest.mark.parametrize(
    ("value", "text", "same"),
    [(0.5983, ".60", True), (0.5949, ".60", False), (71.96, "72.0", True), (5.0535, "5.1", True), (45.4, "45", True)],
)
def test_agreement_means_the_printed_digits(value: float, text: str, same: bool) -> None:
    assert same_digits(value, text) is same
