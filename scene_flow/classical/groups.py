# SPDX-License-Identifier: Apache-2.0
"""Many small registrations at once: groups of points, rigid motions of them, and what the motions explain.

A group of source points and a group of target points make a pair; a hypothesis is a pair and a motion. All hypotheses
are worked on together, because thousands of calls for a few dozen points each would take longer than the work.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

Float = NDArray[np.float64]
Int = NDArray[np.int64]
Bool = NDArray[np.bool_]

# The group's number is a fourth coordinate, so far apart that a neighbour of another group is never found.
APART_M = 1e4


@dataclass(frozen=True)
class Motions:
    """H rigid motions: ``R`` (H, 3, 3), ``t`` (H, 3)."""

    R: Float
    t: Float

    @classmethod
    def shifts(cls, t: Float) -> Motions:
        """Displacements (H, 3) without rotation."""
        return cls(np.tile(np.eye(3), (len(t), 1, 1)), np.array(t, dtype=np.float64))

    def __len__(self) -> int:
        return len(self.t)

    def __getitem__(self, rows: Int | Bool) -> Motions:
        return Motions(self.R[rows], self.t[rows])

    def join(self, other: Motions) -> Motions:
        """These, then those."""
        return Motions(np.concatenate([self.R, other.R]), np.concatenate([self.t, other.t]))

    def put(self, rows: Int | Bool, other: Motions) -> None:
        """Overwrite some, in place."""
        self.R[rows], self.t[rows] = other.R, other.t

    def inverse(self) -> Motions:
        """The motions back."""
        R = self.R.transpose(0, 2, 1)
        return Motions(R, -np.einsum("hij,hj->hi", R, self.t))

    def __call__(self, points: Float, which: Int) -> Float:
        """(N, 3) points, each moved by its motion ``which`` (N,)."""
        return np.einsum("nij,nj->ni", self.R[which], points) + self.t[which]


class PointGroups:
    """(N, 3) points by group (N,), 0 to ``count`` - 1, with a search tree that stays within a group.

    At most ``cap`` points of a group, evenly over its points, are looked up; all of them can be found.

    Attributes:
        points, noise_m: sorted by group; ``noise_m`` (N,) is the distance that means nothing at each.
        size: (count,) points per group.
        asked: (count,) of these, how many are looked up.
    """

    def __init__(self, points: Float, group: Int, noise_m: Float, count: int, cap: int) -> None:
        order = np.argsort(group, kind="stable")
        self.points, self.group, self.noise_m = points[order], group[order], noise_m[order]
        self.size = np.bincount(group, minlength=count)
        self._start = np.cumsum(self.size) - self.size
        self.asked = np.minimum(self.size, cap)
        self._tree = cKDTree(self._apart(self.points, self.group)) if len(points) else None

    def of(self, group: int, most: int) -> Float:
        """At most ``most`` points of one group, evenly over its points."""
        n = int(self.size[group])
        return self.points[self._start[group] + _evenly(n, min(n, most))]

    def rows(self, groups: Int) -> tuple[Int, Int]:
        """Rows of the points to look up of each of ``groups`` (H,) in turn, and the turn 0 to H - 1 of each row."""
        n = self.asked[groups]
        turn = np.repeat(np.arange(len(groups)), n)
        nth = np.arange(n.sum()) - np.repeat(np.cumsum(n) - n, n)
        # Integers only: the k-th of n asked points out of m is point k * m // n.
        return self._start[groups][turn] + nth * self.size[groups][turn] // n[turn], turn

    def nearest(self, points: Float, group: Int, within_m: float) -> tuple[Float, Int]:
        """Distance to, and row of, the nearest point of the group asked for; inf where none is near enough."""
        if self._tree is None or not len(points):
            return np.full(len(points), np.inf), np.zeros(len(points), dtype=np.int64)
        return self._tree.query(self._apart(points, group), distance_upper_bound=within_m)

    def centres(self) -> Float:
        """(count, 3) mean points; NaN of empty groups."""
        sums = [np.bincount(self.group, self.points[:, k], minlength=len(self.size)) for k in range(3)]
        with np.errstate(invalid="ignore"):
            return np.stack(sums, axis=1) / self.size[:, None]

    @staticmethod
    def _apart(points: Float, group: Int) -> Float:
        return np.column_stack([points, group * APART_M])


@dataclass(frozen=True)
class Matcher:
    """What motions between groups explain, and how they are refined.

    Attributes:
        source, target: the groups.
        reach_m: beyond a point's noise, the distance at which it counts as not explained at all.
        planar: motions stay level and turn only about z.
    """

    source: PointGroups
    target: PointGroups
    reach_m: float
    planar: bool

    def cost(self, sources: Int, targets: Int, motions: Motions) -> tuple[Float, Float]:
        """(H,) unexplained shares, 0 to 1, of the source groups (moved) and of the target groups (moved back).

        A point counts min(max(d - noise, 0) / reach, 1), d being the distance to the nearest of the other group. Both
        ways count, because a piece of a wall lies on the wall wherever it is shifted; 1 where there is nothing.
        """
        forth = self._one_cost(self.source, self.target, sources, targets, motions)
        back = self._one_cost(self.target, self.source, targets, sources, motions.inverse())
        return forth, back

    def _one_cost(self, here: PointGroups, there: PointGroups, a: Int, b: Int, motions: Motions) -> Float:
        rows, turn = here.rows(a)
        within_m = float(here.noise_m.max(initial=0)) + self.reach_m
        distance, _ = there.nearest(motions(here.points[rows], turn), b[turn], within_m)
        missing = np.clip((distance - here.noise_m[rows]) / self.reach_m, 0, 1)
        asked = here.asked[a]
        return np.where(asked > 0, np.bincount(turn, missing, minlength=len(a)) / np.maximum(asked, 1), 1.0)

    def refine(self, sources: Int, targets: Int, motions: Motions, radii_m: tuple[float, ...], turn: bool) -> Motions:
        """ICP of every hypothesis, point to point, both ways; counterparts within each radius in turn.

        Args:
            turn: whether the motions may rotate; if not, a rotation they have is lost.
        """
        for radius_m in radii_m:
            forth = self._counterparts(self.source, self.target, sources, targets, motions, radius_m)
            back = self._counterparts(self.target, self.source, targets, sources, motions.inverse(), radius_m)
            p, q = np.concatenate([forth[0], back[1]]), np.concatenate([forth[1], back[0]])
            weight, which = np.concatenate([forth[2], back[2]]), np.concatenate([forth[3], back[3]])
            motions = fit_motions(p, q, weight, which, motions, self.planar, turn)
        return motions

    def _counterparts(
        self, here: PointGroups, there: PointGroups, a: Int, b: Int, motions: Motions, radius_m: float
    ) -> tuple[Float, Float, Float, Int]:
        """Points, their counterparts, Tukey's weights, and the hypotheses they belong to."""
        rows, turn = here.rows(a)
        distance, other = there.nearest(motions(here.points[rows], turn), b[turn], radius_m)
        found = np.isfinite(distance)
        rows, turn, other = rows[found], turn[found], other[found]
        # Each way has weight 1 in all, however many points it has.
        weight = (1 - (distance[found] / radius_m) ** 2) ** 2 / here.asked[a][turn]
        return here.points[rows], there.points[other], weight, turn


def fit_motions(p: Float, q: Float, weight: Float, which: Int, before: Motions, planar: bool, turn: bool) -> Motions:
    """Weighted least squares of H motions at once: p (K, 3) to q (K, 3), row k for motion ``which[k]``.

    Kabsch's solution; about z alone it is an angle. Motions without points stay as ``before`` says.
    """
    n = len(before)
    total = np.bincount(which, weight, minlength=n)
    some = total > 1e-9
    total = np.maximum(total, 1e-9)
    mean_p, mean_q = (
        np.stack([np.bincount(which, weight * x[:, k], minlength=n) for k in range(3)], 1) / total[:, None]
        for x in (p, q)
    )
    R = np.tile(np.eye(3), (n, 1, 1))
    if turn:
        a, b = p - mean_p[which], (q - mean_q[which]) * weight[:, None]
        if planar:
            cos = np.bincount(which, a[:, 0] * b[:, 0] + a[:, 1] * b[:, 1], minlength=n)
            sin = np.bincount(which, a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0], minlength=n)
            angle = np.arctan2(sin, cos)
            R[:, 0, 0] = R[:, 1, 1] = np.cos(angle)
            R[:, 1, 0], R[:, 0, 1] = np.sin(angle), -np.sin(angle)
        else:
            products = [[np.bincount(which, a[:, i] * b[:, j], minlength=n) for j in range(3)] for i in range(3)]
            U, _, Vt = np.linalg.svd(np.array(products).transpose(2, 0, 1))
            Vt[:, 2] *= np.sign(np.linalg.det(U @ Vt))[:, None]
            R = (U @ Vt).transpose(0, 2, 1)
    t = mean_q - np.einsum("hij,hj->hi", R, mean_p)
    if planar:
        t[:, 2] = 0
    return Motions(np.where(some[:, None, None], R, before.R), np.where(some[:, None], t, before.t))


def _evenly(n: int, most: int) -> Int:
    return np.arange(most) * n // max(most, 1)
