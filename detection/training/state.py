# SPDX-License-Identifier: Apache-2.0
"""All that changes while a network is trained, as arrays: what a checkpoint holds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from detection.training.config import TrainConfig
from vision3d.nn.team import Team

Arrays = dict[str, NDArray[Any]]


def make_optimizer(net: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """Over all parameters that are to change; biases and norms are decayed like the rest, as in the field's recipes."""
    parameters = [parameter for parameter in net.parameters() if parameter.requires_grad]
    if config.optimizer == "sgd":
        return torch.optim.SGD(parameters, lr=config.lr, momentum=0.9, weight_decay=config.weight_decay)
    return torch.optim.AdamW(parameters, lr=config.lr, weight_decay=config.weight_decay)


class TrainState:
    """Network, optimizer and record after ``step`` steps.

    No random generator is part of it: what a step draws follows from the seed and the step's number.

    Attributes:
        terms: names of the loss's terms, in the order of their first appearance.
        losses: a row (step, mean of each term over the steps since the row before) per checkpoint; a term that did not
            appear is zero.
    """

    def __init__(self, net: nn.Module, config: TrainConfig) -> None:
        self.net = net
        self.optimizer = make_optimizer(net, config)
        self.step = 0
        self.terms: list[str] = []
        self.losses: list[list[float]] = []

    def record(self, window: list[Mapping[str, float]]) -> None:
        """Add a row of means over some steps' terms."""
        for terms in window:
            self.terms += [name for name in terms if name not in self.terms]
        means = [sum(terms.get(name, 0.0) for terms in window) / max(len(window), 1) for name in self.terms]
        self.losses.append([float(self.step), *means])

    def arrays(self) -> Arrays:
        """The state as arrays, copied."""
        found = {f"net/{name}": _array(tensor) for name, tensor in self.net.state_dict().items()}
        for name, parameter in self.net.named_parameters():
            for kind, value in self.optimizer.state.get(parameter, {}).items():
                if isinstance(value, Tensor):
                    found[f"optimizer/{kind}/{name}"] = _array(value)
        width = 1 + len(self.terms)
        rows = [row + [0.0] * (width - len(row)) for row in self.losses]
        found["step"] = np.array(self.step, dtype=np.int64)
        found["terms"] = np.array(self.terms, dtype="U40")
        found["losses"] = np.array(rows, dtype=np.float64).reshape(-1, width)
        return found

    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """The state that :meth:`arrays` described."""
        state = {name[4:]: torch.tensor(array) for name, array in arrays.items() if name.startswith("net/")}
        self.net.load_state_dict(state)
        for name, parameter in self.net.named_parameters():
            kept: dict[str, Tensor] = {}
            for key, array in arrays.items():
                if key.startswith("optimizer/") and key.partition("/")[2].partition("/")[2] == name:
                    kind = key.split("/")[1]
                    tensor = torch.tensor(array)
                    kept[kind] = tensor if kind == "step" else tensor.to(parameter.device)
            if kept:
                self.optimizer.state[parameter] = kept
        self.step = int(arrays["step"])
        self.terms = [str(name) for name in arrays["terms"]]
        self.losses = arrays["losses"].tolist()

    def share(self, team: Team) -> None:
        """Take over the state of process 0; records are its own business."""
        self.step = team.share_number(self.step)
        if team.size == 1:
            return
        for tensor in self.net.state_dict().values():
            team.share(tensor)
        if self.step == 0:
            return
        for parameter in self.net.parameters():
            if parameter.requires_grad:
                moments = self.optimizer.state[parameter]
                for kind in self._kinds():
                    if kind not in moments:
                        moments[kind] = torch.zeros(()) if kind == "step" else torch.zeros_like(parameter)
                    team.share(moments[kind])

    def _kinds(self) -> tuple[str, ...]:
        return (
            ("momentum_buffer",) if isinstance(self.optimizer, torch.optim.SGD) else ("step", "exp_avg", "exp_avg_sq")
        )


def _array(tensor: Tensor) -> NDArray[Any]:
    return np.array(tensor.detach().cpu().numpy())
