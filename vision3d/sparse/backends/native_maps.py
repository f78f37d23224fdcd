# SPDX-License-Identifier: Apache-2.0
"""Stand-in until the compiled maps land."""

from vision3d.sparse.backends.reference_maps import *  # noqa: F403
