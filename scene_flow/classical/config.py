# SPDX-License-Identifier: Apache-2.0
"""Options of the methods that need no training. Imports no torch, so that `--help` and config files stay quick."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from scene_flow.classical.nsfp_config import NsfpConfig
from vision3d.errors import check_ranges

__all__ = ["ClusterConfig", "EgoConfig", "GroundConfig", "IcpConfig", "NsfpConfig"]


@dataclass(frozen=True)
class GroundConfig:
    """Which points are ground. Ground carries no flow of its own, and its scan rings look like motion.

    Attributes:
        mode: ``auto`` takes what the data says, else estimates on lidar axes and removes nothing on camera axes;
            ``given`` takes only what the data says, ``estimate`` ignores it, ``none`` removes nothing.
        height_m: points lower than this above the ground's surface are ground: kerbs (0.15 m) and noise are, and a
            pedestrian loses no more than the feet. The labels of Argoverse 2 use the same 0.3 m.
        cell_m: width of the cells whose low points carry the surface: some ground shows in most cells of this width,
            and a slope rises little within one.
        knot_m: spacing of the surface's knots: small enough for the crest of a road, large enough to bridge a lorry.
        stiffness: weight of the surface's curvature against its distance from the cells' low points. Made-up
            streets lose 2 % of the ground at 0.1 and at 0.3, and half of it on steep hills at 3.
        scale_m: cells higher than this above the surface hardly pull at it; a few times a LiDAR's noise.
        min_contrast: how many times denser points must lie on the surface than just above ``height_m``, else the scan
            is held to have no ground (somebody took it away). Real and made-up scans have 2.6 and more with their
            ground, 1.1 and less without.
        range_m: nothing farther than this from the sensor is ground: too few beams come down there to tell.
    """

    mode: Literal["auto", "none", "given", "estimate"] = "auto"
    height_m: float = 0.3
    cell_m: float = 1.0
    knot_m: float = 4.0
    stiffness: float = 0.2
    scale_m: float = 0.1
    min_contrast: float = 1.7
    range_m: float = 120.0

    def __post_init__(self) -> None:
        check_ranges("ground", self, height_m=(0.01, 5), cell_m=(0.1, 20), knot_m=(1, 100), stiffness=(1e-3, 1e6))
        check_ranges("ground", self, scale_m=(0.005, 2), min_contrast=(0, 1000), range_m=(5, 500))


@dataclass(frozen=True)
class IcpConfig:
    """One rigid motion between two clouds by generalized ICP, coarse to fine (Segal, Haehnel, Thrun, RSS 2009).

    Attributes:
        voxel_m: cells of the fine clouds, one point each: about the spacing of a LiDAR's points at mid range.
        coarse_voxel_m: cells of the coarse clouds, which find the way in.
        radius_m: farthest counterpart at the end. Movers and what one scan does not see are farther. At 0.2 and 0.3 m
            made-up streets come out 0.3 cm off, at 1 m 1.4 cm; a KITTI scene that a near car fills to a quarter
            comes out 1 cm off at 0.2 m and 20 cm at 0.3 m.
        coarse_radius_m: farthest counterpart at the start: more than a fast car drives between two scans.
        yaw_starts: turns about the vertical that are tried, evenly over the circle, when starting from no motion
            fits badly; from within 15 degrees of the truth it fits. 1 tries none.
        good_fitness: share of points with a counterpart within ``voxel_m`` from which on a fit is not bad. Right fits
            of made-up streets have 0.74 and more, wrong ones 0.33 and less.
        threads: more than 1 is faster, and the last digits then differ from run to run.
    """

    voxel_m: float = 0.3
    coarse_voxel_m: float = 1.0
    radius_m: float = 0.2
    coarse_radius_m: float = 5.0
    yaw_starts: int = 18
    good_fitness: float = 0.6
    threads: int = 1

    def __post_init__(self) -> None:
        check_ranges("icp", self, voxel_m=(0.001, 10), coarse_voxel_m=(0.001, 50), radius_m=(0.001, 50))
        check_ranges(
            "icp", self, coarse_radius_m=(0.001, 500), yaw_starts=(1, 360), good_fitness=(0, 1), threads=(1, 256)
        )


@dataclass(frozen=True)
class EgoConfig:
    """The sensor's own motion, which is undone before a method looks.

    Attributes:
        mode: ``auto`` takes what the data knows, else registers the scans on lidar axes and does nothing on camera
            axes; ``given`` takes only what the data knows, ``icp`` ignores it, ``none`` undoes nothing.
        gate_m: what moves less than this against the static world in 0.1 s stands still: its flow becomes the sensor's.
            0.05 m is 0.5 m/s, Argoverse 2's bound of what is dynamic, and the error up to which a point counts as
            right (Acc3DS): setting less to zero costs no accurate point. 0 turns it off.
        min_fitness: an estimated motion that fits a smaller share of the points than this is not to be trusted.
        icp: how the scans are registered.
    """

    mode: Literal["auto", "none", "given", "icp"] = "auto"
    gate_m: float = 0.05
    min_fitness: float = 0.5
    icp: IcpConfig = field(default_factory=IcpConfig)

    def __post_init__(self) -> None:
        check_ranges("ego", self, gate_m=(0, 10), min_fitness=(0, 1))


@dataclass(frozen=True)
class ClusterConfig:
    """One rigid motion per cluster of points.

    Attributes:
        radius_m: points closer than this belong together; parked cars are farther apart, a body's scan lines closer.
        splits: how often what still stands unexplained, or is too long, is cut again by half the radius: once frees a
            quarter of the movers that touch parked cars. 0: never. Twice finds more, and more that does not move.
        thin_m: cells, one point each, that clusters are matched in; twice as wide loses a tenth of the accuracy.
        min_points: clusters of fewer points, both scans together, stand still: their shape says nothing.
        max_extent_m: clusters longer than this on the ground stand still: they are houses and hedges, not lorries.
        max_points: of a cluster and scan that are compared; more are thinned out evenly.
        max_speed_mps: fastest mover; times the time between the scans, it is the window of displacements. ICP-Flow's
            16.7 loses fast cars (made-up streets with up to 20 m/s: error 0.34 m, at 25 0.07 m); 33 costs little.
        min_speed_mps: slower is standing still: Argoverse 2's bound of what is dynamic.
        seeds: displacements that most pairs of points agree on, per cluster.
        refined: of these, how many are refined by ICP; standing still always is, too.
        noise_m: distances that count as none at the least; where the scans' own points lie farther apart, that counts.
        reach_m: beyond noise, the distance at which a point counts as not explained at all.
        max_cost: a cluster moves only if moving leaves at most this share of what standing still leaves unexplained
            (0.6 where it explains 60 points more),
        min_gain: and if it explains this share of the cluster's points more,
        min_gain_points: plus this number of points, so that small clusters need more. In made-up streets these
            three move 0.4 % of the points that stand still; a ``max_cost`` of 0.6 moves 1.4 %, a ``min_gain`` of 0.02
            1.9 %.
        planar: movers stay level and turn only about the vertical. ``auto``: on lidar axes.
        global_first: register the clouds as a whole first, then look for clusters that move against it. ``auto``: where
            the sensor's motion is not undone already.
    """

    radius_m: float = 0.5
    splits: int = 1
    thin_m: float = 0.1
    min_points: int = 20
    max_extent_m: float = 20.0
    max_points: int = 2000
    max_speed_mps: float = 25.0
    min_speed_mps: float = 0.5
    seeds: int = 5
    refined: int = 2
    noise_m: float = 0.05
    reach_m: float = 0.2
    max_cost: float = 0.4
    min_gain: float = 0.05
    min_gain_points: float = 3.0
    planar: Literal["auto", "yes", "no"] = "auto"
    global_first: Literal["auto", "yes", "no"] = "auto"

    def __post_init__(self) -> None:
        check_ranges(
            "cluster",
            self,
            radius_m=(0.001, 100),
            splits=(0, 5),
            thin_m=(0.001, 10),
            min_points=(2, 10**6),
            seeds=(1, 100),
        )
        check_ranges("cluster", self, max_extent_m=(0.01, 1000), max_points=(10, 10**6), refined=(1, 100))
        check_ranges("cluster", self, max_speed_mps=(0.01, 200), min_speed_mps=(0, 200), noise_m=(1e-4, 10))
        check_ranges("cluster", self, reach_m=(1e-3, 10), max_cost=(0, 1), min_gain=(0, 1), min_gain_points=(0, 1000))
