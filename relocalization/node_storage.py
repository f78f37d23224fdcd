# SPDX-License-Identifier: Apache-2.0
"""Descriptor fields on disk: the nodes that no ray ever read hold one and the same vector, so it is stored once.

With an opaque box only the nodes on the side of the views are fitted; the others keep the landmark's mean. Nothing is
lost: unpacking gives back every bit.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def pack_nodes(values: Array) -> dict[str, Array]:
    """(N, K, C) node values -> ``base`` (N, C), ``fitted`` (N, ceil(K / 8)) uint8 bits, ``nodes`` (M, C).

    ``base`` is each landmark's most frequent node vector, ``nodes`` are those that differ from it, row by row.
    """
    n, k, c = values.shape
    if not n or not c:
        return {"base": values[:, 0], "fitted": np.zeros((n, -(-k // 8)), np.uint8), "nodes": values.reshape(-1, c)[:0]}
    bits = np.ascontiguousarray(values).view(np.uint8).reshape(n * k, -1)
    _, label = np.unique(bits @ _odd_numbers(bits.shape[1]), return_inverse=True)
    label = label.reshape(n, k)
    # Every node votes for the vectors equal to it; the first of the most frequent is the base.
    votes = (label[:, :, None] == label[:, None, :]).sum(axis=2)
    first = votes.argmax(axis=1)
    base = values[np.arange(n), first]
    # The label only proposes: what is stored is decided by comparing the bits.
    fitted = (bits.reshape(n, k, -1) != np.ascontiguousarray(base).view(np.uint8).reshape(n, 1, -1)).any(axis=2)
    return {"base": base, "fitted": np.packbits(fitted, axis=1), "nodes": values[fitted]}


def unpack_nodes(packed: dict[str, Array], count: int) -> Array:
    """(N, ``count``, C) from what :func:`pack_nodes` returned.

    Raises:
        ValueError: the parts do not belong together.
    """
    base, nodes = packed["base"], packed["nodes"]
    fitted = np.unpackbits(packed["fitted"], axis=1, count=count).astype(bool)
    if len(fitted) != len(base) or fitted.sum() != len(nodes):
        raise ValueError(f"{int(fitted.sum())} fitted nodes are announced, {len(nodes)} are there")
    values = np.repeat(base[:, None], count, axis=1)
    values[fitted] = nodes
    return values


def _odd_numbers(n: int) -> NDArray[np.uint64]:
    """Fixed odd multipliers of a hash over bytes; overflow wraps."""
    return np.random.default_rng(0).integers(0, 2**62, n, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
