# SPDX-License-Identifier: Apache-2.0
"""vision3d: 3D and vision perception that is sparse by construction."""

__version__ = "0.1.0"
