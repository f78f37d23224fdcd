# SPDX-License-Identifier: Apache-2.0
"""The compiled engine (C++17) behind the backend protocol. CPU tensors only."""

from __future__ import annotations

from vision3d.sparse.backends import native_conv, native_maps, native_norm, native_reduce


class NativeBackend:
    """Sorted streams for maps, output-stationary register tiles for arithmetic; see ``docs/sparse.md``."""

    name = "native"

    sort_coords = staticmethod(native_maps.sort_coords)
    index_sorted = staticmethod(native_maps.index_sorted)
    unique_coords = staticmethod(native_maps.unique_coords)
    subm_map = staticmethod(native_maps.subm_map)
    strided_coords = staticmethod(native_maps.strided_coords)
    transposed_coords = staticmethod(native_maps.transposed_coords)
    pair_map = staticmethod(native_maps.pair_map)
    lookup = staticmethod(native_maps.lookup)
    conv = staticmethod(native_conv.conv)
    pool = staticmethod(native_reduce.pool)
    segment_reduce = staticmethod(native_reduce.segment_reduce)
    sample_norm = staticmethod(native_norm.sample_norm)
