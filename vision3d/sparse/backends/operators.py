# SPDX-License-Identifier: Apache-2.0
"""Registration of compiled functions as torch operators ``vision3d::name``, and of their derivatives.

``torch.library.custom_op`` does the same, but its first call takes a second (it imports torch's compiler), and every
call of a differentiable operator looks through the whole schema, which takes longer than a small convolution.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch._ops import OpOverload

Function = Callable[..., Any]

_LIBRARY = torch.library.Library("vision3d", "FRAGMENT")


def operator(name: str) -> Callable[[Function], OpOverload]:
    """Makes a function of CPU tensors and numbers an operator; annotations give its schema, defaults are not allowed.

    The function must change none of its arguments and return none of them.
    """

    def register(kernel: Function) -> OpOverload:
        schema = torch.library.infer_schema(kernel, mutates_args=())
        _LIBRARY.define(name + schema, tags=(torch.Tag.pt2_compliant_tag,))
        _LIBRARY.impl(name, kernel, "CPU")
        overload: OpOverload = getattr(torch.ops.vision3d, name).default
        return overload

    return register


def fake(op: OpOverload) -> Callable[[Function], Function]:
    """The function below gives shapes and dtypes of the operator's results without computing them."""

    def register(function: Function) -> Function:
        torch.library.register_fake(op.name(), function, lib=_LIBRARY)
        return function

    return register


def differentiable(op: OpOverload, backward: Function, setup: Function) -> None:
    """Gives an operator its derivative.

    Args:
        op: the operator.
        backward: (ctx, gradient of each result) to one gradient, or None, per argument; made of operators that are
            differentiable themselves where second derivatives are wanted.
        setup: (ctx, arguments, results): keeps on ``ctx`` what ``backward`` needs.
    """
    below = torch._C._AutoDispatchBelowAutograd
    mask = torch._C._after_autograd_keyset

    class Derivative(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, *args: Any) -> Any:
            *inputs, keys = args
            with below():
                output = op.redispatch(keys & mask, *inputs)
            setup(ctx, inputs, output)
            return output

        @staticmethod
        def backward(ctx: Any, *grads: Any) -> Any:
            return (*backward(ctx, *grads), None)

    def call(keys: Any, *inputs: Any) -> Any:
        if torch.is_grad_enabled() and torch._C._any_requires_grad(*inputs):
            return Derivative.apply(*inputs, keys)
        with below():
            return op.redispatch(keys & mask, *inputs)

    _LIBRARY.impl(op.name(), call, "Autograd", with_keyset=True)
