# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest

from relocalization.node_storage import pack_nodes, unpack_nodes


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_every_bit_comes_back_and_repeated_nodes_are_stored_once(dtype: type) -> None:
    rng = np.random.default_rng(0)
    values = np.repeat(rng.normal(size=(40, 1, 16)), 27, axis=1).astype(dtype)
    fitted = rng.random((40, 27)) < 0.4
    values[fitted] = rng.normal(size=(int(fitted.sum()), 16)).astype(dtype)
    packed = pack_nodes(values)
    assert unpack_nodes(packed, 27).tobytes() == values.tobytes()
    assert len(packed["nodes"]) == fitted.sum()


def test_signed_zeros_and_nan_survive() -> None:
    values = np.zeros((2, 27, 4), np.float16)
    values[0, 3] = -0.0
    values[1, :5] = np.nan
    assert unpack_nodes(pack_nodes(values), 27).tobytes() == values.tobytes()


def test_all_nodes_different_one_node_and_no_landmark() -> None:
    rng = np.random.default_rng(1)
    for shape in ((3, 27, 8), (5, 1, 8), (0, 27, 8), (2, 125, 3)):
        values = rng.normal(size=shape).astype(np.float16)
        assert unpack_nodes(pack_nodes(values), shape[1]).tobytes() == values.tobytes()


def test_parts_of_two_maps_are_refused() -> None:
    rng = np.random.default_rng(2)
    packed = pack_nodes(rng.normal(size=(3, 27, 8)).astype(np.float16))
    with pytest.raises(ValueError, match="fitted nodes are announced"):
        unpack_nodes({**packed, "nodes": packed["nodes"][:-1]}, 27)
