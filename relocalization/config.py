# SPDX-License-Identifier: Apache-2.0
"""Every option of FaVoR. Imports no torch, so that `--help` and config files stay quick."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from relocalization.features.config import FeatureConfig
from relocalization.fit_config import FitConfig
from vision3d.errors import check_ranges

Description = Literal["voxel", "median", "nearest", "all"]


@dataclass(frozen=True)
class TrackConfig:
    """How key points of several images are joined into tracks.

    Attributes:
        source: ``pairs`` matches covisible pairs of images along epipolar lines, ``sequential`` follows key points
            from frame to frame as in the paper, ``imported`` takes the tracks that the data set brings (COLMAP).
        pairs_per_image: covisible images that each image is matched with.
        band_px: half width of the band around the epipolar line.
        similarity: smallest cosine of a match; 0 is the extractor's own threshold.
        ratio: largest ratio of best to second-best distance among the candidates; 1 turns the test off.
        merge_similarity: tracks of one point are merged when their median descriptors agree this well (cosine) and
            their points do within their uncertainty; 1 merges none.
    """

    source: Literal["pairs", "sequential", "imported"] = "pairs"
    pairs_per_image: int = 20
    band_px: float = 2.0
    similarity: float = 0.0
    ratio: float = 0.9
    merge_similarity: float = 0.9

    def __post_init__(self) -> None:
        check_ranges("tracks", self, pairs_per_image=(1, 1000), band_px=(0.1, 100), similarity=(0, 1), ratio=(0.1, 1))


@dataclass(frozen=True)
class LandmarkConfig:
    """Which triangulated tracks become landmarks.

    Attributes:
        min_views: fewest images that must agree on the point.
        min_parallax_deg: smallest angle under which the point was seen.
        max_error_px: largest reprojection error of an observation that counts.
        max_landmarks: the best are kept: most views first, then widest parallax.
        calibrate: find the radial distortion of the lens from the tracks, where the data set gives none; it is kept
            in the map and applied to queries of the same camera.
        dtype: number format of the stored fields.
        box_px: width of a landmark's voxel box as seen from its nearest camera (paper 7, published code 12).
    """

    min_views: int = 2
    min_parallax_deg: float = 1.0
    max_error_px: float = 2.0
    max_landmarks: int = 10_000
    calibrate: bool = True
    dtype: Literal["float16", "float32"] = "float16"
    box_px: float = 12.0

    def __post_init__(self) -> None:
        check_ranges("landmarks", self, min_views=(2, 1000), min_parallax_deg=(0, 90), max_error_px=(0.1, 100))
        check_ranges("landmarks", self, max_landmarks=(1, 10**7), box_px=(0.1, 1000))


@dataclass(frozen=True)
class LocalizeConfig:
    """How a query finds its pose in a map.

    Attributes:
        describe: where a landmark's descriptor comes from: its voxel field rendered from the pose guess, or one of
            the baselines: median of its observations, the observation from the nearest direction, all of them.
        prior: ``auto`` starts from the frame's own prior when it has one, else as ``retrieval``; ``given`` uses the
            frame's prior only; ``previous`` starts from the last result; ``retrieval`` from the most alike map images.
        candidates: retrieved images that are tried; the one with most inliers wins.
        iterations: passes of render, match, PnP; from the second on matches are searched near the projection.
        similarity: smallest cosine of a match; 0 is the extractor's own threshold.
        ratio: largest ratio of best to second-best distance of a match; 1 turns the test off.
        radius_px: search radius around the projection from the second pass on; halved at every pass. 0 searches
            everywhere, as the paper does.
        max_error_px: largest reprojection error of an inlier.
        min_inliers: fewer is a failure.
        max_angle_deg: a landmark is rendered only if it was observed from within this angle of the new direction.
        max_distance_ratio: ... and from a distance that differs by no more than this factor.
        cone_deg: beyond this angle from every observation the nearest observed descriptor replaces the rendered one.
    """

    describe: Description = "voxel"
    prior: Literal["auto", "given", "previous", "retrieval"] = "auto"
    candidates: int = 5
    iterations: int = 3
    similarity: float = 0.0
    ratio: float = 1.0
    radius_px: float = 10.0
    max_error_px: float = 5.0
    min_inliers: int = 12
    max_angle_deg: float = 60.0
    max_distance_ratio: float = 4.0
    cone_deg: float = 45.0

    def __post_init__(self) -> None:
        check_ranges("localize", self, candidates=(1, 1000), iterations=(1, 20), similarity=(0, 1), ratio=(0.1, 1))
        check_ranges("localize", self, radius_px=(0, 10_000), max_error_px=(0.1, 1000), min_inliers=(4, 10_000))
        check_ranges("localize", self, max_angle_deg=(1, 180), max_distance_ratio=(1, 1e6), cone_deg=(0, 180))


@dataclass(frozen=True)
class FavorConfig:
    """FaVoR: features via voxel rendering (Polizzi et al., WACV 2025)."""

    features: FeatureConfig = field(default_factory=FeatureConfig)
    tracks: TrackConfig = field(default_factory=TrackConfig)
    landmarks: LandmarkConfig = field(default_factory=LandmarkConfig)
    fit: FitConfig = field(default_factory=FitConfig)
    localize: LocalizeConfig = field(default_factory=LocalizeConfig)
