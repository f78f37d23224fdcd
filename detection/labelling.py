# SPDX-License-Identifier: Apache-2.0
"""Labelling methods by name: the network of each, its training, and the labeller that uses it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from detection.config import LabellerConfig
from detection.pointobb.config import PointObbConfig, seed_faithful
from detection.problem import Labeller
from detection.training.loop import train
from detection.training.pool import Pool
from detection.training.task import Task
from vision3d.contracts import FitContext, Reader

LABEL = "labeller"


@dataclass(frozen=True)
class Labelling:
    """A labeller with the classes it knows and, where there is one, its network and how that came about."""

    labeller: Labeller
    classes: tuple[str, ...]
    net: nn.Module | None
    facts: dict[str, Any]


def build_network(config: LabellerConfig, classes: tuple[str, ...], seed: int) -> nn.Module | None:
    """A fresh network with weights that follow from the seed; None for a method without one."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        if config.method == "layout":
            from detection.pointobb.layout.network import LayoutNet

            return LayoutNet(config.layout, config.backbone, classes)
        if config.method == "class-map":
            from detection.pointobb.class_map.network import ClassMapNet

            return ClassMapNet(config.class_map, config.backbone, classes)
        if config.method in ("seed", "bags"):
            from detection.pointobb.network import PointObbNet

            net = PointObbNet(bag_config(config), config.backbone, classes)
            net.side_px.fill_(float(config.train.crop))  # untrained, it is offered the same boxes as trained
            return net
    return None


def make_labeller(config: LabellerConfig, net: nn.Module | None) -> Labeller:
    """What makes boxes with a network that :func:`build_network` made, or without one."""
    if config.method == "layout":
        from detection.pointobb.layout.labeller import LayoutLabeller
        from detection.pointobb.layout.network import LayoutNet

        assert isinstance(net, LayoutNet)
        return LayoutLabeller(net)
    if config.method == "class-map":
        from detection.pointobb.class_map.labeller import ClassMapLabeller
        from detection.pointobb.class_map.network import ClassMapNet

        assert isinstance(net, ClassMapNet)
        return ClassMapLabeller(net)
    if config.method in ("seed", "bags"):
        from detection.pointobb.labeller import PointObbLabeller
        from detection.pointobb.network import PointObbNet

        assert isinstance(net, PointObbNet)
        return PointObbLabeller(net)
    from detection.pointobb.layout.labeller import WatershedLabeller

    return WatershedLabeller(config.layout)


def fit_labeller(config: LabellerConfig, data: Reader, context: FitContext) -> Labelling:
    """Train the method's network on the points of ``data``; true boxes are never asked for."""
    pool = Pool(data, config.train.crop)
    net = build_network(config, pool.classes, context.seed)
    facts: dict[str, Any] = {"images": len(pool), "points": int(pool.counts.sum())}
    if net is not None:
        facts |= train(make_task(config, net, pool), config.train, context, LABEL)
    return Labelling(make_labeller(config, net), pool.classes, net, facts)


def make_task(config: LabellerConfig, net: nn.Module, pool: Pool) -> Task:
    """What the training of a network minimises."""
    if config.method == "layout":
        from detection.pointobb.layout.network import LayoutNet
        from detection.pointobb.layout.task import LayoutTask

        assert isinstance(net, LayoutNet)
        return LayoutTask(net, pool, config.layout, config.train)
    if config.method == "class-map":
        from detection.pointobb.class_map.network import ClassMapNet
        from detection.pointobb.class_map.task import ClassMapTask

        assert isinstance(net, ClassMapNet)
        return ClassMapTask(net, pool, config.class_map, config.train)
    from detection.pointobb.network import PointObbNet
    from detection.pointobb.task import PointObbTask

    assert isinstance(net, PointObbNet)
    return PointObbTask(net, pool, bag_config(config), config.train)


def bag_config(config: LabellerConfig) -> PointObbConfig:
    """PointOBB's options: with its published faults for method ``seed``."""
    return seed_faithful(config.pointobb) if config.method == "seed" else config.pointobb
