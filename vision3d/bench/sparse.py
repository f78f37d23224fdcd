# SPDX-License-Identifier: Apache-2.0
"""``vision3d bench sparse``: the engine beside ``torch.mm`` and its peers, as JSON, a table and a picture."""

from __future__ import annotations

import dataclasses
import platform
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vision3d.bench import clouds, questions
from vision3d.bench.peers import PEERS
from vision3d.bench.targets import Row, verdicts
from vision3d.sparse.backends import explain
from vision3d.types import Chart

#: Edge of a voxel, metres, of the scaling question: rooms of 9 thousand to a million voxels.
_SCALING_VOXELS_M = (0.18, 0.09, 0.045, 0.022)


@dataclasses.dataclass(frozen=True)
class Plan:
    """What to measure.

    Attributes:
        threads: thread counts, each measured on its own.
        turns: repeats per case.
        quick: the room only, 16 and 32 channels, a few repeats; no scaling and no U-Net.
        files: name -> (file of points, edge of a voxel in metres): more clouds, for layers and maps.
    """

    threads: tuple[int, ...] = (1, 2)
    turns: int = 7
    quick: bool = False
    files: Mapping[str, tuple[Path, float]] = dataclasses.field(default_factory=dict)


def run(plan: Plan, progress: Callable[[str], object]) -> dict[str, Any]:
    """Measure. ``progress`` hears what is being measured. Returns a JSON document.

    Raises:
        UserError: a file of points cannot be read.
    """
    # Files first: a mistake should be known before minutes of work.
    more = {name: clouds.from_file(path, voxel_m) for name, (path, voxel_m) in plan.files.items()}
    before = torch.get_num_threads()
    rows: list[Row] = []
    try:
        for label, measure in _steps(plan, more):
            progress(label)
            rows += measure()
    finally:
        torch.set_num_threads(before)
    return {
        "schema": 1,
        "seed": 0,
        "turns": plan.turns,
        "limit": "torch.mm of two 1024 x 1024 float32 matrices, interleaved; useful flops only",
        "clock": "processor time for one thread, wall time for more; medians",
        "machine": _machine(),
        "peers": {peer.name: peer.missing() or "measured" for peer in PEERS},
        "rows": rows,
        "targets": [dataclasses.asdict(v) | {"met": v.met} for v in verdicts(rows)],
    }


def chart(document: Mapping[str, Any], action: str = "forward") -> Chart:
    """Share of ``torch.mm`` over channels, per engine, in the room with one thread."""
    series: dict[str, tuple[Any, Any]] = {}
    for row in document["rows"]:
        key = (row["question"], row["cloud"], row["threads"], row["action"])
        if key == ("subm3", "room", 1, action):
            x, y = series.setdefault(row["engine"], ([], []))
            x.append(row["channels"])
            y.append(100 * row["share"])
    what = {"forward": "forward", "step": "training step"}[action]
    return Chart(
        name=f"sparse_{action}",
        title=f"Submanifold 3x3x3, {what}: share of torch.mm",
        x_label="channels",
        y_label="% of torch.mm (1024), 1 thread",
        series={name: (np.array(x, float), np.array(y, float)) for name, (x, y) in series.items()},
        x_log=True,
    )


def _steps(plan: Plan, more: Mapping[str, Tensor]) -> Iterator[tuple[str, Callable[[], list[Row]]]]:
    """What is measured, in order: a line for the user, and the measurement."""
    room = clouds.room()
    turns = min(3, plan.turns) if plan.quick else plan.turns
    scenes = {"room": room} if plan.quick else {"room": room, "lidar": clouds.lidar_sweep(), "ball": clouds.ball()}
    channels = (16, 32) if plan.quick else questions.CHANNELS
    for threads in plan.threads:
        for name, coords in scenes.items():
            for width in channels if name != "ball" else (32,):
                label = f"SubM 3^3, {name}, {width} channels, {threads} thread(s)"
                yield label, _bound(questions.subm3, name, coords, width, threads, turns)
        for name, coords in {**scenes, **more}.items():
            yield f"maps, {name}, {threads} thread(s)", _bound(questions.maps, name, coords, threads, 3 * turns)
        for width in (32,) if plan.quick else (32, 64):
            label = f"strided layers, {width} channels, {threads} thread(s)"
            yield label, _bound(questions.strided, "room", room, width, threads, turns)
    yield "step with map", _bound(questions.step_with_map, "room", room, 32, turns)
    for name, coords in more.items():
        for width in channels[:3]:
            yield f"SubM 3^3, {name}, {width} channels", _bound(questions.subm3, name, coords, width, 1, turns)
    for width in channels:
        yield f"depthwise, {width} channels", _bound(questions.depthwise, "room", room, width, 1, turns)
    for width in (32,) if plan.quick else (32, 128):
        yield f"memory, {width} channels", _bound(questions.temporary_memory, "room", room, width, 1)
    yield "first layers", _bound(questions.first_layers, "room", room, turns)
    yield "overhead", _bound(questions.overhead, turns)
    if plan.quick:
        return
    for threads in plan.threads:
        yield f"U-Net, {threads} thread(s)", _bound(questions.unet, clouds.room(0.0845), threads, turns)
    yield "scaling", _bound(questions.scaling, clouds.room, _SCALING_VOXELS_M, 32, turns)


def _bound(measure: Callable[..., list[Row]], *args: Any) -> Callable[[], list[Row]]:
    return lambda: measure(*args)


def _machine() -> dict[str, Any]:
    from vision3d.run.environment import environment

    found = environment(torch.get_num_threads())
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line for line in cpuinfo.read_text(encoding="utf-8").splitlines() if line.startswith("model name")]
        model = names[0].split(":", 1)[1].strip() if names else model
    found |= {"processor": model, "backend": explain("cpu")}
    found["isa"] = _isa()
    return found


def _isa() -> str | None:
    try:
        from vision3d.sparse._native import isa
    except ImportError:
        return None
    return str(isa())
