# SPDX-License-Identifier: Apache-2.0
"""Boxes from points by a map of classes and its principal axes (after PointOBB-v2): quick to train, quick to label."""
