# SPDX-License-Identifier: Apache-2.0
"""Batch normalisation across processes."""

from __future__ import annotations

import torch
from torch import Tensor, distributed, nn

from vision3d.sparse.functional import arguments as check
from vision3d.sparse.functional.synchronized import sync_batch_norm
from vision3d.sparse.layers.norm import SparseBatchNorm
from vision3d.sparse.tensor import SparseTensor


class SparseSyncBatchNorm(SparseBatchNorm):
    """``SparseBatchNorm`` over the active sites of all processes, on CPUs as well; a process may have no site.

    ``torch.nn.SyncBatchNorm.convert_sync_batchnorm`` makes layers that know no sparse tensors; use ``convert``.

    Args:
        num_features: C.
        eps: added to the variance.
        momentum: weight of the new statistics; None: cumulative average.
        affine: learn scale and shift.
        track_running_stats: keep statistics for evaluation.
        process_group: of ``torch.distributed``; None: all processes.
        device: of the parameters.
        dtype: of the parameters.
    """

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        process_group: distributed.ProcessGroup | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(num_features, eps, momentum, affine, track_running_stats, device=device, dtype=dtype)
        self.process_group = process_group

    def forward(self, x: SparseTensor | Tensor) -> SparseTensor | Tensor:  # type: ignore[override]
        """(N, C) to (N, C) on the same sites."""
        alone = not distributed.is_initialized() or distributed.get_world_size(self.process_group) == 1
        if not self.training or alone or not isinstance(x, SparseTensor):
            return super().forward(x)
        check.check_tensor(x, self, channels=self.num_features)
        check.check_affine(x, self.weight, self.bias, self)
        tracked = self.track_running_stats and self.num_batches_tracked is not None
        momentum = self.momentum
        if momentum is None:
            momentum = 1.0 / (int(self.num_batches_tracked) + 1) if self.num_batches_tracked is not None else 0.0
        feats, count = sync_batch_norm(
            x.sorted_feats,
            self.running_mean if tracked else None,
            self.running_var if tracked else None,
            self.weight,
            self.bias,
            momentum,
            self.eps,
            self.process_group,
        )
        if self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(count > 1)
        return x.with_sorted(feats)

    @classmethod
    def convert(cls, module: nn.Module, process_group: distributed.ProcessGroup | None = None) -> nn.Module:
        """Replaces every ``SparseBatchNorm`` in a network, which keeps its parameters; returns the network."""
        if type(module) is SparseBatchNorm:
            twin = cls(
                module.num_features,
                module.eps,
                module.momentum,
                module.affine,
                module.track_running_stats,
                process_group,
                device="meta",
            )
            twin._parameters.update(module._parameters)
            twin._buffers.update(module._buffers)
            return twin.train(module.training)
        for name, child in module._modules.items():
            if child is not None:
                module._modules[name] = cls.convert(child, process_group)
        return module
