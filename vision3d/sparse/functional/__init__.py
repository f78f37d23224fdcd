# SPDX-License-Identifier: Apache-2.0
"""Functions of sparse tensors; the layers of ``vision3d.sparse`` are these with parameters."""

from vision3d.sparse.functional.convolution import conv_transpose, inverse_conv, sparse_conv, subm_conv
from vision3d.sparse.functional.normalization import batch_norm, global_response_norm, group_norm, instance_norm
from vision3d.sparse.functional.pooling import avg_pool, global_pool, max_pool, upsample
from vision3d.sparse.functional.samples import reduce_samples, spread_samples
from vision3d.sparse.functional.synchronized import sync_batch_norm

__all__ = [
    "avg_pool",
    "batch_norm",
    "conv_transpose",
    "global_pool",
    "global_response_norm",
    "group_norm",
    "instance_norm",
    "inverse_conv",
    "max_pool",
    "reduce_samples",
    "sparse_conv",
    "spread_samples",
    "subm_conv",
    "sync_batch_norm",
    "upsample",
]
