# SPDX-License-Identifier: Apache-2.0
"""Round numbers for axes and scale bars."""

from __future__ import annotations

import math


def nice_step(span: float, target: int) -> float:
    """The 1, 2 or 5 times a power of ten that divides ``span`` into about ``target`` parts."""
    raw = span / max(target, 1)
    power = 10.0 ** math.floor(math.log10(raw))
    # Logarithmic midpoints between 1, 2, 5 and 10.
    for factor, limit in ((1, math.sqrt(2)), (2, math.sqrt(10)), (5, math.sqrt(50))):
        if raw / power <= limit:
            return factor * power
    return 10.0 * power


def linear_ticks(low: float, high: float, target: int = 6) -> list[float]:
    """Round values from at or below ``low`` to at or above ``high``, so that the first and last bound the axis."""
    if high <= low:
        pad = abs(low) * 0.1 or 1.0
        low, high = low - pad, high + pad
    step = nice_step(high - low, target)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [i * step for i in range(first, last + 1)]


def log_ticks(low: float, high: float, limit: int = 8) -> list[float]:
    """Powers of ten in [low, high], with 2 and 5 between them where there is room; bounds are positive."""
    decades = range(math.floor(math.log10(low) - 1e-9), math.ceil(math.log10(high) + 1e-9) + 1)
    for factors in ((1, 2, 5), (1, 3), (1,)):
        ticks = [f * 10.0**d for d in decades for f in factors]
        ticks = [t for t in ticks if low * (1 - 1e-9) <= t <= high * (1 + 1e-9)]
        if len(ticks) <= limit:
            break
    while len(ticks) > limit:
        ticks = ticks[::2]
    return ticks if len(ticks) > 1 else [low, high]


def tick_label(value: float) -> str:
    """Short decimal: no trailing zeros, no rounding noise, exponents only where they save room."""
    text = f"{value:.6g}"
    return "0" if text == "-0" else text.replace("e+0", "e").replace("e-0", "e-")
