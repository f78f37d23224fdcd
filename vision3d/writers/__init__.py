# SPDX-License-Identifier: Apache-2.0
"""One file per data format, samples -> files: the other way round of vision3d.readers."""
