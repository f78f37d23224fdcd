# SPDX-License-Identifier: Apache-2.0
"""Sparse layers as torch modules."""
