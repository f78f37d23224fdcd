# SPDX-License-Identifier: Apache-2.0
"""Batches follow from seed and step alone, whoever makes them and from wherever they are begun."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from tiny_training import Drawn

from scene_flow.training.batches import Batch, Batches, epoch_order, held_out
from scene_flow.training.config import TrainConfig
from scene_flow.training.scenes import scene_as_known
from vision3d.errors import DataError
from vision3d.types import CloudPair, FlowTruth

CONFIG = TrainConfig(batch=2, points=20, workers=0)


def batches(reader: Any = None, config: TrainConfig = CONFIG, seed: int = 0, **options: Any) -> Batches:
    return Batches(reader or Drawn(), config, seed, scene_as_known, options.pop("log", lambda _: None), **options)


def equal(a: Batch, b: Batch) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b))


def test_a_stream_begun_late_is_the_rest_of_one_begun_early() -> None:
    with batches() as made:
        whole, rest = list(made.steps(0, 20)), list(made.steps(13, 20))
    assert len(whole) == 20
    assert all(equal(a, b) for a, b in zip(whole[13:], rest, strict=True))
    assert not equal(whole[0], whole[6])  # the first step of the second epoch


def test_every_epoch_visits_every_pair_once_in_another_order() -> None:
    first, second = epoch_order(0, 0, 12), epoch_order(0, 1, 12)
    assert sorted(first) == sorted(second) == list(range(12))
    assert first != second
    assert epoch_order(1, 0, 12) != first
    with batches() as made:
        seen = torch.cat([batch.flow[:, 0] for batch in made.steps(0, 6)])
    truths = np.stack([Drawn().truth(i).flow[0] for i in range(12)])  # type: ignore[union-attr]
    np.testing.assert_array_equal(np.sort(seen.numpy(), axis=0), np.sort(truths, axis=0))


def test_points_are_drawn_anew_each_epoch() -> None:
    with batches(Drawn(pairs=2)) as made:
        first, second = made.steps(0, 2)
    rows = [epoch_order(0, epoch, 2).index(0) for epoch in (0, 1)]
    a, b = first.source[rows[0]], second.source[rows[1]]
    assert torch.equal(first.flow[rows[0], 0], second.flow[rows[1], 0])  # the same pair
    assert not torch.equal(a.sort(0)[0], b.sort(0)[0])


def test_seeds_differ() -> None:
    with batches() as a, batches(seed=1) as b:
        assert not equal(next(a.steps(0, 1)), next(b.steps(0, 1)))


@pytest.mark.parametrize("workers", [1, 3])
def test_threads_change_nothing(workers: int) -> None:
    config = replace(CONFIG, validate=3, augment="all")
    with batches(config=config) as alone, batches(config=replace(config, workers=workers)) as helped:
        for a, b in zip(alone.steps(0, 9), helped.steps(0, 9), strict=True):
            assert equal(a, b)
        for a, b in zip(alone.validation(), helped.validation(), strict=True):
            assert equal(a, b)


def test_processes_share_the_steps_of_one() -> None:
    with batches(config=replace(CONFIG, batch=4)) as alone:
        whole = list(alone.steps(0, 6))
    shares = []
    for rank in range(2):
        with batches(rank=rank, size=2) as made:
            shares.append(list(made.steps(0, 6)))
    for one, left, right in zip(whole, *shares, strict=True):
        assert equal(one, Batch(*(torch.cat(parts) for parts in zip(left, right))))


def test_held_out_pairs_are_spread_evenly_and_not_trained_on() -> None:
    """The card: 2,000 of 19,640, indices linspace(0, 19639, 2000)."""
    assert held_out(19_640, 2000) == np.linspace(0, 19_639, 2000).round().astype(int).tolist()
    assert held_out(10, 0) == []
    assert len(held_out(200, 0.1)) == 20
    assert held_out(10, 0.01) == [0]
    assert len(held_out(4, 4)) == 3
    with batches(config=replace(CONFIG, validate=3)) as made:
        assert made.held_out == [0, 6, 11]  # 5.5 rounds to even
        assert sorted([*made.training, *made.held_out]) == list(range(12))
        first, again = list(made.validation()), list(made.validation())
    assert [len(batch.source) for batch in first] == [2, 1]
    assert all(equal(a, b) for a, b in zip(first, again, strict=True))


def test_validation_is_shared_by_processes() -> None:
    config = replace(CONFIG, validate=5)
    with batches(config=config) as made:
        alone = torch.cat([batch.flow for batch in made.validation()])
    shares = []
    for rank in range(2):
        with batches(config=config, rank=rank, size=2) as made:
            shares.append(torch.cat([batch.flow for batch in made.validation()]))
    assert [len(share) for share in shares] == [3, 2]
    assert torch.equal(torch.stack([alone[0], alone[2], alone[4]]), shares[0])


class Faulty(Drawn):
    """Pairs 3 to 5 have no point that counts, pair 7 has no truth when asked for it."""

    def __init__(self, without_truth: bool = False, hopeless: bool = False) -> None:
        super().__init__(points=35)
        self.without_truth, self.hopeless = without_truth, hopeless

    def truth(self, index: int) -> FlowTruth | None:
        if self.without_truth and index == 7:
            return None
        truth = super().truth(index)
        assert truth is not None
        return replace(truth, valid=~truth.valid) if self.hopeless or index in (3, 4, 5) else truth


@pytest.mark.parametrize("workers", [0, 2])
def test_unusable_pairs_are_replaced_and_said_once(workers: int) -> None:
    lines: list[str] = []
    with batches(Faulty(), replace(CONFIG, points=40, workers=workers), log=lines.append) as made:
        flows = [batch.flow for batch in made.steps(0, 6)]
    seen = torch.cat(flows)[:, 0].tolist()
    next_one = Drawn(points=35).truth(6).flow[0].tolist()  # type: ignore[union-attr]
    assert seen.count(next_one) == 4
    assert len(lines) == 2
    assert sum("pair-" in line and "fewer than the 40" in line for line in lines) == 1
    assert sum("too few points to learn from" in line for line in lines) == 1


def test_clouds_that_fill_few_voxels_are_replaced() -> None:
    """The pairs fill a cube of 2 m; pair 2 is squeezed into one of 2 cm."""

    class Squeezed(Drawn):
        def __getitem__(self, index: int) -> CloudPair:
            pair = super().__getitem__(index)
            return replace(pair, source=pair.source / 100) if index == 2 else pair

    lines: list[str] = []
    reader, config = Squeezed(points=200), replace(CONFIG, points=100)
    with batches(reader, config, log=lines.append, voxel_size_m=0.3) as made:
        sources = torch.cat([batch.source for batch in made.steps(0, 6)])
    assert sources.abs().amax((1, 2)).min() > 0.5
    assert len(lines) == 1
    assert lines[0].startswith("pair-2 fills fewer than 32 voxels of 0.3 m: the next pair takes its place")
    with batches(reader, config, voxel_size_m=9.0) as made, pytest.raises(DataError, match="drawn: no pair has enough"):
        list(made.steps(0, 1))


def test_pairs_without_truth_are_refused() -> None:
    with batches(Faulty(without_truth=True)) as made, pytest.raises(DataError, match="pair-7: has no true flow"):
        list(made.steps(0, 6))
    with batches(Faulty(hopeless=True)) as made, pytest.raises(DataError, match="drawn: no pair has enough points"):
        list(made.steps(0, 6))


def test_the_pairs_axes_decide() -> None:
    class Lidar(Drawn):
        def __getitem__(self, index: int) -> CloudPair:
            return replace(super().__getitem__(index), axes="lidar")

    with batches() as camera, batches(Lidar()) as lidar:
        a, b = next(camera.steps(0, 1)), next(lidar.steps(0, 1))
    assert torch.equal(a.source[..., [1, 2, 0]], b.source)
    assert torch.equal(a.flow[..., [1, 2, 0]], b.flow)
