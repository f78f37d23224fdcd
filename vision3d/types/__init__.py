# SPDX-License-Identifier: Apache-2.0
"""Samples, truths, results and what a run shows: the nouns that readers, tasks and the runner share."""

from vision3d.types.clouds import FLOW_CLASSES, CloudPair, FlowResult, FlowTruth
from vision3d.types.frames import Float, Frame, FrameTruth, PoseResult
from vision3d.types.images import BoxResult, BoxTruth, LabeledImage
from vision3d.types.shows import Chart, CloudLayer, CloudView, Exhibit, Metric, Scene, Table

__all__ = [
    "FLOW_CLASSES",
    "BoxResult",
    "BoxTruth",
    "Chart",
    "CloudLayer",
    "CloudPair",
    "CloudView",
    "Exhibit",
    "Float",
    "FlowResult",
    "FlowTruth",
    "Frame",
    "FrameTruth",
    "LabeledImage",
    "Metric",
    "PoseResult",
    "Scene",
    "Table",
]
