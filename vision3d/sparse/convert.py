# SPDX-License-Identifier: Apache-2.0
"""A dense convnet as its sparse twin with the same weights, and the way back."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping

import torch
from torch import nn

from vision3d.sparse.twins import TWINS, Choices, dense_state

Rule = Callable[[nn.Module], nn.Module]

#: Modules that mean the same for sparse tensors, or come after a global pool.
_KEPT = (nn.Identity, nn.Flatten)
_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


def convert_sparse(
    module: nn.Module,
    submanifold: bool = True,
    out_rule: str | None = None,
    transposed: str = "generate",
    rules: Mapping[type[nn.Module], Rule] | None = None,
) -> nn.Module:
    """The sparse twin of a dense network: a copy with every layer replaced, its own forward code, the same weights.

    Names of parameters and buffers stay, so state dicts map one to one (convolution weights in this engine's layout).
    On a fully occupied grid the twin computes what the dense network does. Otherwise it computes what the dense
    network would if it were masked, after every layer, to the sites that layer has in the twin.

    Forward code may use ``+``, ``*``, ``torch.cat``, ``permute`` to channels-last and back, ``mean`` over the grid, and
    activations from ``torch.nn.functional``; see ``vision3d.sparse.torch_functions``.

    Args:
        module: built of torch's convolutions (one to three axes), norms, pools, linear layers and activations, in
            containers of any class. It stays as it is.
        submanifold: convolutions that keep the grid's size keep the sites; False: they spread as dense ones do.
        out_rule: sites of strided layers: "floor" keeps a mask that is constant on coarse cells as it is, and lets a
            strided 1 x 1 shortcut meet its branch; "dense" has every site whose window touches an active one. None:
            "floor" where ``submanifold``, else "dense".
        transposed: transposed convolutions "generate" sites, or "restore" those that the strided layer with their
            geometry read, as a U-Net with skips needs.
        rules: for classes of your own: from the class to a function that makes the twin from a (copied) module of it.

    Returns:
        The twin, on the device and in the mode of ``module``.

    Raises:
        ValueError: an option is unknown; a layer has no twin; the message names its path and why.
    """
    if out_rule not in (None, "dense", "floor"):
        raise ValueError(f'convert_sparse: out_rule must be "dense", "floor" or None, not {out_rule!r}')
    if transposed not in ("generate", "restore"):
        raise ValueError(f'convert_sparse: transposed must be "generate" or "restore", not {transposed!r}')
    rule = out_rule if out_rule is not None else "floor" if submanifold else "dense"
    return _Converter(Choices(submanifold, rule, transposed), rules or {}).twin(copy.deepcopy(module), "")


def export_dense(sparse: nn.Module, dense: nn.Module) -> nn.Module:
    """Copies the weights of a twin back into the dense network it came from (or one like it); returns that network.

    Raises:
        ValueError: the twin lacks a tensor of the dense network, or has it in another shape; the message names it.
    """
    twins = dict(sparse.named_modules(remove_duplicate=False))
    with torch.no_grad():
        for path, layer in dense.named_modules():
            wanted = {**dict(layer.named_parameters(recurse=False)), **dict(layer.named_buffers(recurse=False))}
            state = dense_state(twins[path]) if path in twins else {}
            for name, value in wanted.items():
                full = f"{path}.{name}" if path else name
                if name not in state:
                    raise ValueError(f"export_dense: the sparse network has no {full}")
                found = state[name]
                # A norm's scale may be (C,) in one and (1, C, 1, 1) in the other.
                if [n for n in found.shape if n != 1] != [n for n in value.shape if n != 1]:
                    raise ValueError(
                        f"export_dense: {full} is {tuple(found.shape)} in the sparse network, {tuple(value.shape)} here"
                    )
                value.copy_(found.reshape(value.shape))
    return dense


class _Converter:
    """Replaces layers inside a copy of the network; a layer or a weight that is used twice stays shared."""

    def __init__(self, choices: Choices, rules: Mapping[type[nn.Module], Rule]) -> None:
        self.choices = choices
        self.rules = rules
        self.done: dict[nn.Module, nn.Module] = {}
        self.weights: dict[nn.Parameter, nn.Parameter] = {}

    def twin(self, module: nn.Module, path: str) -> nn.Module:
        if module not in self.done:
            twin = self._made(module, path)
            # A container is the module itself, and its layers may be in different modes.
            self.done[module] = twin if twin is module else twin.train(module.training)
        return self.done[module]

    def _made(self, module: nn.Module, path: str) -> nn.Module:
        kind = type(module)
        rule = next((self.rules[base] for base in kind.__mro__ if base in self.rules), None)
        if rule is not None:
            return rule(module)
        if kind in TWINS:
            return self._layer(module, path)
        if kind in _KEPT:
            return module
        base = next((base.__name__ for base in kind.__mro__ if base in TWINS), None)
        if base is not None:
            raise _unsupported(module, path, f"it is a {base} with code of its own")
        ours = kind in _CONTAINERS or not kind.__module__.startswith("torch.nn.")
        if not ours or not any(True for _ in module.children()):
            raise _unsupported(module, path, "it has no sparse twin")
        for name, child in module._modules.items():
            if child is not None:
                module._modules[name] = self.twin(child, f"{path}.{name}" if path else name)
        return module

    def _layer(self, module: nn.Module, path: str) -> nn.Module:
        try:
            twin = TWINS[type(module)](module, self.choices)
        except ValueError as error:
            raise _unsupported(module, path, str(error)) from None
        source, made = module._parameters.get("weight"), twin._parameters.get("weight")
        if source is not None and made is not None:
            twin._parameters["weight"] = self.weights.setdefault(source, made)
        return twin


def _unsupported(module: nn.Module, path: str, reason: str) -> ValueError:
    where = f"layer {path!r}" if path else "the module"
    return ValueError(
        f"convert_sparse: {where}, a {type(module).__name__}: {reason}; pass rules={{{type(module).__name__}: ...}} "
        "with a function that makes its twin"
    )
