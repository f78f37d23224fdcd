# SPDX-License-Identifier: Apache-2.0
"""The sparse engine: voxels, kernel maps, convolution. See ``docs/sparse.md``."""

from vision3d.sparse.algebra import cat, intersection
from vision3d.sparse.backends import backend
from vision3d.sparse.coordinates import CoordinateSet
from vision3d.sparse.kernel_map import KernelMap
from vision3d.sparse.tensor import SparseTensor

__all__ = ["CoordinateSet", "KernelMap", "SparseTensor", "backend", "cat", "intersection"]
