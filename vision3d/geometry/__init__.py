# SPDX-License-Identifier: Apache-2.0
"""Cameras, rigid motions, triangulation and pose from points: arrays in, arrays out."""
