# SPDX-License-Identifier: Apache-2.0
"""Backbones and blocks that tasks share."""
