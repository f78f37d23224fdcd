# SPDX-License-Identifier: Apache-2.0
"""All that changes while a network is trained, as arrays: what a checkpoint holds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from vision3d.nn.team import Team

Arrays = dict[str, NDArray[Any]]

_MOMENTS = ("step", "exp_avg", "exp_avg_sq")


class TrainState:
    """Network, Adam and record after ``step`` steps.

    No random generator is part of it: what a step draws follows from the seed and the step's number.

    Attributes:
        losses: a row (step, supervised loss, consistency) per checkpoint, means over the steps since the one before.
        validations: a row (step, EPE in metres, EPE of zero flow in metres) per measurement on held-out pairs.
        seconds: spent so far, over all runs of this training.
    """

    def __init__(self, net: nn.Module, lr: float) -> None:
        self.net = net
        self.adam = torch.optim.Adam(net.parameters(), lr=lr)
        self.step = 0
        self.losses: list[tuple[float, ...]] = []
        self.validations: list[tuple[float, ...]] = []
        self.seconds = 0.0

    def arrays(self) -> Arrays:
        """The state as arrays, copied."""
        found = {f"net/{name}": _array(tensor) for name, tensor in self.net.state_dict().items()}
        for name, parameter in self.net.named_parameters():
            moments = self.adam.state.get(parameter, {})
            found |= {f"adam/{kind}/{name}": _array(tensor) for kind, tensor in moments.items()}
        found["step"] = np.array(self.step, dtype=np.int64)
        found["losses"] = np.array(self.losses, dtype=np.float64).reshape(-1, 3)
        found["validations"] = np.array(self.validations, dtype=np.float64).reshape(-1, 3)
        found["seconds"] = np.array(self.seconds, dtype=np.float64)
        return found

    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """The state that :meth:`arrays` described."""
        prefix = "net/"
        state = {name.removeprefix(prefix): torch.tensor(a) for name, a in arrays.items() if name.startswith(prefix)}
        self.net.load_state_dict(state)
        for name, parameter in self.net.named_parameters():
            if f"adam/step/{name}" in arrays:
                self._fresh_moments(parameter)
                for kind, tensor in self.adam.state[parameter].items():
                    tensor.copy_(torch.tensor(arrays[f"adam/{kind}/{name}"]))
        self.step = int(arrays["step"])
        self.losses = [tuple(row) for row in arrays["losses"].tolist()]
        self.validations = [tuple(row) for row in arrays["validations"].tolist()]
        self.seconds = float(arrays["seconds"])

    def share(self, team: Team) -> None:
        """Take over the state of process 0; records are its own business."""
        self.step = team.share_number(self.step)
        if team.size == 1 or self.step == 0:
            return  # the network itself is shared when it is wrapped
        for parameter in self.net.parameters():
            if parameter.requires_grad:
                self._fresh_moments(parameter, keep=True)
                for kind in _MOMENTS:
                    team.share(self.adam.state[parameter][kind])

    def _fresh_moments(self, parameter: nn.Parameter, keep: bool = False) -> None:
        """Adam's state of a parameter, as torch makes it at the parameter's first step."""
        if keep and self.adam.state.get(parameter):
            return
        self.adam.state[parameter] = {
            "step": torch.zeros((), dtype=torch.float32),
            "exp_avg": torch.zeros_like(parameter, memory_format=torch.preserve_format),
            "exp_avg_sq": torch.zeros_like(parameter, memory_format=torch.preserve_format),
        }


def _array(tensor: Tensor) -> NDArray[Any]:
    return np.array(tensor.detach().cpu().numpy())
