# SPDX-License-Identifier: Apache-2.0
"""Small trainings of scene flow networks on generated scenes, and what each part of SCTN is good for.

    python benchmarks/scene_flow_training.py [--only core] [--seeds 3] [--steps 300] [--points 512] [--threads 1]

Every variant gets the same pairs in the same order, the same number of steps, points and batch, and is measured on the
same held-out scenes. ``--only`` takes groups of the card's check 10: ``core`` (SCTN, FLOT), ``features`` (U-Net or set
convolutions), ``attention``, ``transport`` (one Sinkhorn iteration or none), ``consistency`` (FSC, none, uniform).
Each training is one file below ``--out`` and is not repeated; an interrupted one goes on from its last checkpoint.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import torch
from torch import nn

from scene_flow.networks.config import NetworkConfig, TransportConfig
from scene_flow.networks.store import build_network
from scene_flow.training.config import TrainConfig
from scene_flow.training.loop import train_network
from scene_flow.training.scenes import Scene, draw, scene_as_known
from vision3d.contracts import DataConfig, Reader
from vision3d.readers.bodies import SPEC
from vision3d.run.console import Console
from vision3d.run.fitting import WorkContext

ROOT = Path(__file__).resolve().parents[1]
BORDER_M = 0.3
OTHER_M = 0.05  # two bodies move apart when their flows differ by more, where they meet


@dataclass(frozen=True)
class Variant:
    """What is trained."""

    method: str = "sctn"
    network: dict[str, Any] = field(default_factory=dict)
    train: dict[str, Any] = field(default_factory=dict)


VARIANTS = {
    "sctn": Variant(),
    "flot": Variant("flot", train={"fsc_weight": 0.0}),  # FLOT is trained on the L1 loss alone
    "set conv features": Variant(network={"features": "setconv"}),
    "no attention": Variant(network={"attention": False}),
    "no sinkhorn": Variant(network={"transport": TransportConfig(iterations=0)}),
    "no consistency": Variant(train={"fsc_weight": 0.0}),
    "uniform smoothness": Variant(train={"consistency": "uniform"}),
}
GROUPS = {
    "core": ("sctn", "flot"),
    "features": ("sctn", "set conv features"),
    "attention": ("sctn", "no attention"),
    "transport": ("sctn", "no sinkhorn"),
    "consistency": ("sctn", "no consistency", "uniform smoothness"),
}
# Where a part should matter most: twins to be told apart; a shallow scene that is full, so that bodies are near others.
DATA_OF = {
    "attention": "bodies:boxes?alike=1.0",
    "consistency": "bodies:boxes?objects=10-16&far=10&speed=0.8&ego=0.3",
}
# What a table shows beside the error: title -> (measured, digits).
COLUMNS_OF = {
    "transport": {"EPE m, half the target": ("epe_half_target", 3)},
    "consistency": {"EPE m near borders": ("border_epe", 3), "variance in bodies cm2": ("within_variance_cm2", 0)},
}


@dataclass(frozen=True)
class Setting:
    """What is the same for every variant of a table."""

    data: str
    scenes: int
    held_out: int
    steps: int
    batch: int
    points: int
    lr: float
    voxel_size_m: float
    size: str
    clip: float
    augment: str

    def reader(self, split: str, count: int) -> Reader:
        """Scenes of more points than are drawn, so that each visit sees others."""
        query = "&" if "?" in self.data else "?"
        points = (16 if "street" in self.data else 4) * self.points  # on a street, half of them are ground
        return SPEC.open(f"{self.data}{query}scenes={count}&points={points}", DataConfig(split=split))

    def network(self, variant: Variant) -> NetworkConfig:
        base = NetworkConfig(size=self.size, voxel_size_m=self.voxel_size_m, points=self.points)  # type: ignore[arg-type]
        return replace(base, **variant.network)

    def training(self, variant: Variant, curve_every: int) -> TrainConfig:
        options = {
            "steps": self.steps,
            "batch": self.batch,
            "points": self.points,
            "lr": self.lr,
            "clip": self.clip,
            "augment": self.augment,
            "validate": min(32, self.scenes // 8),
            "validate_every": curve_every,
            "checkpoint_every": max(1, min(100, self.steps // 4)),
            "workers": 0,
        }
        return TrainConfig(**{**options, **variant.train})


def cell(name: str, seed: int, setting: Setting, out: Path, curve_every: int, console: Console) -> dict[str, Any]:
    """Train and measure one variant with one seed, or read what was measured before."""
    variant = VARIANTS[name]
    identity = {"variant": name, "seed": seed, **asdict(setting), "recipe": asdict(variant)}
    key = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:12]
    path = out / f"{name.replace(' ', '-')}-{seed}-{key}.json"
    if path.exists():
        found: dict[str, Any] = json.loads(path.read_text())
        return found
    console.note(f"{name}, seed {seed}: {setting.data}, {setting.steps} steps of {setting.batch} x {setting.points}")
    torch.manual_seed(seed)
    net = build_network(variant.method, setting.network(variant))
    work = path.with_suffix(".cache")
    context = WorkContext(work, seed, console)
    facts = train_network(net, setting.reader("train", setting.scenes), setting.training(variant, curve_every), context)
    result = {**identity, "facts": facts, "measured": measure(net, setting)}
    write(path, result)
    shutil.rmtree(work)
    return result


def write(path: Path, document: Any) -> None:
    """Whole or not at all."""
    part = path.with_suffix(".part")
    part.write_text(json.dumps(document, indent=1) + "\n")
    part.replace(path)


@torch.no_grad()
def measure(net: nn.Module, setting: Setting) -> dict[str, float]:
    """Errors on held-out scenes, metres: means over points, then over scenes."""
    reader = setting.reader("test", setting.held_out)
    rows: list[dict[str, float]] = []
    ran_s = 0.0
    for i in range(len(reader)):
        truth = reader.truth(i)
        assert truth is not None
        scene = scene_as_known(reader[i], truth)
        drawn = draw(scene, setting.points, np.random.default_rng([1000, i]))
        began_s = time.perf_counter()
        flow = run(net, drawn, setting.points)
        ran_s += time.perf_counter() - began_s
        sparse = run(net, drawn, setting.points // 2)
        rows.append(errors(scene, drawn, flow) | {"epe_half_target": epe(sparse, drawn.flow)})
    means = {}
    for name in rows[0]:
        known = [row[name] for row in rows if not np.isnan(row[name])]  # not every scene has a border
        means[name] = float(np.mean(known)) if known else float("nan")
    return {**means, "ms_per_pair": 1e3 * ran_s / len(rows)}


def run(net: nn.Module, drawn: Scene, target_points: int) -> np.ndarray:
    """(N, 3) the network's flow, with a target of so many points."""
    found = net(torch.from_numpy(drawn.source)[None], torch.from_numpy(drawn.target[:target_points])[None])
    return np.asarray(found.flow[0].numpy())


def errors(scene: Scene, drawn: Scene, flow: np.ndarray) -> dict[str, float]:
    """The field's metrics, and those of borders and insides of bodies."""
    wrong = np.linalg.norm(flow - drawn.flow, axis=1)
    share = wrong / (np.linalg.norm(drawn.flow, axis=1) + 1e-4)
    label = bodies_of(drawn.source, drawn.flow)
    border = near_border(scene, drawn)
    inside = [np.var(flow[label == k] - drawn.flow[label == k], axis=0).sum() for k in label]
    return {
        "epe": float(wrong.mean()),
        "zero_epe": epe(np.zeros_like(flow), drawn.flow),
        "acc3ds": float(((wrong < 0.05) | (share < 0.05)).mean()),
        "acc3dr": float(((wrong < 0.10) | (share < 0.10)).mean()),
        "outliers": float(((wrong > 0.30) | (share > 0.10)).mean()),
        "border_epe": float(wrong[border].mean()) if border.any() else float("nan"),
        "border_share": float(border.mean()),
        "within_variance_cm2": 1e4 * float(np.mean(inside)),
    }


def epe(flow: np.ndarray, truth: np.ndarray) -> float:
    """Mean distance."""
    return float(np.linalg.norm(flow - truth, axis=1).mean())


def near_border(scene: Scene, drawn: Scene) -> np.ndarray:
    """(N,) drawn points within 0.3 m of a point, drawn or not, that moves otherwise than its body does."""
    from scipy.spatial import cKDTree

    label = bodies_of(scene.source, scene.flow)
    tree = cKDTree(scene.source)
    own = tree.query(drawn.source)[1]
    found = np.zeros(len(drawn.source), dtype=bool)
    for i, near in enumerate(tree.query_ball_point(drawn.source, BORDER_M)):
        others = [j for j in near if label[j] != label[own[i]]]
        found[i] = bool(others) and bool((np.linalg.norm(scene.flow[others] - drawn.flow[i], axis=1) > OTHER_M).any())
    return found


def bodies_of(points: np.ndarray, flow: np.ndarray) -> np.ndarray:
    """(N,) numbers of rigid motions: the truth moves all points of a body by exactly one."""
    from scipy.spatial import cKDTree

    source, ends = points.astype(np.float64), (points + flow).astype(np.float64)
    label = np.full(len(source), -1)
    near = cKDTree(source).query(source, min(8, len(source)))[1]
    for i in range(len(source)):
        if label[i] >= 0:
            continue
        chosen = near[i][np.linalg.norm(flow[near[i]] - flow[i], axis=1) < 0.1]
        R, t = rigid(source[chosen], ends[chosen])
        fits = (np.linalg.norm(source @ R.T + t - ends, axis=1) < 1e-3) & (label < 0)
        fits[i] = True
        label[fits] = i
    return label


def rigid(source: np.ndarray, ends: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The rotation and shift that fit best (Kabsch)."""
    a, b = source.mean(0), ends.mean(0)
    U, _, Vt = np.linalg.svd((source - a).T @ (ends - b))
    R = Vt.T @ np.diag([1, 1, np.sign(np.linalg.det(Vt.T @ U.T))]) @ U.T
    return R, b - R @ a


def table(group: str, setting: Setting, results: dict[str, list[dict[str, Any]]]) -> list[str]:
    """Markdown: mean and spread over seeds."""
    first = next(iter(results.values()))
    zero = first[0]["measured"]["zero_epe"]
    columns = {"EPE m": ("epe", 3), "Acc3DR": ("acc3dr", 3), **COLUMNS_OF.get(group, {})}
    lines = [
        f"## {group}: {setting.data}",
        "",
        f"{setting.steps} steps of {setting.batch} pairs x {setting.points} points, lr {setting.lr:g}, "
        f"{setting.scenes} scenes; {setting.held_out} held-out scenes, {len(first)} seeds; "
        f"mean (standard deviation over seeds). Zero flow: EPE {zero:.3f} m.",
        "",
        f"| variant | {' | '.join(columns)} | EPE / zero flow | steps / s | seeds |",
        "|---|" + "---:|" * (len(columns) + 3),
    ]
    for name, cells in results.items():
        shown = [with_spread([c["measured"][key] for c in cells], digits) for key, digits in columns.values()]
        share = with_spread([c["measured"]["epe"] / zero for c in cells], 2)
        speed = np.mean([c["facts"]["steps_per_second"] for c in cells])
        lines.append(f"| {name} | {' | '.join(shown)} | {share} | {speed:.2f} | {len(cells)} |")
    return lines


def with_spread(values: Sequence[float], digits: int) -> str:
    """Mean and standard deviation."""
    spread = f" ({np.std(values, ddof=1):.{digits}f})" if len(values) > 1 else ""
    return f"{np.mean(values):.{digits}f}{spread}"


def claim(results: dict[str, list[dict[str, Any]]]) -> list[str]:
    """Whether SCTN beats half of zero flow and FLOT with every seed."""
    rows = [(s["measured"], f["measured"]) for s, f in zip(results["sctn"], results["flot"])]
    half = sum(s["epe"] < 0.5 * s["zero_epe"] for s, _ in rows)
    better = sum(s["epe"] < f["epe"] for s, f in rows)
    return [
        "",
        f"SCTN below half of zero flow: {half} of {len(rows)} seeds. "
        f"SCTN below FLOT on the same budget: {better} of {len(rows)} seeds.",
    ]


def main() -> None:
    """Train what is asked for and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", choices=list(GROUPS), default=["core"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--points", type=int, default=512)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--clip", type=float, default=0.0)
    parser.add_argument("--augment", default="none")
    parser.add_argument(
        "--voxel", type=float, default=0.5, help="edge of a voxel, metres; 512 points do not meet in 0.07"
    )
    parser.add_argument("--size", choices=["small", "full"], default="small")
    parser.add_argument("--scenes", type=int, default=2000)
    parser.add_argument("--held-out", type=int, default=64)
    parser.add_argument("--data", default="", help="default: bodies:boxes, with twins in the attention group")
    parser.add_argument("--curve", type=int, default=100, help="steps between held-out errors during training")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "scene_flow_training")
    parser.add_argument("--json", type=Path, help="all results in one file")
    a = parser.parse_args()
    torch.set_num_threads(a.threads)
    a.out.mkdir(parents=True, exist_ok=True)
    console = Console(sys.stderr)
    everything: dict[str, Any] = {}
    for group in a.only:
        data = a.data or DATA_OF.get(group, "bodies:boxes")
        setting = Setting(
            data, a.scenes, a.held_out, a.steps, a.batch, a.points, a.lr, a.voxel, a.size, a.clip, a.augment
        )
        results: dict[str, list[dict[str, Any]]] = {name: [] for name in GROUPS[group]}
        for seed in range(a.seeds):  # seed by seed, so that what an interrupted run has is comparable
            for name in GROUPS[group]:
                results[name].append(cell(name, seed, setting, a.out, a.curve, console))
        print(
            "\n".join([*table(group, setting, results), *(claim(results) if group == "core" else []), ""]), flush=True
        )
        everything[group] = results
        if a.json:
            write(a.json, everything)


if __name__ == "__main__":
    main()
