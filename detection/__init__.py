# SPDX-License-Identifier: Apache-2.0
"""Oriented detection: rotated boxes from points and from boxes."""
