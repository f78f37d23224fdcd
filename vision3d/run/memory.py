# SPDX-License-Identifier: Apache-2.0
"""The highest resident memory of this process during a piece of work. Linux only; elsewhere it is not known."""

from __future__ import annotations

from pathlib import Path

_CLEAR = Path("/proc/self/clear_refs")
_STATUS = Path("/proc/self/status")


class PeakMemory:
    """Measures one piece of work at a time: :meth:`start`, the work, :meth:`stop_mb`."""

    def __init__(self) -> None:
        self._before_kib: int | None = None

    def start(self) -> None:
        """Forget the highest memory so far."""
        try:
            _CLEAR.write_text("5")  # proc(5): resets VmHWM to what is resident now
            self._before_kib = _field_kib("VmHWM")
        except (OSError, ValueError):
            self._before_kib = None

    def stop_mb(self) -> float | None:
        """Megabytes (10^6) by which the highest resident memory since :meth:`start` lay above that at the start."""
        if self._before_kib is None:
            return None
        try:
            return max(_field_kib("VmHWM") - self._before_kib, 0) * 1024 / 1e6
        except (OSError, ValueError):
            return None


def _field_kib(name: str) -> int:
    for line in _STATUS.read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1])
    raise ValueError(f"{_STATUS} has no {name}")
