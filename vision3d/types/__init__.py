# SPDX-License-Identifier: Apache-2.0
"""Samples, truths, results and what a run shows: the nouns that readers, tasks and the runner share."""

from vision3d.types.clouds import FLOW_CLASSES, CloudPair, FlowResult, FlowTruth
from vision3d.types.frames import Float, Frame, FrameTruth, PoseResult
from vision3d.types.shows import Chart, CloudLayer, CloudView, Exhibit, Metric, Scene

__all__ = [
    "FLOW_CLASSES",
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
    "Metric",
    "PoseResult",
    "Scene",
]
