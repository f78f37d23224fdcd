# SPDX-License-Identifier: Apache-2.0
"""Which of several processes of one training this is, as torchrun says in the environment. Imports no torch."""

from __future__ import annotations

import os

from vision3d.errors import UserError


def rank() -> int:
    """This process's number among those of the training; 0 where there is only one.

    Raises:
        UserError: ``RANK`` and ``WORLD_SIZE`` contradict each other or are no numbers.
    """
    count = world_size()
    if count == 1:
        return 0
    number = _number("RANK", 0)
    if number >= count:
        raise UserError(f"the environment says RANK={number} of WORLD_SIZE={count}; unset both, or use torchrun")
    return number


def world_size() -> int:
    """How many processes take part.

    Raises:
        UserError: ``WORLD_SIZE`` is no number of at least 1.
    """
    number = _number("WORLD_SIZE", 1)
    if number < 1:
        raise UserError(f"the environment says WORLD_SIZE={number}; unset it, or use torchrun")
    return number


def is_main() -> bool:
    """Whether this process keeps checkpoints, writes files and talks to the user."""
    return rank() == 0


def _number(variable: str, otherwise: int) -> int:
    text = os.environ.get(variable, "")
    if not text:
        return otherwise
    if not text.isdigit():
        raise UserError(f"the environment says {variable}={text}, which is no number; unset it, or use torchrun")
    return int(text)
