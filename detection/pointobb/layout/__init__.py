# SPDX-License-Identifier: Apache-2.0
"""Boxes from points by the layout of the points and the edges of the image."""
