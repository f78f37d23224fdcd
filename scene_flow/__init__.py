# SPDX-License-Identifier: Apache-2.0
"""Scene flow: the motion of every point between two scans."""
