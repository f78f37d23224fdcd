# SPDX-License-Identifier: Apache-2.0
"""State dicts of other engines: layouts told by their shapes, names, errors, and the way back."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from vision3d import sparse
from vision3d.sparse import compat
from vision3d.sparse.layers.norm import SparseBatchNorm, SparseInstanceNorm
from vision3d.sparse.layers.rowwise import SparseLinear

ENGINES = ("spconv", "spconv1", "minkowski", "torchsparse", "dense")


def old_layout(state: dict[str, Tensor], layout: str, large: int = 0) -> dict[str, Tensor]:
    """Weights (Cout, k.., Cin) as spconv's older releases stored them; those of few offsets are left as they are."""
    result = {}
    for name, value in state.items():
        if value.ndim < 3 or value[0, ..., 0].numel() <= large:
            result[name] = value
        else:
            result[name] = value.movedim(0, -1 if layout == "RSCK" else -2).contiguous()
    return result


def layered(*layers: nn.Module) -> nn.Module:
    torch.manual_seed(4)
    net = nn.Sequential(*layers)
    for parameter in net.parameters():
        nn.init.normal_(parameter)
    return net


def test_older_layouts_are_told_by_their_shapes() -> None:
    net = layered(sparse.SubMConv3d(2, 8, 3), sparse.SubMConv3d(8, 8, 5), SparseBatchNorm(8))
    new = compat.to_spconv(net)
    for state in (new, old_layout(new, "RSKC"), old_layout(new, "RSKC", large=32), old_layout(new, "RSCK")):
        found = compat.from_spconv(state, net)
        assert all(torch.equal(found[name], value) for name, value in net.state_dict().items())
    found = compat.convert_state_dict(old_layout(new, "RSCK"), net, "spconv1")
    assert all(torch.equal(found[name], value) for name, value in net.state_dict().items())
    assert compat.to_spconv(net, layout="RSCK")["0.weight"].shape == (3, 3, 3, 2, 8)


def test_layouts_that_look_alike_need_a_word() -> None:
    net = layered(sparse.SubMConv3d(8, 8, 3, bias=False))
    state = old_layout(compat.to_spconv(net), "RSKC")
    with pytest.raises(ValueError, match=r"more than one of spconv's layouts \(RSCK, RSKC\); name it with layout="):
        compat.from_spconv(state, net)
    own = net.state_dict()["0.weight"]
    assert torch.equal(compat.from_spconv(state, net, layout="RSKC")["0.weight"], own)
    assert torch.equal(compat.from_spconv(state, net, layout="RSCK")["0.weight"], own.transpose(1, 2))


def test_pointwise_kernels_of_spconv_2_hold_cin_by_cout_in_memory() -> None:
    net = layered(sparse.SubMConv3d(3, 5, 1, bias=False), sparse.SparseConv3d(5, 4, 1, stride=2, bias=False))
    state = compat.to_spconv(net)
    weights = net.state_dict()
    assert state["0.weight"].shape == (5, 1, 1, 1, 3)
    assert torch.equal(state["0.weight"].flatten(), weights["0.weight"].flatten())
    assert torch.equal(state["1.weight"].reshape(4, 5), weights["1.weight"][0].T)
    assert torch.equal(compat.export_state_dict(net, "spconv1")["0.weight"].flatten(), weights["0.weight"].flatten())


def test_names_and_shapes_of_minkowski_layers() -> None:
    net = nn.ModuleDict(
        {
            "conv": sparse.SparseConv3d(4, 6, 3, stride=2, padding=1, out_rule="floor"),
            "bn": SparseBatchNorm(6),
            "one": sparse.SubMConv3d(6, 6, 1),
            "each": sparse.SubMConv3d(6, 6, 3, groups=6, bias=False),
            "norm": SparseInstanceNorm(6, affine=True),
            "head": SparseLinear(6, 2),
        }
    )
    for parameter in net.parameters():
        nn.init.normal_(parameter)
    state = compat.export_state_dict(net, "minkowski", axes="reversed")
    assert {name: tuple(value.shape) for name, value in state.items() if name.endswith(("kernel", "bias"))} == {
        "conv.kernel": (27, 4, 6),
        "conv.bias": (1, 6),
        "bn.bn.bias": (6,),
        "one.kernel": (6, 6),
        "one.bias": (1, 6),
        "each.kernel": (27, 6),
        "norm.bias": (1, 6),
        "head.linear.bias": (2,),
    }
    found = compat.from_minkowski(state, net, axes="reversed")
    assert found.keys() == net.state_dict().keys()
    assert all(torch.equal(found[name], value) for name, value in net.state_dict().items())
    sizes = {name: value[None] if name == "one.kernel" else value for name, value in state.items()}
    assert torch.equal(compat.from_minkowski(sizes, net, axes="reversed")["one.weight"], found["one.weight"])


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    engine=st.sampled_from(ENGINES),
    size=st.lists(st.integers(1, 4), min_size=1, max_size=4),
    channels=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    groups=st.integers(1, 3),
    kind=st.sampled_from(["SparseConv", "SparseConvTranspose", "SparseInverseConv"]),
    axes=st.sampled_from(["same", "reversed"]),
    stride=st.integers(1, 2),
)
def test_export_is_the_reverse(
    engine: str, size: list[int], channels: tuple[int, int], groups: int, kind: str, axes: str, stride: int
) -> None:
    groups = groups if engine == "dense" else 1
    cin, cout = (c * groups for c in channels)
    net = getattr(sparse, f"{kind}{len(size)}d")(cin, cout, tuple(size), stride=stride, groups=groups)
    state = compat.export_state_dict(net, engine, axes=axes)
    layout = "KRSC" if engine == "spconv" else None
    found = compat.convert_state_dict(state, net, engine, axes=axes, layout=layout)
    assert all(torch.equal(found[name], value) for name, value in net.state_dict().items())


def small() -> nn.Module:
    return nn.Sequential(sparse.SubMConv3d(2, 4, 3), SparseBatchNorm(4))


def test_renaming_by_prefix_and_by_function() -> None:
    net = small()
    expected = net.state_dict()
    state = {f"module.body.{name}": value for name, value in compat.to_spconv(net).items()}
    state |= {"module.head.weight": torch.zeros(3), "module.body.0.max_num_voxels_during_training": torch.zeros(1)}
    by_prefix = compat.from_spconv(state, net, rename={"module": "", "module.body": "", "module.head": None})
    by_function = compat.from_spconv(
        state, net, rename=lambda name: None if ".head." in name else name.removeprefix("module.body.")
    )
    for found in (by_prefix, by_function):
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[name], value) for name, value in expected.items())
    renamed = compat.to_spconv(net, rename={"0": "conv_input.0", "1": None})
    assert sorted(renamed) == ["conv_input.0.bias", "conv_input.0.weight"]
    with pytest.raises(ValueError, match="gives two entries the name 'x'"):
        compat.from_spconv(state, net, rename=lambda _: "x")


def test_files_without_batch_counters_load() -> None:
    net = small()
    net[1].num_batches_tracked.fill_(7)
    state = compat.to_spconv(net)
    del state["1.num_batches_tracked"]
    assert int(compat.from_spconv(state, net)["1.num_batches_tracked"]) == 7


def test_what_does_not_fit_is_named() -> None:
    net = small()
    state = compat.to_spconv(net)
    with pytest.raises(ValueError, match=r"fit Sequential: missing 0.weight; left over 0.kernel. rename="):
        compat.from_spconv({name.replace("0.weight", "0.kernel"): value for name, value in state.items()}, net)
    many = {f"extra{i}": torch.zeros(1) for i in range(9)}
    with pytest.raises(ValueError, match=r"left over extra0, extra1, extra2 and 6 more"):
        compat.from_spconv(state | many, net)
    with pytest.raises(ValueError, match=r"0.weight is \(4, 1, 3, 3, 2\) .* spconv stores \(4, 3, 3, 3, 2\)"):
        compat.from_spconv(state | {"0.weight": torch.zeros(4, 1, 3, 3, 2)}, net)
    with pytest.raises(ValueError, match=r"1.bias is \(5,\) in the state dict, \(4,\) in the net"):
        compat.from_spconv(state | {"1.bias": torch.zeros(5)}, net)
    with pytest.raises(TypeError, match=r"entry 'state_dict' .* is a dict, not a tensor; pass source\['state_dict'\]"):
        compat.from_spconv({"state_dict": state}, net)
    with pytest.raises(ValueError, match=r"two entries of the minkowski state dict stand for '0\.weight'"):
        compat.from_minkowski({"0.weight": torch.zeros(1), "0.kernel": torch.zeros(1)}, net, axes="same")


def test_wrong_arguments_are_named() -> None:
    net = small()
    with pytest.raises(ValueError, match="unknown engine 'spconv2'; there are: spconv, spconv1"):
        compat.convert_state_dict({}, net, "spconv2")
    with pytest.raises(ValueError, match="minkowski needs axes: 'reversed' for a net"):
        compat.convert_state_dict({}, net, "minkowski")
    with pytest.raises(ValueError, match="axes must be 'same' or 'reversed', not 'xyz'"):
        compat.export_state_dict(net, "spconv", axes="xyz")
    with pytest.raises(ValueError, match="layout is for engine 'spconv' and one of KRSC, RSKC, RSCK, not 'KRSC'"):
        compat.export_state_dict(net, "dense", layout="KRSC")
    grouped = sparse.SubMConv3d(4, 4, 3, groups=2)
    for engine in ("spconv", "minkowski", "torchsparse"):
        with pytest.raises(ValueError, match=f"weight: {engine} has no convolution with groups=2"):
            compat.export_state_dict(grouped, engine, axes="same")
    with pytest.raises(ValueError, match="spconv stores no kernel with groups=2"):
        compat.from_spconv(compat.export_state_dict(grouped, "dense"), grouped)
