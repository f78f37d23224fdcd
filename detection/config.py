# SPDX-License-Identifier: Apache-2.0
"""Every option of oriented detection. Imports no torch, so that `--help` and config files stay quick."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from detection.dota.config import TileConfig
from detection.fcos.config import FcosConfig
from detection.metrics.config import MetricsConfig
from detection.networks.config import BackboneConfig
from detection.pointobb.class_map.config import ClassMapConfig
from detection.pointobb.config import PointObbConfig
from detection.pointobb.layout.config import LayoutConfig
from detection.training.config import TrainConfig
from vision3d.errors import check_ranges

Method = Literal["layout", "seed", "bags", "class-map", "watershed"]
METHODS: tuple[Method, ...] = ("layout", "seed", "bags", "class-map", "watershed")
Format = Literal["dota", "task1", "task2", "coco"]


@dataclass(frozen=True)
class LabellerConfig:
    """From one point per object to an oriented box.

    Attributes:
        method: layout (bounds from the image and from neighbours, ours), seed (PointOBB as published), bags (PointOBB
            with sizes from the density of points and without its slips), class-map (PointOBB-v2's idea, the fastest),
            watershed (no network).
        backbone: of the network that learns to label.
        layout: options of method layout.
        pointobb: options of methods seed and bags.
        class_map: options of method class-map.
        train: of that network. The learning rate suits layout and class-map; seed and bags want 5e-4.
    """

    method: Method = "layout"
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    layout: LayoutConfig = field(default_factory=LayoutConfig)
    pointobb: PointObbConfig = field(default_factory=PointObbConfig)
    class_map: ClassMapConfig = field(default_factory=ClassMapConfig)
    train: TrainConfig = field(default_factory=lambda: TrainConfig(lr=2e-3))


@dataclass(frozen=True)
class DetectorConfig:
    """An anchor-free rotated detector.

    Attributes:
        backbone: of the detector.
        fcos: its head and its decoding.
        train: of the detector.
        tiles: how images larger than a window are cut and merged.
    """

    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    fcos: FcosConfig = field(default_factory=FcosConfig)
    train: TrainConfig = field(default_factory=lambda: TrainConfig(lr=1e-3))
    tiles: TileConfig = field(default_factory=TileConfig)


@dataclass(frozen=True)
class OutputConfig:
    """What every pipeline of oriented detection measures and writes.

    Attributes:
        metrics: how results are measured.
        write: files beside the results: dota (labelTxt), task1 and task2 (zip for DOTA's server), coco (rotated boxes
            as JSON).
    """

    metrics: MetricsConfig = field(default_factory=MetricsConfig)
    write: tuple[Format, ...] = ("dota", "task1")


@dataclass(frozen=True)
class PseudoBoxesConfig(OutputConfig):
    """Pseudo boxes: one oriented box per point.

    Attributes:
        labeller: how a box is found.
    """

    labeller: LabellerConfig = field(default_factory=LabellerConfig)


@dataclass(frozen=True)
class RotatedFcosConfig(OutputConfig):
    """A rotated detector that is trained on boxes.

    Attributes:
        detector: the network, its training and its tiles.
    """

    detector: DetectorConfig = field(default_factory=DetectorConfig)


@dataclass(frozen=True)
class ChainConfig(OutputConfig):
    """Points to pseudo boxes to a detector (PointOBB, Luo et al., CVPR 2024, and what came after).

    Attributes:
        labeller: how points become boxes.
        labeller_model: folder that `fit pseudo-boxes` or `fit pointobb` wrote with the same labeller options: its
            labeller is used, and none is trained.
        min_score: pseudo boxes below this score teach the detector nothing.
        min_side: nor do pseudo boxes with a side shorter than this, in pixels.
        mmrotate: also write the images with their pseudo boxes, and configs that train on them, for MMRotate.
        detector: what learns from the boxes.
    """

    labeller: LabellerConfig = field(default_factory=LabellerConfig)
    labeller_model: Path | None = None
    min_score: float = 0.05
    min_side: float = 2.0
    mmrotate: bool = False
    detector: DetectorConfig = field(default_factory=DetectorConfig)

    def __post_init__(self) -> None:
        check_ranges("pipeline", self, min_score=(0, 1), min_side=(0, 1000))


@dataclass(frozen=True)
class OracleConfig(OutputConfig):
    """The labels themselves as results, by way of tiles: what a score can reach at most.

    Attributes:
        tiles: how the labels are cut and merged; a detector's images are cut and merged the same way.
    """

    tiles: TileConfig = field(default_factory=TileConfig)


@dataclass(frozen=True)
class DetectionsConfig(OutputConfig):
    """Results of another program, read from its files.

    Attributes:
        results: zip or folder of `Task1_<class>.txt` files, or a run folder of vision3d.
    """

    results: Path | None = None
