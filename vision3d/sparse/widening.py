# SPDX-License-Identifier: Apache-2.0
"""Half precision is storage: arithmetic on it is float32."""

from __future__ import annotations

import torch
from torch import Tensor

_WIDE = {torch.float16: torch.float32, torch.bfloat16: torch.float32}


def wide_dtype(dtype: torch.dtype) -> torch.dtype:
    """float32 for half precision, the dtype itself for the rest."""
    return _WIDE.get(dtype, dtype)


def widened(values: Tensor) -> Tensor:
    """The values in ``wide_dtype``; the same tensor where that is its dtype."""
    return values.to(wide_dtype(values.dtype))
