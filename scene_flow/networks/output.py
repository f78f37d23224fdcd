# SPDX-License-Identifier: Apache-2.0
"""What a flow network answers."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class FlowOutput(NamedTuple):
    """A row per source point of each of B samples.

    Attributes:
        flow: (B, N, 3) metres, refined.
        coarse: (B, N, 3) metres, as the transport gave it, before refinement.
        features: (B, N, C) of the source, what the consistency loss compares.
        confidence: (B, N) in [0, 1], 0 where unmatched; see ``scene_flow.networks.transport``. Carries no gradient.
        matched: (B, N) bool: the transport found somewhere for the point to go.
    """

    flow: Tensor
    coarse: Tensor
    features: Tensor
    confidence: Tensor
    matched: Tensor
