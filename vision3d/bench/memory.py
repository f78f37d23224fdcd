# SPDX-License-Identifier: Apache-2.0
"""Peak memory of one call, read from the kernel's high-water mark (Linux)."""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Callable
from pathlib import Path

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")


def peak_extra_bytes(run: Callable[[], object]) -> int | None:
    """How far the process grows, at its peak, above where it stood before ``run``; its result counts.

    The call is made once before, so that libraries are loaded and thread stacks exist. None where the kernel does not
    say (anything but Linux).
    """
    try:
        run()
        _give_back()
        _CLEAR.write_text("5", encoding="ascii")
        before = _kilobytes("VmRSS")
        result = run()
        peak = _kilobytes("VmHWM")
        del result
    except OSError:
        return None
    return max(0, peak - before) * 1024


def _give_back() -> None:
    """Memory that is free but still held by the allocator would hide what the next call takes."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _kilobytes(field: str) -> int:
    for line in _STATUS.read_text(encoding="ascii").splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1])
    raise OSError(f"{_STATUS} has no {field}")
