# SPDX-License-Identifier: Apache-2.0
"""State dicts of other engines into ours and back."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

from torch import Tensor, nn

from vision3d.sparse.compat import kernels
from vision3d.sparse.compat.kernels import Kernel
from vision3d.sparse.compat.names import Rename, is_row, our_name, renamed, their_name
from vision3d.sparse.layers.conv import ConvNd
from vision3d.sparse.layers.transpose import SparseInverseConv

ENGINES = ("spconv", "spconv1", "minkowski", "torchsparse", "dense")
#: What spconv calls its own layouts.
SPCONV_LAYOUTS = ("KRSC", "RSKC", "RSCK")


def convert_state_dict(
    source: Mapping[str, Tensor],
    module: nn.Module,
    engine: str,
    rename: Rename | None = None,
    axes: str | None = None,
    layout: str | None = None,
) -> dict[str, Tensor]:
    """Weights of another engine's net as a state dict that ``module.load_state_dict`` takes with ``strict=True``.

    Names are expected to agree but for what the engines call things: a kernel is a weight here, and MinkowskiEngine's
    ``norm.bn.weight`` is ``norm.weight``. dtypes and devices are kept.

    Args:
        source: the other net's state dict; load it without executing anything (``weights_only=True``, safetensors).
        module: our net; read only.
        engine: "spconv" (2.x), "spconv1", "minkowski", "torchsparse" or "dense".
        rename: prefixes to replace in the names of ``source``, the longest first (``{"module": "", "head": None}``: ""
            strips the prefix, None drops the entry), or a function from a name to a name or None.
        axes: "same" or "reversed", see ``vision3d.sparse.compat``. MinkowskiEngine and torchsparse need it; the others
            are "same" by default.
        layout: of spconv's weights, "KRSC", "RSKC" or "RSCK"; None: the one that fits all shapes.

    Raises:
        TypeError: an entry of ``source`` is not a tensor.
        ValueError: an unknown engine, axes or layout; entries are missing, left over or of the wrong shape; or more
            than one layout fits.
    """
    axes = _checked(engine, axes, layout)
    wanted = module.state_dict()
    given: dict[str, Tensor] = {}
    for name, value in renamed(source, rename).items():
        ours = our_name(name, engine, wanted)
        if ours in given:
            raise ValueError(f"two entries of the {engine} state dict stand for {ours!r}; drop one with rename=")
        if ours is not None:
            given[ours] = value
    missing = [name for name in wanted if name not in given and not _optional(name)]
    extra = [name for name in given if name not in wanted]
    if missing or extra:
        parts = [_some("missing", missing), _some("left over", extra)]
        raise ValueError(
            f"the {engine} state dict does not fit {type(module).__name__}: {'; '.join(filter(None, parts))}. "
            "rename= maps or drops names"
        )
    convs = {name: conv for name, conv in _convolutions(module).items() if name in wanted}
    layouts = _layouts(engine, layout, {name: given[name] for name in convs}, convs, axes)
    result = {}
    for name, own in wanted.items():
        if name not in given:
            result[name] = own
        elif name in convs:
            kernel = _kernel(convs[name], axes)
            taps = kernels.turn(kernels.read(layouts[name], given[name], kernel), axes)
            result[name] = taps.reshape(own.shape).contiguous()
        else:
            result[name] = _row(name, given[name], own)
    return result


def export_state_dict(
    module: nn.Module,
    engine: str,
    rename: Rename | None = None,
    axes: str | None = None,
    layout: str | None = None,
) -> dict[str, Tensor]:
    """Weights of our net as the other engine's state dict; the reverse of ``convert_state_dict``.

    Args:
        module: our net.
        engine: as for ``convert_state_dict``; "spconv" writes the layout of 2.2 and later.
        rename: as for ``convert_state_dict``, applied to the other engine's names.
        axes: as for ``convert_state_dict``.
        layout: of spconv's weights; None: "KRSC".

    Raises:
        ValueError: an unknown engine, axes or layout; or the engine has no grouped convolutions.
    """
    axes = _checked(engine, axes, layout)
    convs = _convolutions(module)
    layout = layout or {"spconv": "KRSC", "spconv1": "RSCK"}.get(engine, engine)
    result = {}
    for name, value in module.state_dict().items():
        if not isinstance(value, Tensor):
            continue
        value = value.detach()
        if name in convs:
            kernel = _kernel(convs[name], axes)
            if not kernels.shapes(layout, kernel):
                raise ValueError(f"{name}: {engine} has no convolution with groups={kernel.groups}")
            taps = value.reshape(*convs[name].kernel_size, *value.shape[1:])
            value = kernels.write(layout, kernels.turn(taps, axes), kernel)
        elif engine == "minkowski" and is_row(name, module):
            value = value[None]
        result[their_name(name, engine, module)] = value.clone()
    return renamed(result, rename)


def from_spconv(
    source: Mapping[str, Tensor],
    module: nn.Module,
    rename: Rename | None = None,
    axes: str = "same",
    layout: str | None = None,
) -> dict[str, Tensor]:
    """``convert_state_dict`` from spconv, any version; ``layout`` "RSCK" is that of spconv 1."""
    return convert_state_dict(source, module, "spconv", rename, axes, layout)


def to_spconv(
    module: nn.Module, rename: Rename | None = None, axes: str = "same", layout: str | None = None
) -> dict[str, Tensor]:
    """``export_state_dict`` to spconv 2.2 and later, or to an older ``layout``."""
    return export_state_dict(module, "spconv", rename, axes, layout)


def from_minkowski(
    source: Mapping[str, Tensor], module: nn.Module, axes: str, rename: Rename | None = None
) -> dict[str, Tensor]:
    """``convert_state_dict`` from MinkowskiEngine."""
    return convert_state_dict(source, module, "minkowski", rename, axes)


def from_torchsparse(
    source: Mapping[str, Tensor], module: nn.Module, axes: str, rename: Rename | None = None
) -> dict[str, Tensor]:
    """``convert_state_dict`` from torchsparse."""
    return convert_state_dict(source, module, "torchsparse", rename, axes)


def from_dense(
    source: Mapping[str, Tensor], module: nn.Module, rename: Rename | None = None, axes: str = "same"
) -> dict[str, Tensor]:
    """``convert_state_dict`` from ``torch.nn``'s convolutions; inverse layers take a transposed one's weight."""
    return convert_state_dict(source, module, "dense", rename, axes)


def _checked(engine: str, axes: str | None, layout: str | None) -> str:
    """The axes to use."""
    if engine not in ENGINES:
        raise ValueError(f"unknown engine {engine!r}; there are: {', '.join(ENGINES)}")
    if layout is not None and (engine != "spconv" or layout not in SPCONV_LAYOUTS):
        raise ValueError(f"layout is for engine 'spconv' and one of {', '.join(SPCONV_LAYOUTS)}, not {layout!r}")
    if axes is None:
        if engine in ("minkowski", "torchsparse"):
            raise ValueError(
                f"{engine} needs axes: 'reversed' for a net that was trained on columns (batch, x, y, z) and now gets "
                "(batch, z, y, x), 'same' when it gets the columns it was trained on"
            )
        return "same"
    if axes not in ("same", "reversed"):
        raise ValueError(f"axes must be 'same' or 'reversed', not {axes!r}")
    return axes


def _convolutions(module: nn.Module) -> dict[str, ConvNd]:
    """The convolutions by the names of their weights."""
    layers = module.named_modules(remove_duplicate=False)
    return {f"{path}.weight".lstrip("."): layer for path, layer in layers if isinstance(layer, ConvNd)}


def _kernel(conv: ConvNd, axes: str) -> Kernel:
    """The layer as the other engine sees it."""
    size = conv.kernel_size[::-1] if axes == "reversed" else conv.kernel_size
    # spconv's inverse layers have no stride of their own.
    one_step = max(conv.stride) == 1 or isinstance(conv, SparseInverseConv)
    pointwise = prod(size) == 1 and one_step
    return Kernel(size, conv.in_channels, conv.out_channels, conv.groups, pointwise, conv.transposed)


def _layouts(
    engine: str, layout: str | None, weights: Mapping[str, Tensor], convs: Mapping[str, ConvNd], axes: str
) -> dict[str, str]:
    """The layout of each weight."""
    geometry = {name: _kernel(conv, axes) for name, conv in convs.items()}
    if engine != "spconv" or layout is not None:
        one = layout or ("RSCK" if engine == "spconv1" else engine)
        plans = [dict.fromkeys(convs, one)]
    else:
        plans = [dict.fromkeys(convs, one) for one in SPCONV_LAYOUTS]
        plans.append({name: "KRSC" if prod(kernel.size) <= 32 else "RSKC" for name, kernel in geometry.items()})
    fitting: list[dict[str, str]] = []
    for plan in plans:
        fits = all(tuple(weights[name].shape) in kernels.shapes(one, geometry[name]) for name, one in plan.items())
        if fits and plan not in fitting:
            fitting.append(plan)
    if len(fitting) > 1:
        choices = ", ".join(sorted({one for plan in fitting for one in plan.values()}))
        raise ValueError(
            f"the shapes of the weights fit more than one of spconv's layouts ({choices}); name it with layout=: "
            "KRSC is that of spconv 2.2 and later, RSKC of 2.0, RSCK of 1.x"
        )
    if not fitting:
        raise ValueError(_misfit(engine, plans[0], weights, geometry))
    return fitting[0]


def _misfit(engine: str, plan: Mapping[str, str], weights: Mapping[str, Tensor], geometry: Mapping[str, Kernel]) -> str:
    """The first weight that is not as the engine stores it."""
    for name, one in plan.items():
        known = kernels.shapes(one, geometry[name])
        if tuple(weights[name].shape) not in known:
            expected = " or ".join(map(str, known)) or f"no kernel with groups={geometry[name].groups}"
            return f"{name} is {tuple(weights[name].shape)} in the state dict; for this net {engine} stores {expected}"
    return f"no layout of {engine} fits all weights"


def _row(name: str, value: Tensor, own: Tensor) -> Tensor:
    """Anything but a kernel; MinkowskiEngine's biases have a leading axis of 1."""
    if value.shape == own.shape:
        return value
    if value.ndim == own.ndim + 1 and value.shape[0] == 1 and value.shape[1:] == own.shape:
        return value[0]
    raise ValueError(f"{name} is {tuple(value.shape)} in the state dict, {tuple(own.shape)} in the net")


def _optional(name: str) -> bool:
    """Entries that older files lack; they are taken from the net."""
    return name.endswith(("num_batches_tracked", "_extra_state"))


def _some(what: str, names: list[str]) -> str:
    if not names:
        return ""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"{what} {', '.join(names[:3])}{more}"
