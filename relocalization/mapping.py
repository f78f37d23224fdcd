# SPDX-License-Identifier: Apache-2.0
"""From tracks to landmarks: triangulate, gate, merge, choose (card, steps 3 and 4)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from relocalization.config import LandmarkConfig
from relocalization.landmark_map import MapImages
from relocalization.tracks import Tracks
from vision3d.geometry.triangulation import LandmarkStatus, TriangulationConfig, triangulate_tracks

Float = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class TriangulatedTracks:
    """Landmarks without descriptors fields yet.

    Attributes:
        tracks: the observations that agree with their landmark.
        points: (N, 3) world, metres.
        covariance: (N, 3, 3) metres^2.
        parallax_deg: (N,) widest angle under which the landmark was seen.
        rejected: reason -> number of tracks that became no landmark.
    """

    tracks: Tracks
    points: Float
    covariance: Float
    parallax_deg: Float
    rejected: dict[str, int]

    def __len__(self) -> int:
        return len(self.points)

    def subset(self, keep: NDArray[np.bool_]) -> TriangulatedTracks:
        """The landmarks where ``keep`` (N,) is set."""
        return TriangulatedTracks(
            self.tracks.subset(keep), self.points[keep], self.covariance[keep], self.parallax_deg[keep], self.rejected
        )


def triangulate_landmarks(tracks: Tracks, images: MapImages, config: LandmarkConfig) -> TriangulatedTracks:
    """Points of tracks, with the observations that disagree removed and failed tracks counted by reason."""
    xy = normalized(tracks, images)
    gates = TriangulationConfig(
        min_views=config.min_views,
        min_parallax_deg=config.min_parallax_deg,
        max_reprojection_px=config.max_error_px,
    )
    focal = np.array([c.focal for c in images.cameras])
    owner, found = triangulate_tracks(xy, tracks.image, tracks.track, images.T_world_cam, focal, gates)
    rejected = found.count_by_status()
    rejected.pop(LandmarkStatus.OK.name.lower())
    # An observation of a split track changed its owner: regroup before cutting away what disagrees.
    use = (owner >= 0) & found.inlier
    use[use] = found.ok[owner[use]]
    order = np.flatnonzero(use)
    order = order[np.lexsort((tracks.image[order], owner[order]))]
    keep = _one_per_image(owner[order], tracks.image[order], found.error_px[order])
    order = order[keep]
    lengths = np.bincount(owner[order], minlength=len(found.ok))
    ok = found.ok & (lengths >= config.min_views)
    order = order[ok[owner[order]]]
    start = np.concatenate([[0], np.cumsum(lengths[ok])]).astype(np.int64)
    cleaned = Tracks(start, tracks.image[order], tracks.keypoint[order], tracks.uv_px[order])
    return TriangulatedTracks(cleaned, found.points_world[ok], found.covariance[ok], found.parallax_deg[ok], rejected)


def normalized(tracks: Tracks, images: MapImages) -> Float:
    """(M, 2) undistorted normalised coordinates of the observations."""
    xy = np.zeros_like(tracks.uv_px)
    for i, camera in enumerate(images.cameras):
        rows = tracks.image == i
        xy[rows] = camera.normalize(tracks.uv_px[rows])
    return xy


def merge_duplicates(
    landmarks: TriangulatedTracks, descriptors: NDArray[np.float32], similarity: float
) -> tuple[Tracks, int]:
    """Join tracks of one physical point that were never linked (a loop, a lost track).

    Unlike the published merge, which looks at descriptors only, two tracks are joined when their median descriptors
    agree, their points lie within three standard deviations of each other, and no image saw both.

    Args:
        descriptors: (N, C) unit median descriptor per landmark.
        similarity: smallest cosine.

    Returns:
        The tracks, longest member first, and how many were absorbed.
    """
    n, tracks = len(landmarks), landmarks.tracks
    sigma = np.sqrt(np.trace(landmarks.covariance, axis1=1, axis2=2)) if n else np.zeros(0)
    # A few badly known points must not make every search ball as large as theirs.
    reach = 3.0 * np.minimum(sigma, np.median(sigma) * 4 if n else 0.0)
    pairs = cKDTree(landmarks.points).query_pairs(float(2 * reach.max()), output_type="ndarray") if n > 1 else None
    if pairs is None or not len(pairs):
        return tracks, 0
    a, b = pairs.T
    close = np.linalg.norm(landmarks.points[a] - landmarks.points[b], axis=1) <= np.hypot(reach[a], reach[b])
    a, b = a[close], b[close]
    cosine = np.einsum("ij,ij->i", descriptors[a], descriptors[b])
    alike = cosine >= similarity
    a, b, cosine = a[alike], b[alike], cosine[alike]
    seen = [0] * n
    for t, i in zip(tracks.track.tolist(), tracks.image.tolist()):
        seen[t] |= 1 << i
    owner, absorbed = np.arange(n), np.zeros(n, bool)
    for k in np.lexsort((b, a, -cosine)):
        i, j = int(a[k]), int(b[k])
        if absorbed[i] or absorbed[j] or seen[i] & seen[j]:
            continue
        if tracks.lengths[j] > tracks.lengths[i]:
            i, j = j, i
        owner[j], absorbed[j] = i, True
        seen[i] |= seen[j]
    while (owner[owner] != owner).any():  # one that absorbed others may have been absorbed itself
        owner = owner[owner]
    new_owner = owner[tracks.track]
    order = np.lexsort((tracks.image, new_owner))
    lengths = np.bincount(new_owner, minlength=n)[~absorbed]
    start = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return Tracks(start, tracks.image[order], tracks.keypoint[order], tracks.uv_px[order]), int(absorbed.sum())


def choose_landmarks(landmarks: TriangulatedTracks, maximum: int) -> TriangulatedTracks:
    """At most ``maximum`` landmarks: most views first, then widest parallax; their order is kept."""
    if len(landmarks) <= maximum:
        return landmarks
    rank = np.lexsort((-landmarks.parallax_deg, -landmarks.tracks.lengths))
    keep = np.zeros(len(landmarks), bool)
    keep[rank[:maximum]] = True
    return landmarks.subset(keep)


def _one_per_image(owner: NDArray[np.int64], image: NDArray[np.int64], error_px: Float) -> NDArray[np.bool_]:
    """Of several observations of a landmark in one image, only the best; input sorted by owner and image."""
    order = np.lexsort((error_px, image, owner))
    keep = np.ones(len(owner), bool)
    same = (owner[order[1:]] == owner[order[:-1]]) & (image[order[1:]] == image[order[:-1]])
    keep[order[1:][same]] = False
    return keep
