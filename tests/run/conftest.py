# SPDX-License-Identifier: Apache-2.0
"""The toy plug-in for the runner's tests."""

from __future__ import annotations

from plugin_fixtures import curves, numbers, site, toys, vision3d

__all__ = ["curves", "numbers", "site", "toys", "vision3d"]
