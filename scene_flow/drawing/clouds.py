# SPDX-License-Identifier: Apache-2.0
"""A pair and its flow as layers to be turned around in the report."""

from __future__ import annotations

import numpy as np

from scene_flow.drawing.colors import error_colors, flow_colors, full_strength
from scene_flow.drawing.panels import upright
from scene_flow.drawing.sheet import SOURCE, WARPED, flow_error, own_motion
from vision3d.types import CloudLayer, CloudPair, CloudView, FlowResult, FlowTruth

_TARGET = np.array((150, 155, 160), dtype=np.uint8)


def flow_cloud_view(sample: CloudPair, result: FlowResult, truth: FlowTruth | None = None) -> CloudView | None:
    """Layers: flow (points in its colours), first scan, second scan, first scan moved, and errors where known.

    Points are given as (right, forward, up), so that every viewer shows them upright.
    """
    if result.flow is None:
        return None
    motion, _ = own_motion(sample, result)
    horizontal = upright(motion, sample.axes)[:, :2]
    source = upright(sample.source, sample.axes).astype(np.float32)
    layers = [
        CloudLayer("flow", source, flow_colors(horizontal, full_strength(horizontal))),
        CloudLayer("second scan", upright(sample.target, sample.axes).astype(np.float32), _TARGET),
        CloudLayer("first scan", source, np.array(SOURCE, dtype=np.uint8)),
        CloudLayer(
            "first scan, moved",
            upright(sample.source + result.flow, sample.axes).astype(np.float32),
            np.array(WARPED, dtype=np.uint8),
        ),
    ]
    if truth is not None:
        error = flow_error(result.flow, truth)
        known = np.isfinite(error)
        layers.append(CloudLayer("error", source[known], error_colors(error[known])))
    return CloudView(sample.name, tuple(layers), np.array([0.0, 0.0, 1.0]))
