# SPDX-License-Identifier: Apache-2.0
"""Every number that the truths allow, in one pass over the pairs with one pair in memory at a time.

Conventions, in full in docs/scene-flow.md:

- Plain numbers average inside a pair first and then over pairs; the Argoverse 2 protocols average over points.
- A pair without an answer, and every flow that is not finite, is infinitely wrong: error infinite, accuracies 0,
  outliers 1. It stays in every mean, so one failure makes the EPE infinite.
- A pair whose truth holds no valid point cannot be scored; such pairs are counted in ``pairs_without_truth``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from scene_flow.metrics.buckets import Buckets
from scene_flow.metrics.pair import ScoredPair, score_pair
from scene_flow.metrics.pixels import PixelScores
from scene_flow.metrics.plain import MotionScores, PlainScores, SampledScores
from scene_flow.metrics.three_way import ThreeWay
from vision3d.types import FlowResult, FlowTruth, Metric


class Score(Protocol):
    """Takes pairs one by one and then says what it found."""

    def add(self, pair: ScoredPair) -> None:
        """Count a pair, or leave it out where its truth lacks what this score needs."""
        ...

    def metrics(self) -> list[Metric]:
        """The numbers over all counted pairs; empty when there were none."""
        ...


SCORES: tuple[Callable[[], Score], ...] = (PlainScores, MotionScores, SampledScores, PixelScores, ThreeWay, Buckets)


def score_flow(results: Sequence[FlowResult], truths: Sequence[FlowTruth]) -> list[Metric]:
    """Metrics of ``results``, where ``results[i]`` belongs to ``truths[i]``; both may be read lazily.

    Raises:
        ValueError: there are more of one than of the other.
        UserError: a result does not belong to its truth, named by its pair.
    """
    scores = [make() for make in SCORES]
    total = without_truth = 0
    for pair in scored_pairs(results, truths):
        total += 1
        if not len(pair):
            without_truth += 1
            continue
        for score in scores:
            score.add(pair)
    metrics = [metric for score in scores for metric in score.metrics()]
    if without_truth:
        metrics.append(Metric("pairs_without_truth", without_truth, "", "lower", total))
    return metrics


def scored_pairs(results: Sequence[FlowResult], truths: Sequence[FlowTruth]) -> Iterator[ScoredPair]:
    """The pairs one after the other, each read when it is asked for.

    Raises:
        ValueError: there are more results than truths, or fewer.
    """
    if len(results) != len(truths):
        raise ValueError(f"{len(results)} results for {len(truths)} truths")
    for i in range(len(truths)):
        yield score_pair(results[i], truths[i])
