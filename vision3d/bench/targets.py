# SPDX-License-Identifier: Apache-2.0
"""What the engine should reach, and where each figure stands in the measured rows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

Row = dict[str, Any]


@dataclass(frozen=True)
class Verdict:
    """One target beside what was measured.

    Attributes:
        name: what is measured.
        unit: of the three numbers.
        measured: None when this run did not measure it.
        must: the number to reach.
        aim: the number hoped for, None where there is none.
        more_is_better: direction.
    """

    name: str
    unit: str
    measured: float | None
    must: float
    aim: float | None
    more_is_better: bool = True

    @property
    def met(self) -> bool | None:
        """Whether ``must`` is reached; None when it was not measured."""
        if self.measured is None:
            return None
        return self.measured >= self.must if self.more_is_better else self.measured <= self.must


SUBM3 = {
    "forward": {16: (65, 76), 32: (80, 89), 64: (90, 97), 128: (92, 100)},
    "step": {16: (55, 64), 32: (75, 84), 64: (86, 95), 128: (90, 98)},
}


def verdicts(rows: Sequence[Row]) -> list[Verdict]:
    """Every target, in order. Shares are per cent of ``torch.mm``; one thread unless the name says otherwise."""
    found: list[Verdict] = []
    clouds = [cloud for cloud in ("room", "lidar") if _pick(rows, question="subm3", cloud=cloud)]
    for threads in (1, 2):
        for action, by_channels in SUBM3.items():
            for channels, (must, aim) in by_channels.items():
                row = _one(rows, question="subm3", cloud="room", channels=channels, threads=threads, action=action)
                name = f"SubM 3^3 {action}, room, C = {channels}, {_threads(threads)}"
                found.append(Verdict(name, "% of mm", _percent(row, "share"), must, aim))
    for layer in ("k2s2", "k3s2", "inverse k2s2"):
        row = _one(rows, question=layer, cloud="room", channels=32, threads=1, action="step")
        found.append(Verdict(f"{layer} step, room, C = 32", "% of mm", _percent(row, "share"), 65, 75))
    ours = _one(rows, question="step with map", channels=32)
    theirs = _one(rows, engine="spconv", question="step with map", channels=32)
    ratio = theirs["median_ms"] / ours["median_ms"] if ours and theirs else None
    found.append(Verdict("step with map against spconv on the CPU, C = 32", "x", ratio, 1.8, 2.2))
    for cloud, must, aim in (("room", 130, 94), ("lidar", 150, 120)):
        for order in ("shuffled", "sorted"):
            row = _one(rows, question="map", cloud=cloud, threads=1, action=order)
            value = row["ns_per_voxel"] if row else None
            found.append(Verdict(f"map 3^3, {cloud}, {order}", "ns / voxel", value, must, aim, more_is_better=False))
    for cloud in clouds or ["room"]:
        conv = _speed_up(rows, question="subm3", cloud=cloud, channels=32, action="forward")
        found.append(Verdict(f"two threads over one, convolution, {cloud}, C = 32", "x", conv, 1.8, 1.95))
        the_map = _speed_up(rows, question="map", cloud=cloud, action="shuffled")
        found.append(Verdict(f"two threads over one, map, {cloud}", "x", the_map, 1.4, 1.8))
    row = _one(rows, question="depthwise", channels=32, threads=1, action="forward")
    # Every byte once: what a cache of any size could save. Counting gathered rows instead may exceed 100 %.
    compulsory = _percent(row, "compulsory_share")
    found.append(Verdict("depthwise 3^3, C = 32, each byte counted once", "% of copy rate", compulsory, 40, 60))
    for row in _pick(rows, question="temporary memory"):
        if row["temporary_mib"] is not None:
            name = f"temporary memory, {row['action']}, C = {row['channels']}"
            found.append(Verdict(name, "MiB", row["temporary_mib"], row["limit_mib"], None, more_is_better=False))
    row = _one(rows, question="u-net", threads=1)
    outside = _percent(row, "outside_convolutions")
    found.append(Verdict("U-Net, share outside convolutions", "%", outside, 20, None, more_is_better=False))
    for action in ("map", "forward", "step"):
        spread = _spread(_pick(rows, question="scaling", action=action))
        name = f"scaling, {action}: largest deviation from linear"
        found.append(Verdict(name, "%", spread, 15, None, more_is_better=False))
    row = _one(rows, question="133 voxels", action="forward")
    value = row["median_ms"] if row else None
    found.append(Verdict("overhead of a layer (133 voxels)", "ms", value, 0.3, None, more_is_better=False))
    row = _one(rows, question="import beyond torch")
    value = row["best_ms"] if row else None
    found.append(Verdict("import beyond torch", "ms", value, 100, None, more_is_better=False))
    return found


def _pick(rows: Iterable[Row], engine: str = "vision3d", **wanted: object) -> list[Row]:
    wanted["engine"] = engine
    return [row for row in rows if all(row.get(key) == value for key, value in wanted.items())]


def _one(rows: Iterable[Row], engine: str = "vision3d", **wanted: object) -> Row | None:
    found = _pick(rows, engine, **wanted)
    return found[0] if found else None


def _percent(row: Row | None, key: str) -> float | None:
    return None if row is None or row.get(key) is None else 100 * row[key]


def _speed_up(rows: Sequence[Row], **wanted: object) -> float | None:
    one, two = (_one(rows, "vision3d", threads=threads, **wanted) for threads in (1, 2))
    return one["median_ms"] / two["median_ms"] if one and two else None


def _spread(rows: Sequence[Row], key: str = "ns_per_unit") -> float | None:
    """How far the time per unit strays from its mean over sizes, per cent."""
    values = [row[key] for row in rows]
    if len(values) < 2:
        return None
    mean = sum(values) / len(values)
    worst: Callable[[float], float] = lambda value: abs(value / mean - 1)  # noqa: E731
    return 100 * max(map(worst, values))


def _threads(count: int) -> str:
    return "1 thread" if count == 1 else f"{count} threads"
