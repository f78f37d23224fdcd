# SPDX-License-Identifier: Apache-2.0
"""The detector of detection.fcos: fitted to boxes, stored, loaded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from detection.config import DetectorConfig
from detection.fcos.detector import FcosDetector
from detection.fcos.network import FcosNet
from detection.fcos.task import FcosTask
from detection.problem import Detections, Detector
from detection.training.loop import train
from detection.training.pool import Pool
from detection.training.store import fill_network, read_document
from vision3d.contracts import FitContext, Reader

DETECTOR = "detector"


@dataclass(frozen=True)
class Trained:
    """A detector with its network, its classes and how it came about."""

    detector: Detector
    net: FcosNet
    classes: tuple[str, ...]
    facts: dict[str, Any]


def build_detector(config: DetectorConfig, classes: tuple[str, ...], seed: int) -> FcosNet:
    """A fresh network with weights that follow from the seed."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return FcosNet(config.fcos, config.backbone, classes)


def fit_detector(
    config: DetectorConfig, data: Reader, boxes: Callable[[int], Detections], context: FitContext
) -> tuple[FcosNet, tuple[str, ...], dict[str, Any]]:
    """Train on the images of ``data`` with the given boxes; their scores are weights."""
    pool = Pool(data, config.train.crop, boxes)
    net = build_detector(config, pool.classes, context.seed)
    facts = train(FcosTask(net, pool, config.fcos, config.train), config.train, context, DETECTOR)
    return net, pool.classes, {"images": len(pool), "boxes": int(pool.counts.sum()), **facts}


def load_detector(folder: Path, config: DetectorConfig) -> Trained:
    """The detector that ``save_network(folder, DETECTOR, ...)`` wrote.

    Raises:
        DataError: it is damaged, or of another architecture.
    """
    document = read_document(folder, DETECTOR, DETECTOR)
    classes = tuple(document["classes"])
    config = replace(config, backbone=replace(config.backbone, weights=None))  # all weights lie in the folder
    net = build_detector(config, classes, 0)
    fill_network(net, folder, DETECTOR, document)
    return Trained(FcosDetector(net, config.fcos, classes), net, classes, document["facts"])
