# SPDX-License-Identifier: Apache-2.0
"""Attention inside patches of serialized voxels, and the transformer block around it.

Wu et al., "Point Transformer V3" (CVPR 2024). Samples never see each other, and rows may come in any order.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from vision3d.nn.choices import subm_conv
from vision3d.nn.serialization import PatchLayout, check_order, curve_order, patch_layout
from vision3d.sparse import SparseDropPath, SparseTensor


class SerializedAttention(nn.Module):
    """Multi-head attention of each row to the rows of its patch.

    Args:
        channels: C, of input and output.
        num_heads: divides C.
        patch_size: rows in a patch.
        order: curve along which rows follow each other, one of ``vision3d.nn.serialization.ORDERS``.
        qkv_bias: whether queries, keys and values have a bias.
        attn_drop: dropout on attention weights.
        proj_drop: dropout on the output.

    Raises:
        ValueError: ``num_heads`` does not divide C, or an unknown order.
    """

    def __init__(
        self,
        channels: int,
        num_heads: int,
        patch_size: int = 1024,
        order: str = "z",
        qkv_bias: bool = True,
        attn_drop: float = 0.0,
        proj_drop: float = 0.0,
    ) -> None:
        super().__init__()
        if channels % num_heads:
            raise ValueError(f"num_heads={num_heads} must divide channels={channels}")
        self.num_heads = num_heads
        self.patch_size = patch_size
        self.order = check_order(order)
        self.attn_drop = attn_drop
        self.qkv = nn.Linear(channels, 3 * channels, bias=qkv_bias)
        self.proj = nn.Linear(channels, channels)
        self.proj_drop = nn.Dropout(proj_drop)

    def layout(self, x: SparseTensor) -> PatchLayout:
        """The patches of this layer's curve and size."""
        return patch_layout(x.sites, curve_order(x.sites, self.order), self.patch_size)

    def forward(self, x: SparseTensor, layout: PatchLayout | None = None) -> SparseTensor:
        """(N, C) to (N, C).

        Args:
            x: the voxels.
            layout: the patches, where several layers share them; None: this layer's own.
        """
        if layout is None:
            layout = self.layout(x)
        return x.with_sorted(self.proj_drop(self.proj(self._attend(self.qkv(x.sorted_feats), layout))))

    def _attend(self, qkv: Tensor, layout: PatchLayout) -> Tensor:
        patches, length = layout.rows.shape
        channels = qkv.shape[1] // 3
        width = channels // self.num_heads
        packed = qkv.index_select(0, layout.rows.flatten()).view(patches, length, 3, self.num_heads, width)
        query, key, value = packed.permute(2, 0, 3, 1, 4).unbind(0)
        drop = self.attn_drop if self.training else 0.0
        found = functional.scaled_dot_product_attention(query, key, value, attn_mask=layout.mask, dropout_p=drop)
        return found.transpose(1, 2).reshape(patches * length, channels).index_select(0, layout.place)


class PositionCode(nn.Module):
    """Conditional position code: submanifold 3x3 convolution, linear layer, layer norm.

    Args:
        channels: C.
        ndim: number of spatial axes.
    """

    def __init__(self, channels: int, ndim: int = 3) -> None:
        super().__init__()
        self.conv = subm_conv(ndim, channels, channels, 3, bias=True)
        self.linear = nn.Linear(channels, channels)
        self.norm = nn.LayerNorm(channels)

    def forward(self, x: SparseTensor) -> SparseTensor:
        """(N, C) to (N, C)."""
        return self.conv(x).map(self.linear).map(self.norm)


class PointTransformerBlock(nn.Module):
    """Position code, attention and MLP, each with a residual; norms come first.

    Args:
        channels: C, of input and output.
        num_heads: divides C.
        patch_size: rows in a patch.
        order: as in ``SerializedAttention``.
        mlp_ratio: hidden width of the MLP over C.
        qkv_bias: as in ``SerializedAttention``, as are the next two.
        attn_drop: see above.
        proj_drop: see above; also after both layers of the MLP.
        drop_path: stochastic depth: probability of leaving out a sample's residuals in training.
        ndim: number of spatial axes.
    """

    def __init__(
        self,
        channels: int,
        num_heads: int,
        patch_size: int = 1024,
        order: str = "z",
        mlp_ratio: float = 4.0,
        qkv_bias: bool = True,
        attn_drop: float = 0.0,
        proj_drop: float = 0.0,
        drop_path: float = 0.0,
        ndim: int = 3,
    ) -> None:
        super().__init__()
        hidden = int(channels * mlp_ratio)
        self.cpe = PositionCode(channels, ndim)
        self.norm1 = nn.LayerNorm(channels)
        self.attn = SerializedAttention(channels, num_heads, patch_size, order, qkv_bias, attn_drop, proj_drop)
        self.norm2 = nn.LayerNorm(channels)
        self.mlp = nn.Sequential(
            nn.Linear(channels, hidden),
            nn.GELU(),
            nn.Dropout(proj_drop),
            nn.Linear(hidden, channels),
            nn.Dropout(proj_drop),
        )
        self.drop_path = SparseDropPath(drop_path)

    def forward(self, x: SparseTensor, layout: PatchLayout | None = None) -> SparseTensor:
        """(N, C) to (N, C); ``layout`` as in ``SerializedAttention``."""
        x = x + self.cpe(x)
        x = x + self.drop_path(self.attn(x.map(self.norm1), layout))
        return x + self.drop_path(x.map(self.norm2).map(self.mlp))
