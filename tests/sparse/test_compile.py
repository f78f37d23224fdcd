# SPDX-License-Identifier: Apache-2.0
"""``torch.compile`` and ``torch.export``: one whole graph, maps included, that serves any number of sites."""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounterWithBackend

from vision3d import sparse
from vision3d.nn import SparseUNet
from vision3d.sparse import SparseTensor, backend, functional
from vision3d.sparse.backends import backend_for

pytest.importorskip("vision3d.sparse._native")
pytestmark = [
    # Dynamo makes an instance of every autograd function it meets, and asks tensors that are no leaves for ``grad``.
    pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning"),
    # Inductor imports torch's own deprecated parts.
    pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning"),
]

SIZES = (300, 500, 77, 1000, 640)


@pytest.fixture(autouse=True)
def _fresh_compiler() -> Iterator[None]:
    torch._dynamo.reset()
    # With ``dynamic=True`` torch traces again once it finds that an eps must be a constant; this says so before.
    with torch._dynamo.config.patch(specialize_float=True):
        yield


def cloud(points: int, channels: int = 3, batch: int = 2) -> tuple[Tensor, Tensor]:
    """(coords, feats) of at most ``points`` distinct sites in random order."""
    generator = torch.Generator().manual_seed(points)
    rows = torch.randint(0, 12, (points, 4), generator=generator)
    rows[:, 0] %= batch
    coords = torch.unique(rows, dim=0).int()
    coords = coords[torch.randperm(len(coords), generator=generator)]
    return coords, torch.randn(len(coords), channels, generator=generator)


def unet(norm: str, blocks: int = 1) -> SparseUNet:
    torch.manual_seed(0)
    levels = (0, blocks, blocks)
    return SparseUNet(
        3, 5, (4, 8, 8), (8, 4), blocks=levels, decoder_blocks=(blocks, blocks), stem_kernel_size=3, norm=norm
    )


def run(net: Callable[[SparseTensor], Any], points: int, **options: Any) -> tuple[Tensor, Tensor]:
    """Output and input gradient on a new tensor, whose maps nobody has built."""
    coords, feats = cloud(points)
    feats.requires_grad_()
    y = net(SparseTensor(coords, feats, batch_size=2, **options))
    y = y.feats if isinstance(y, SparseTensor) else y
    if y.requires_grad:
        weights = torch.linspace(-1, 2, y.numel()).view(y.shape)
        (y.square() * weights.to(y.dtype)).sum().backward()
    return y.detach(), torch.zeros_like(feats) if feats.grad is None else feats.grad


def assert_same(mine: Tensor, theirs: Tensor, tolerance: float = 1e-5) -> None:
    assert mine.shape == theirs.shape
    if mine.numel():
        assert (mine - theirs).abs().max() <= tolerance * max(1.0, theirs.abs().max().item())


def assert_trains_alike(net: nn.Module, compiled: Callable[..., Any], points: int, **options: Any) -> None:
    """Output, all gradients, and what a forward pass leaves in the buffers."""
    buffers = {name: value.clone() for name, value in net.named_buffers()}
    results = []
    for function in (net, compiled):
        for name, value in net.named_buffers():
            value.copy_(buffers[name])
        net.zero_grad()
        out, grad = run(function, points, **options)
        grads = [p.grad.clone() for p in net.parameters() if p.grad is not None]
        results.append([out, grad, *grads, *(b.clone() for b in net.buffers())])
    for mine, theirs in zip(results[1], results[0], strict=True):
        assert_same(mine.double(), theirs.double())


def compile_once(function: Callable[..., Any], name: str = "aot_eager") -> tuple[Callable[..., Any], Any]:
    counter = CompileCounterWithBackend(name)
    return torch.compile(function, backend=counter, fullgraph=True, dynamic=True), counter


@pytest.mark.parametrize(
    ("norm", "training", "blocks"), [("batch", True, 1), ("batch", False, 0), ("instance", True, 0)]
)
def test_unet_compiles_once_for_all_sizes(norm: str, training: bool, blocks: int) -> None:
    net = unet(norm, blocks).train(training)
    compiled, counter = compile_once(net)
    assert_trains_alike(net, compiled, SIZES[0])
    with torch._dynamo.config.patch(error_on_recompile=True):
        for points in SIZES[1:]:
            assert_trains_alike(net, compiled, points)
    assert counter.frame_count == 1


@pytest.mark.skipif(shutil.which("c++") is None, reason="Inductor needs a C++ compiler")
@pytest.mark.parametrize(
    ("norm", "training"),
    [
        ("batch", True),
        pytest.param("batch", False, marks=pytest.mark.slow),
        pytest.param("instance", True, marks=pytest.mark.slow),
        pytest.param("layer", True, marks=pytest.mark.slow),
    ],
)
def test_inductor(norm: str, training: bool) -> None:
    net = unet(norm, blocks=0).train(training)
    compiled, counter = compile_once(net, "inductor")
    assert_trains_alike(net, compiled, SIZES[0])
    with torch._dynamo.config.patch(error_on_recompile=True):
        for points in SIZES[1:]:
            assert_trains_alike(net, compiled, points)
    assert counter.frame_count == 1


def test_batch_sizes_share_the_graph() -> None:
    net = unet("instance", 0)
    compiled, counter = compile_once(net, "eager")
    for batch in (2, 3, 5):
        coords, feats = cloud(400, batch=batch)
        assert_same(*(f(SparseTensor(coords, feats, batch_size=batch)).feats.detach() for f in (compiled, net)))
    assert counter.frame_count == 1


def test_autocast_compiles() -> None:
    net = unet("instance", 0)
    compiled, counter = compile_once(net)
    for points in SIZES[:2]:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            (mine, grad), (theirs, wanted) = (run(f, points) for f in (compiled, net))
        assert mine.dtype == theirs.dtype == torch.bfloat16
        assert_same(mine.float(), theirs.float(), 2e-2)
        assert_same(grad, wanted, 2e-2)
    assert counter.frame_count == 1


def test_maps_made_in_the_graph_stay_with_the_sites() -> None:
    """What the compiled call built serves the eager one, and the other way round; neither builds anew."""
    net = unet("instance", 0)
    compiled, counter = compile_once(net, "eager")
    coords, feats = cloud(300)
    x = SparseTensor(coords, feats, batch_size=2)
    wanted = net(SparseTensor(coords, feats, batch_size=2)).feats.detach()
    assert_same(compiled(x).feats.detach(), wanted)
    built = x.sites.builds
    assert built == len(x.sites.cached_maps()) > 0
    # A tensor that has its maps needs one more graph, which builds none; after that nothing changes.
    for _ in range(3):
        assert_same(compiled(x).feats.detach(), wanted)
    assert_same(net(x).feats.detach(), wanted)
    assert x.sites.builds == built
    assert counter.frame_count == 2


def test_empty_and_single_site_clouds() -> None:
    net = unet("batch", 0).eval()
    compiled, _ = compile_once(net, "eager")
    coords, feats = cloud(300)
    for n in (0, 1, 2):
        y = compiled(SparseTensor(coords[:n], feats[:n], batch_size=2))
        assert_same(y.feats.detach(), net(SparseTensor(coords[:n], feats[:n], batch_size=2)).feats.detach())


def _weight(*shape: int) -> Tensor:
    return torch.linspace(-1, 1, torch.Size(shape).numel()).view(shape)


FUNCTIONS: dict[str, Callable[[SparseTensor], Any]] = {
    "arithmetic": lambda x: (1.0 - x) * 2.0 + x / 3 - x.map(lambda f: f[:, :1]),
    "per_channel_and_sample": lambda x: x * _weight(3) + _weight(2, 3, 1, 1, 1),
    "torch_functions": lambda x: torch.relu(x) + nn.functional.gelu(x),
    "equal_sets": lambda x: x + SparseTensor(x.coords, x.feats, (12, 12, 12), 2),
    "cat_channels": lambda x: sparse.cat([x, x * 2]),
    "cat_samples": lambda x: sparse.cat([x, x * 2], 0),
    "union": lambda x: x.union(functional.max_pool(x, 3, 1, 1)),
    "prune": lambda x: x.prune(x.feats[:, 0] > 0),
    "user_order": lambda x: x.replace(x.feats * x.coords[:, 1:]),
    "new_tensor": lambda x: SparseTensor(x.coords, x.feats, (12, 12, 12), 2),
    "dense": lambda x: x.dense(),
    "dense_given_shape": lambda x: x.dense((13, 12, 14)),
    "from_dense": lambda x: SparseTensor.from_dense(x.dense()),
    "mean": lambda x: x.mean((2, 3, 4)),
    "global_max": lambda x: functional.global_pool(x, "max"),
    "pools": lambda x: functional.upsample(functional.avg_pool(functional.max_pool(x, 2), 3, 2, 1), 2),
    "norms": lambda x: functional.global_response_norm(functional.group_norm(x, 3), _weight(3), _weight(3)),
    "depthwise": lambda x: functional.subm_conv(x, _weight(27, 1, 3), 3, groups=3),
    "floor_rule": lambda x: functional.sparse_conv(x, _weight(27, 3, 2), 3, stride=2, padding=1, out_rule="floor"),
    "transposed": lambda x: functional.conv_transpose(x, _weight(27, 3, 2), 3, stride=2, padding=1),
    "inverse": lambda x: functional.inverse_conv(
        functional.sparse_conv(x, _weight(8, 3, 4), 2, stride=2), _weight(8, 4, 2), 2, stride=2
    ),
    "prescribed_sites": lambda x: functional.sparse_conv(
        x, _weight(1, 3, 4), 1, stride=2, sites=functional.sparse_conv(x, _weight(27, 3, 4), 3, stride=2, padding=1)
    ),
    "casts": lambda x: x.to(torch.float64).detach() + x.double(),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_compile_once(name: str) -> None:
    compiled, counter = compile_once(FUNCTIONS[name])
    for points in SIZES[:3]:
        results = [run(f, points, spatial_shape=12) for f in (compiled, FUNCTIONS[name])]
        for mine, theirs in zip(*results, strict=True):
            assert_same(mine, theirs)
    assert counter.frame_count == 1


def test_a_graph_checks_its_sites_when_it_runs() -> None:
    compiled, _ = compile_once(lambda c, f: SparseTensor(c, f, (12, 12, 12), 2).feats * 2)
    coords, feats = cloud(300)
    assert_same(compiled(coords, feats), feats * 2)
    for column, value, message in ((0, 2, "batch index"), (2, 12, "outside spatial_shape"), (3, -1, "outside")):
        wrong = coords.clone()
        wrong[7, column] = value
        with pytest.raises(RuntimeError, match=message):
            compiled(wrong, feats)
    twice = coords.clone()
    twice[7] = twice[9]
    with pytest.raises(ValueError, match="are both"):
        compiled(twice, feats)


def test_a_graph_needs_the_batch_size() -> None:
    compiled, _ = compile_once(lambda c, f: SparseTensor(c, f).feats)
    with pytest.raises(Exception, match="batch_size must be given"):
        compiled(*cloud(50))


def test_a_graph_compares_sets_when_it_runs() -> None:
    compiled, _ = compile_once(lambda x, y: (x + y).feats)
    coords, feats = cloud(300)
    x = SparseTensor(coords, feats, batch_size=2)
    assert_same(compiled(x, SparseTensor(coords, feats, batch_size=2)), feats * 2)
    other = coords.clone()
    other[7, 1:] = 13
    with pytest.raises(RuntimeError, match="the site sets differ"):
        compiled(x, SparseTensor(other, feats, batch_size=2))


def test_another_backend_compiles_anew() -> None:
    compiled = torch.compile(lambda feats: feats + len(backend_for(feats).name), backend="eager", fullgraph=True)
    zero = torch.zeros(())
    assert compiled(zero) == len("native")
    with backend("reference"):
        assert compiled(zero) == len("reference")
    assert compiled(zero) == len("native")


def test_graph_breaks_are_harmless() -> None:
    """Without ``fullgraph`` torch breaks the graph at every map; what is left gives the same results."""

    class Broken(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Sequential(
                sparse.SubMConv3d(3, 4, 3, bias=False), sparse.SparseBatchNorm(4), sparse.SparseConv3d(4, 4, 2, 2)
            )

        def forward(self, x: SparseTensor) -> SparseTensor:
            y = self.net[0](x)
            torch._dynamo.graph_break()
            return self.net[1:](y)

    torch.manual_seed(0)
    net = Broken()
    compiled = torch.compile(net, backend="eager", dynamic=True)
    for points in SIZES[:2]:
        assert_trains_alike(net, compiled, points)


class Exportable(nn.Module):
    """What ``torch.export`` takes: tensors in, tensors out."""

    def __init__(self) -> None:
        super().__init__()
        self.net = unet("batch", 0).eval()

    def forward(self, coords: Tensor, feats: Tensor) -> Tensor:
        return self.net(SparseTensor(coords, feats, batch_size=2)).feats


def test_export_keeps_the_number_of_sites_open() -> None:
    net = Exportable()
    rows = torch.export.Dim("rows", min=2)
    program = torch.export.export(net, cloud(300), dynamic_shapes=({0: rows}, {0: rows}))
    file = io.BytesIO()
    torch.export.save(program, file)
    file.seek(0)
    loaded = torch.export.load(file).module()
    for points in SIZES[1:]:
        coords, feats = cloud(points)
        assert_same(loaded(coords, feats).detach(), net(coords, feats).detach())
