# SPDX-License-Identifier: Apache-2.0
"""Normalisation layers; statistics are taken over active sites only."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vision3d.sparse import functional
from vision3d.sparse.functional import arguments as check
from vision3d.sparse.tensor import SparseTensor


class SparseBatchNorm(nn.BatchNorm1d):
    """``torch.nn.BatchNorm1d`` over all active sites of the batch; arguments, buffers and momentum rule are torch's.

    Fewer than two sites have no variance: in training such a batch is normalised with the running statistics, which it
    does not change (without running statistics it gives ``bias``). A plain tensor (B, C), after a global pool say, is
    taken as torch's layer takes it.

    Raises:
        ValueError: another number of channels.
    """

    def forward(self, x: SparseTensor | Tensor) -> SparseTensor | Tensor:  # type: ignore[override]
        """(N, C) to (N, C) on the same sites."""
        if not isinstance(x, SparseTensor):
            return super().forward(x)
        check.check_tensor(x, self, channels=self.num_features)
        check.check_affine(x, self.weight, self.bias, self)
        momentum = 0.0 if self.momentum is None else self.momentum
        if self.training and self.track_running_stats and self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(torch.scalar_tensor(len(x), device=x.device) > 1)
            if self.momentum is None:
                momentum = 1.0 / max(float(self.num_batches_tracked), 1.0)
        tracked = not self.training or self.track_running_stats
        feats = functional.batch_norm(
            x.sorted_feats,
            self.running_mean if tracked else None,
            self.running_var if tracked else None,
            self.weight,
            self.bias,
            self.training or self.running_mean is None,
            momentum,
            self.eps,
        )
        return x.with_sorted(feats)


class SparseLayerNorm(nn.LayerNorm):
    """``torch.nn.LayerNorm`` over the channels of each site, by itself.

    Args:
        channels: C.
        eps: added to the variance.
        elementwise_affine: learn scale and shift.
        bias: learn the shift.
        device: of the parameters.
        dtype: of the parameters.
    """

    def __init__(
        self,
        channels: int,
        eps: float = 1e-5,
        elementwise_affine: bool = True,
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(channels, eps, elementwise_affine, bias, device, dtype)

    def forward(self, x: SparseTensor | Tensor) -> SparseTensor | Tensor:  # type: ignore[override]
        """(N, C) to (N, C) on the same sites; a plain tensor (..., C) as torch's layer takes it."""
        if not isinstance(x, SparseTensor):
            return super().forward(x)
        check.check_tensor(x, self, channels=self.normalized_shape[0])
        check.check_affine(x, self.weight, self.bias, self)
        return x.map(super().forward)


class SparseGroupNorm(nn.GroupNorm):
    """``torch.nn.GroupNorm`` with statistics over the active sites of each sample; arguments are torch's.

    Raises:
        ValueError: ``num_groups`` does not divide the channels; another number of channels at call.
    """

    def forward(self, x: SparseTensor) -> SparseTensor:  # type: ignore[override]
        """(N, C) to (N, C) on the same sites."""
        check.check_tensor(x, self, channels=self.num_channels)
        return functional.group_norm(x, self.num_groups, self.weight, self.bias, self.eps, self)


class SparseInstanceNorm(nn.Module):
    """Every channel of every sample to mean 0 and variance 1 over the sample's active sites.

    Args:
        num_features: C.
        eps: added to the variance.
        affine: learn scale and shift, as torch's layer off by default.
        device: of the parameters.
        dtype: of the parameters.

    Raises:
        ValueError: another number of channels at call.
    """

    weight: nn.Parameter | None
    bias: nn.Parameter | None

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        affine: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.num_features = num_features
        self.eps = eps
        self.affine = affine
        for name in ("weight", "bias"):
            self.register_parameter(
                name, nn.Parameter(torch.empty(num_features, device=device, dtype=dtype)) if affine else None
            )
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Scale 1, shift 0."""
        if self.weight is not None and self.bias is not None:
            nn.init.ones_(self.weight)
            nn.init.zeros_(self.bias)

    def forward(self, x: SparseTensor) -> SparseTensor:
        """(N, C) to (N, C) on the same sites."""
        check.check_tensor(x, self, channels=self.num_features)
        return functional.instance_norm(x, self.weight, self.bias, self.eps, self)

    def extra_repr(self) -> str:
        """Channels, eps and affine."""
        return f"{self.num_features}, eps={self.eps}, affine={self.affine}"


class SparseGRN(nn.Module):
    """Global response normalisation of ConvNeXt V2, over the active sites of each sample.

    Args:
        channels: C.
        eps: added to the mean norm.
        device: of the parameters.
        dtype: of the parameters.

    Raises:
        ValueError: another number of channels at call.
    """

    def __init__(
        self,
        channels: int,
        eps: float = 1e-6,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.channels = channels
        self.eps = eps
        self.gamma = nn.Parameter(torch.zeros(channels, device=device, dtype=dtype))
        self.beta = nn.Parameter(torch.zeros(channels, device=device, dtype=dtype))

    def forward(self, x: SparseTensor) -> SparseTensor:
        """(N, C) to (N, C) on the same sites."""
        check.check_tensor(x, self, channels=self.channels)
        return functional.global_response_norm(x, self.gamma, self.beta, self.eps, self)

    def extra_repr(self) -> str:
        """Channels and eps."""
        return f"{self.channels}, eps={self.eps}"
