# SPDX-License-Identifier: Apache-2.0
"""Self-test of the evaluator: published pose estimates in, known numbers out.

The estimates and both versions of the 7-Scenes truth come from Brachmann, Humenberger, Rother and Sattler,
"On the Limits of Pseudo Ground Truth in Visual Camera Re-Localization", ICCV 2021. Expected folder::

    estimates/{sfm,dslam}/7scenes/<scene>_{hloc,dsac_rgb,dsac_rgbd}.txt
    pgt/{sfm,dslam}/7scenes/<scene>_test.txt

Files that are absent are left out of the tables; nothing is compared across the two truths. The reference values
were computed from the same files by other code; their means over the seven scenes (hloc 95.7 % and DSAC* 97.8 % at
5 cm, 5 deg on SfM poses) are the ones that the literature prints.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from relocalization.evaluate import errors, medians, recall
from relocalization.pose_files import PoseFile, read_poses
from vision3d.errors import DataError

Float = NDArray[np.float64]

METHODS = {"hloc": "hloc SP+SG", "dsac_rgb": "DSAC* RGB", "dsac_rgbd": "DSAC* RGB-D"}
TRUTHS = {"sfm": "SfM pseudo ground truth", "dslam": "KinectFusion (D-SLAM)"}
SCENES = ("chess", "fire", "heads", "office", "pumpkin", "redkitchen", "stairs")

# (truth, method) -> medians per scene as "cm/deg", to as many digits as are known.
REFERENCE = {
    ("sfm", "hloc"): ".78/.11 .87/.24 .60/.25 1.24/.20 1.41/.15 1.10/.14 2.89/.80",
    ("sfm", "dsac_rgb"): ".50/.17 .78/.28 .50/.34 1.16/.34 1.17/.28 .74/.21 2.65/.78",
    ("sfm", "dsac_rgbd"): "1.42/.45 1.87/.66 1.05/.70 1.76/.51 2.02/.59 1.58/.44 2.83/.85",
    ("dslam", "hloc"): "2.4/.77 1.8/.75 .9/.59 2.6/.77 4.4/1.15 4.0/1.38 5.1/1.46",
    ("dslam", "dsac_rgb"): "1.8/.59 1.7/.77 1.0/.66 2.7/.79 3.9/1.05 3.9/1.24 3.5/.93",
    ("dslam", "dsac_rgbd"): ".9/.38 .9/.53 .8/.63 1.0/.47 1.7/.58 1.9/.80 2.1/.70",
}
# (truth, method, scene) -> recall at 5 cm, 5 deg, per cent.
REFERENCE_RECALL = {("sfm", "hloc", "stairs"): "72.0", ("sfm", "dsac_rgb", "stairs"): "92.0"}
# Distance of the two truths: median cm, median deg, largest cm, within 5 cm & 5 deg in per cent, scale SfM -> D-SLAM.
REFERENCE_GAP = {
    "chess": ("3.8", "1.5", "14.5", "64", "0.982"),
    "fire": ("2.6", "1.2", "6.7", "91", "0.996"),
    "heads": ("2.6", "1.2", "5.2", "100", "0.997"),
    "office": ("8.6", "3.0", "45", "26", "0.978"),
    "pumpkin": ("7.7", "2.8", "56", "35", "0.987"),
    "redkitchen": ("7.0", "2.7", "39", "38", "1.001"),
    "stairs": ("2.7", "1.8", "8.9", "88", "0.992"),
}


@dataclass(frozen=True)
class Check:
    """One row of the self-test: what was measured beside what is published.

    Attributes:
        measured, reference: ``cm``, ``deg``, ``recall_5cm_5deg`` (per cent; reference only where known).
        own_error_gap: largest difference to the errors that the file itself states (deg, m), or None.
    """

    truth: str
    method: str
    scene: str
    n: int
    measured: tuple[float, float, float]
    reference: tuple[str, str, str]
    own_error_gap: tuple[float, float] | None = None

    @property
    def agrees(self) -> bool:
        """Equal to every printed digit."""
        return all(same_digits(x, text) for x, text in zip(self.measured, self.reference, strict=True) if text)


@dataclass(frozen=True)
class Gap:
    """Distance between two truths of one scene, over the images that both have."""

    scene: str
    n: int
    median_cm: float
    median_deg: float
    largest_cm: float
    recall_5cm_5deg: float
    scale: float


def same_digits(value: float, text: str) -> bool:
    """Whether ``value`` rounds to the printed ``text`` (half a unit of its last digit, and float slack)."""
    decimals = len(text.partition(".")[2])
    return abs(value - float(text)) <= 0.5 * 10.0**-decimals + 1e-5


def check_evaluator(folder: str | Path) -> list[Check]:
    """Evaluate every published estimate found under ``folder``.

    Raises:
        DataError: the folder has not one pair of estimates and truth.
    """
    folder, checks = Path(folder), []
    for (truth, method), row in REFERENCE.items():
        for scene, cell in zip(SCENES, row.split(), strict=True):
            est_path = folder / "estimates" / truth / "7scenes" / f"{scene}_{method}.txt"
            true_path = folder / "pgt" / truth / "7scenes" / f"{scene}_test.txt"
            if est_path.is_file() and true_path.is_file():
                recall_text = REFERENCE_RECALL.get((truth, method, scene), "")
                cm, deg = cell.split("/")
                reference = (cm, deg, recall_text)
                checks.append(_check(truth, method, scene, read_poses(est_path), read_poses(true_path), reference))
    if not checks:
        raise DataError(folder, "has no estimates/<truth>/7scenes/<scene>_<method>.txt with its pgt file")
    return checks


def truth_gaps(folder: str | Path) -> list[Gap]:
    """How far the two truths of 7-Scenes are apart, for every scene of which both are under ``folder``."""
    folder, gaps = Path(folder), []
    for scene in SCENES:
        paths = [folder / "pgt" / truth / "7scenes" / f"{scene}_test.txt" for truth in TRUTHS]
        if all(path.is_file() for path in paths):
            gaps.append(truth_gap(scene, *(read_poses(path) for path in paths)))
    return gaps


def truth_gap(scene: str, a: PoseFile, b: PoseFile) -> Gap:
    """Distance between two truths, image by image; ``scale`` fits the camera centres of ``a`` to those of ``b``."""
    poses_b = b.by_name()
    common = [i for i, name in enumerate(a.names) if name in poses_b]
    if not common:
        raise DataError(b.path, f"has no image in common with {a.path}")
    T_a, T_b = a.T_world_cam[common], np.array([poses_b[a.names[i]] for i in common])
    e_t, e_R = errors(T_a, T_b)
    cm, deg = medians(e_t, e_R)
    scale = similarity_scale(T_a[:, :3, 3], T_b[:, :3, 3])
    return Gap(scene, len(common), cm, deg, float(e_t.max() * 100.0), recall(e_t, e_R, 5, 5), scale)


def similarity_scale(source: ArrayLike, target: ArrayLike) -> float:
    """Scale of the least-squares similarity that maps points (N, 3) onto points (N, 3) (Umeyama, PAMI 1991)."""
    x, y = np.asarray(source, dtype=np.float64), np.asarray(target, dtype=np.float64)
    x, y = x - x.mean(axis=0), y - y.mean(axis=0)
    U, singular, Vt = np.linalg.svd(y.T @ x)
    handedness = np.sign(np.linalg.det(U @ Vt))
    return float((singular[0] + singular[1] + handedness * singular[2]) / np.sum(x**2))


def _check(
    truth: str, method: str, scene: str, est: PoseFile, true: PoseFile, reference: tuple[str, str, str]
) -> Check:
    poses = est.by_name()
    e_t, e_R = errors([poses.get(name) for name in true.names], true.T_world_cam)
    gap = None
    if est.own_errors is not None:
        own = dict(zip(est.names, est.own_errors, strict=True))
        ours = {name: e for name, e in zip(true.names, np.stack([e_R, e_t], axis=1), strict=True) if name in own}
        worst = np.max([np.abs(own[name] - e) for name, e in ours.items()], axis=0)
        gap = (float(worst[0]), float(worst[1]))
    measured = (*medians(e_t, e_R), recall(e_t, e_R, 5, 5) * 100.0)
    return Check(truth, method, scene, len(true.names), measured, reference, gap)
