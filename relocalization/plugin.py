# SPDX-License-Identifier: Apache-2.0
"""How relocalization announces itself to the runner. Imports no torch."""

from __future__ import annotations

from typing import Any

from relocalization.config import FavorConfig
from vision3d.contracts import Pipeline, PipelineSpec


def _make(config: Any) -> Pipeline:
    from relocalization.pipeline import FavorPipeline

    return FavorPipeline(config)


FAVOR = PipelineSpec(
    name="favor",
    summary="camera pose from one image: landmarks that render their own descriptors (FaVoR, WACV 2025)",
    samples="Frame",
    config_type=FavorConfig,
    make=_make,
)
