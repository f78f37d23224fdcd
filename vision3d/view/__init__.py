# SPDX-License-Identifier: Apache-2.0
"""Pictures of results. Nothing below this floor imports it, and nothing here computes a result."""

from __future__ import annotations

from vision3d.view.null import NullViewer

__all__ = ["NullViewer"]
