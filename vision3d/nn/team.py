# SPDX-License-Identifier: Apache-2.0
"""The processes that share a training, under ``torchrun``; one process alone needs none of it.

Gradients are averaged by DistributedDataParallel, or by :meth:`Team.average_gradients` where a loss uses more of a
network than its ``forward``. Statistics that a network keeps in buffers (those of a batch norm) are those of process 0:
the others' are overwritten before each step, as DistributedDataParallel does.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn

from vision3d.distributed import rank, world_size
from vision3d.errors import UserError


@dataclass(frozen=True)
class Team:
    """This process among those that share the training.

    Attributes:
        rank, size: 0 <= rank < size.
        device: where this process computes.
    """

    rank: int
    size: int
    device: torch.device

    @property
    def is_main(self) -> bool:
        """Whether this process keeps the checkpoints and speaks to the user."""
        return self.rank == 0

    def wrapped(self, net: nn.Module) -> nn.Module:
        """The network whose gradients are averaged over all processes; begins with the parameters of process 0."""
        if self.size == 1:
            return net
        from torch.nn.parallel import DistributedDataParallel

        return DistributedDataParallel(net, device_ids=[self.device] if self.device.type == "cuda" else None)

    def total(self, *values: float) -> list[float]:
        """The sum of each value over all processes."""
        if self.size == 1:
            return list(values)
        # gloo and nccl both sum float64; metrics must not depend on the number of processes by rounding
        sums = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.all_reduce(sums)
        return sums.tolist()

    def average_gradients(self, net: nn.Module) -> None:
        """Give every process the mean gradient; a parameter that a process did not use counts as zero there."""
        if self.size == 1:
            return
        for parameter in net.parameters():
            if parameter.requires_grad:
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
                dist.all_reduce(parameter.grad)
                parameter.grad /= self.size

    def share(self, tensor: Tensor) -> None:
        """Overwrite a tensor by that of process 0. On a CPU tensor under nccl, by way of the device."""
        if self.size == 1:
            return
        there = tensor.detach().to(self.device)
        dist.broadcast(there, 0)
        tensor.detach().copy_(there)

    def share_buffers(self, net: nn.Module) -> None:
        """Give every process the statistics of process 0."""
        for buffer in net.buffers():
            self.share(buffer)

    def share_number(self, number: int) -> int:
        """The number of process 0."""
        holder = torch.tensor(number, dtype=torch.int64)
        self.share(holder)
        return int(holder)


@contextmanager
def connected(device: torch.device) -> Iterator[None]:
    """One connection of the processes for several trainings in a row, each of which then finds it in :func:`join`.

    To leave and to join anew on the same port may wait for ever: one process can reach the connection that another is
    about to close.
    """
    if world_size() == 1 or not dist.is_available() or dist.is_initialized():
        yield
        return
    if device.type == "cuda":
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield
        dist.barrier()  # who leaves while another still talks to it may abort
    finally:
        dist.destroy_process_group()


@contextmanager
def join(net: nn.Module) -> Iterator[Team]:
    """The team of this process, and the network moved to where it computes: under torchrun with CUDA, each its card.

    Raises:
        UserError: torchrun started several processes, but this torch cannot connect them.
    """
    device = next(net.parameters()).device
    size = world_size()
    if size == 1:
        yield Team(0, 1, device)
        return
    if not dist.is_available():
        raise UserError("this build of torch cannot train in several processes; start one without torchrun")
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(device)
        net.to(device)
    starts = not dist.is_initialized()
    if starts:
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield Team(rank(), size, device)
        if starts:
            dist.barrier()  # who leaves while another still talks to it may abort
    finally:
        if starts:
            dist.destroy_process_group()
