# SPDX-License-Identifier: Apache-2.0
"""The sparse twin of each dense layer that has one: same parameters under the same names."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

from vision3d.sparse import layers
from vision3d.sparse.coordinates import Ints, expand
from vision3d.sparse.layers import layout
from vision3d.sparse.layers.conv import ConvNd


@dataclass(frozen=True)
class Choices:
    """What a dense network leaves open.

    Attributes:
        submanifold: convolutions that keep the grid's size keep the sites; otherwise they spread as dense ones do.
        out_rule: of strided convolutions and pools, "dense" or "floor".
        transposed: transposed convolutions "generate" sites, or "restore" those their strided partner read.
    """

    submanifold: bool
    out_rule: str
    transposed: str


Twin = Callable[[nn.Module, Choices], nn.Module]

_AXES = {"1d": 1, "2d": 2, "3d": 3}
_SINGLE = (
    nn.ReLU6,
    nn.ELU,
    nn.CELU,
    nn.SELU,
    nn.Mish,
    nn.Hardswish,
    nn.Hardsigmoid,
    nn.Hardtanh,
    nn.Softplus,
    nn.Softsign,
    nn.Tanh,
    nn.LogSigmoid,
)


def _conv(dense: nn.Module, choices: Choices) -> nn.Module:
    assert isinstance(dense, nn.Conv1d | nn.Conv2d | nn.Conv3d)
    _zeros_only(dense.padding_mode)
    axes = _axes(dense)
    kernel, stride, dilation = dense.kernel_size, dense.stride, dense.dilation
    same = tuple(k // 2 * d for k, d in zip(kernel, dilation))
    keeps = all(k % 2 for k in kernel) and max(stride) == 1
    if dense.padding == "same" and not keeps:
        raise ValueError(f'padding="same" with the even kernel_size {kernel} pads one side only; pad by hand')
    padding = (0,) * axes if isinstance(dense.padding, str) else _expanded(dense.padding, axes)
    if dense.padding == "same":
        padding = same
    channels = (dense.in_channels, dense.out_channels)
    common = {"dilation": dilation, "groups": dense.groups, "bias": dense.bias is not None, "device": "meta"}
    if keeps and padding == same and choices.submanifold:
        twin = _of(layers.SubMConv, axes)(*channels, kernel, **common)
    else:
        rule = _rule(kernel, stride, padding, dilation, choices)
        twin = _of(layers.SparseConv, axes)(*channels, kernel, stride, padding, out_rule=rule, **common)
    return _with_weights(twin, dense)


def _conv_transpose(dense: nn.Module, choices: Choices) -> nn.Module:
    assert isinstance(dense, nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d)
    _zeros_only(dense.padding_mode)
    arguments = {
        "kernel_size": dense.kernel_size,
        "stride": dense.stride,
        "padding": dense.padding,
        "dilation": dense.dilation,
        "groups": dense.groups,
        "bias": dense.bias is not None,
        "device": "meta",
    }
    kind: type[nn.Module] = layers.SparseInverseConv
    if choices.transposed == "generate":
        kind = layers.SparseConvTranspose
        arguments["output_padding"] = dense.output_padding
    twin = _of(kind, _axes(dense))(dense.in_channels, dense.out_channels, **arguments)
    return _with_weights(twin, dense)


def _max_pool(dense: nn.Module, choices: Choices) -> nn.Module:
    assert isinstance(dense, nn.MaxPool1d | nn.MaxPool2d | nn.MaxPool3d)
    if dense.ceil_mode or dense.return_indices:
        raise ValueError("a sparse max pool has neither ceil_mode nor return_indices")
    axes = _axes(dense)
    kernel, stride, padding = (_expanded(v, axes) for v in (dense.kernel_size, dense.stride, dense.padding))
    dilation = _expanded(dense.dilation, axes)
    rule = _rule(kernel, stride, padding, dilation, choices)
    return _of(layers.SparseMaxPool, axes)(kernel, stride, padding, dilation, rule)


def _avg_pool(dense: nn.Module, choices: Choices) -> nn.Module:
    assert isinstance(dense, nn.AvgPool1d | nn.AvgPool2d | nn.AvgPool3d)
    if dense.ceil_mode or getattr(dense, "divisor_override", None) is not None:
        raise ValueError("a sparse average pool has neither ceil_mode nor divisor_override")
    axes = _axes(dense)
    kernel, stride, padding = (_expanded(v, axes) for v in (dense.kernel_size, dense.stride, dense.padding))
    rule = _rule(kernel, stride, padding, (1,) * axes, choices)
    # Without padding in the count the divisor varies along the border: the mean over active sites does that.
    inactive = dense.count_include_pad or not any(padding)
    return _of(layers.SparseAvgPool, axes)(kernel, stride, padding, inactive, rule)


def _global_pool(dense: nn.Module, choices: Choices) -> nn.Module:
    size = dense.output_size
    if any(n != 1 for n in (size if isinstance(size, tuple | list) else (size,))):
        raise ValueError(f"a sparse adaptive pool has output_size 1, not {size}")
    if getattr(dense, "return_indices", False):
        raise ValueError("a sparse adaptive pool has no return_indices")
    return layers.SparseGlobalPool("max" if "Max" in type(dense).__name__ else "mean", keepdim=True)


def _upsample(dense: nn.Module, choices: Choices) -> nn.Module:
    assert isinstance(dense, nn.Upsample)
    factors = dense.scale_factor if isinstance(dense.scale_factor, tuple) else (dense.scale_factor,)
    if dense.mode != "nearest" or any(f is None or f != int(f) for f in factors):
        raise ValueError('a sparse upsample has mode="nearest" and a whole scale_factor')
    whole = tuple(int(f) for f in factors if f is not None)
    return layers.SparseUpsample(whole if len(whole) > 1 else whole[0])


def _batch_norm(dense: nn.Module, choices: Choices) -> nn.Module:
    assert isinstance(dense, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d)
    twin = layers.SparseBatchNorm(
        dense.num_features, dense.eps, dense.momentum, dense.affine, dense.track_running_stats, device="meta"
    )
    return _with_state(twin, dense)


def _instance_norm(dense: nn.Module, choices: Choices) -> nn.Module:
    assert isinstance(dense, nn.InstanceNorm1d | nn.InstanceNorm2d | nn.InstanceNorm3d)
    if dense.track_running_stats:
        raise ValueError("a sparse instance norm has no running statistics")
    return _with_state(layers.SparseInstanceNorm(dense.num_features, dense.eps, dense.affine, "meta"), dense)


def _group_norm(dense: nn.Module, choices: Choices) -> nn.Module:
    assert isinstance(dense, nn.GroupNorm)
    twin = layers.SparseGroupNorm(dense.num_groups, dense.num_channels, dense.eps, dense.affine, device="meta")
    return _with_state(twin, dense)


def _layer_norm(dense: nn.Module, choices: Choices) -> nn.Module:
    assert isinstance(dense, nn.LayerNorm)
    if len(dense.normalized_shape) != 1:
        raise ValueError(f"a sparse layer norm normalises channels only, not {tuple(dense.normalized_shape)}")
    twin = layers.SparseLayerNorm(
        dense.normalized_shape[0], dense.eps, dense.elementwise_affine, dense.bias is not None, "meta"
    )
    return _with_state(twin, dense)


def _linear(dense: nn.Module, choices: Choices) -> nn.Module:
    assert isinstance(dense, nn.Linear)
    twin = layers.SparseLinear(dense.in_features, dense.out_features, dense.bias is not None, device="meta")
    return _with_state(twin, dense)


def _prelu(dense: nn.Module, choices: Choices) -> nn.Module:
    assert isinstance(dense, nn.PReLU)
    return _with_state(layers.SparsePReLU(dense.num_parameters, device="meta"), dense)


def _single(dense: nn.Module, choices: Choices) -> nn.Module:
    if hasattr(dense, "inplace"):
        dense.inplace = False  # type: ignore[assignment]
    return layers.SparseModule(dense)


#: By exact type. Subclasses may do anything in their forward, so they need a rule of the user's.
TWINS: dict[type[nn.Module], Twin] = {
    **dict.fromkeys((nn.Conv1d, nn.Conv2d, nn.Conv3d), _conv),
    **dict.fromkeys((nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d), _conv_transpose),
    **dict.fromkeys((nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d), _max_pool),
    **dict.fromkeys((nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d), _avg_pool),
    **dict.fromkeys((nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d), _global_pool),
    **dict.fromkeys((nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d), _global_pool),
    **dict.fromkeys((nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d), _batch_norm),
    **dict.fromkeys((nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d), _instance_norm),
    **dict.fromkeys(_SINGLE, _single),
    nn.Upsample: _upsample,
    nn.GroupNorm: _group_norm,
    nn.LayerNorm: _layer_norm,
    nn.Linear: _linear,
    nn.PReLU: _prelu,
    nn.ReLU: lambda dense, choices: layers.SparseReLU(),
    nn.LeakyReLU: lambda dense, choices: layers.SparseLeakyReLU(dense.negative_slope),  # type: ignore[arg-type]
    nn.GELU: lambda dense, choices: layers.SparseGELU(dense.approximate),  # type: ignore[arg-type]
    nn.SiLU: lambda dense, choices: layers.SparseSiLU(),
    nn.Sigmoid: lambda dense, choices: layers.SparseSigmoid(),
    nn.Dropout: lambda dense, choices: layers.SparseDropout(dense.p),  # type: ignore[arg-type]
}


def _axes(dense: nn.Module) -> int:
    return _AXES[type(dense).__name__[-2:]]


def _of(kind: type[nn.Module], axes: int) -> Callable[..., nn.Module]:
    """The class for this number of axes, by its name."""
    found: Callable[..., nn.Module] = getattr(layers, f"{kind.__name__}{axes}d")
    return found


def _expanded(value: int | tuple[int, ...], axes: int) -> Ints:
    return expand(value, axes, "kernel_size, stride or padding")


def _rule(kernel: Ints, stride: Ints, padding: Ints, dilation: Ints, choices: Choices) -> str:
    """The floor rule with stride 1 keeps the sites, which is meant only where the window is centred on its site."""
    centred = all(k % 2 and p == k // 2 * d for k, p, d in zip(kernel, padding, dilation))
    return choices.out_rule if max(stride) > 1 or centred else "dense"


def _zeros_only(padding_mode: str) -> None:
    if padding_mode != "zeros":
        raise ValueError(f'a sparse convolution has padding_mode="zeros" only, not {padding_mode!r}')


def _with_weights(twin: nn.Module, dense: nn.Module) -> nn.Module:
    assert isinstance(twin, ConvNd)
    weight = dense.get_parameter("weight")
    values = layout.from_dense(weight.detach(), twin.groups, twin.transposed)
    twin.weight = nn.Parameter(values, weight.requires_grad)
    twin.bias = dense._parameters["bias"]
    return twin


def _with_state(twin: nn.Module, dense: nn.Module) -> nn.Module:
    for name, value in dense.named_parameters(recurse=False):
        setattr(twin, name, value)
    for name, buffer in dense.named_buffers(recurse=False):
        setattr(twin, name, buffer)
    return twin


def dense_state(twin: nn.Module) -> dict[str, Tensor]:
    """Own tensors of a layer, in the layout of its dense namesake."""
    state = {**dict(twin.named_parameters(recurse=False)), **dict(twin.named_buffers(recurse=False))}
    if isinstance(twin, ConvNd):
        state["weight"] = twin.dense_weight()
    return {name: value.detach() for name, value in state.items()}
