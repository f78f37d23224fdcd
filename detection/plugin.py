# SPDX-License-Identifier: Apache-2.0
"""How oriented detection announces itself to the runner. Imports no torch."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from detection import config as options
from detection.training.config import TrainConfig
from vision3d.contracts import PipelineSpec
from vision3d.errors import DataError, UserError

TINY = TrainConfig(steps=2, batch=1, crop=96)


def _chain(config: Any) -> Any:
    from detection.pipelines.chain import ChainPipeline

    return ChainPipeline(config)


def _pseudo(config: Any) -> Any:
    from detection.pipelines.pseudo import PseudoPipeline

    return PseudoPipeline(config)


def _detector(config: Any) -> Any:
    from detection.pipelines.detector import DetectorPipeline

    return DetectorPipeline(config)


def _oracle(config: Any) -> Any:
    from detection.pipelines.oracle import OraclePipeline

    return OraclePipeline(config)


def _detections(config: Any) -> Any:
    from detection.pipelines.imported import ImportedPipeline

    return ImportedPipeline(config)


def tiny(config: Any) -> Any:
    """Two steps instead of a training."""
    for part in ("labeller", "detector"):
        if hasattr(config, part):
            config = replace(config, **{part: replace(getattr(config, part), train=TINY)})
    return config


def labeller_model(config: options.PseudoBoxesConfig) -> Path | None:
    """None for the method without a network.

    Raises:
        UserError: the others need one that was fitted.
    """
    if config.labeller.method != "watershed":
        raise UserError(
            "pipeline 'pseudo-boxes' needs --model, a folder that `vision3d fit pseudo-boxes` wrote; only "
            "--labeller.method watershed needs none"
        )
    return None


def results_given(config: options.DetectionsConfig) -> Path | None:
    """No model ever.

    Raises:
        UserError: no file of results is named.
        DataError: it is not there.
    """
    if config.results is None:
        raise UserError("pipeline 'detections' needs --results, a zip or folder of Task1_<class>.txt files")
    if not config.results.exists():
        raise DataError(config.results, "no such file or folder of results")
    return None


POINTOBB = PipelineSpec(
    name="pointobb",
    summary="oriented boxes: points to pseudo boxes to a detector (CVPR 2024 and after)",
    samples="LabeledImage",
    config_type=options.ChainConfig,
    make=_chain,
    tiny=tiny,
)
PSEUDO_BOXES = PipelineSpec(
    name="pseudo-boxes",
    summary="oriented boxes: one box per point, to train a detector on",
    samples="LabeledImage",
    config_type=options.PseudoBoxesConfig,
    make=_pseudo,
    default_model=labeller_model,
    tiny=tiny,
)
ROTATED_FCOS = PipelineSpec(
    name="rotated-fcos",
    summary="oriented boxes: an anchor-free detector, trained on boxes",
    samples="LabeledImage",
    config_type=options.RotatedFcosConfig,
    make=_detector,
    tiny=tiny,
)
ORACLE = PipelineSpec(
    name="oracle",
    summary="oriented boxes: the labels themselves, cut into tiles and merged; what a score can reach",
    samples="LabeledImage",
    config_type=options.OracleConfig,
    make=_oracle,
    has_fit=False,
)
DETECTIONS = PipelineSpec(
    name="detections",
    summary="oriented boxes: results of another program, read from Task1 files",
    samples="LabeledImage",
    config_type=options.DetectionsConfig,
    make=_detections,
    has_fit=False,
    default_model=results_given,
)
