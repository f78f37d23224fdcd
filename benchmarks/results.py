# SPDX-License-Identifier: Apache-2.0
"""Runs the experiments with the commands that a user would type, and writes docs/RESULTS.md.

python benchmarks/results.py [--data FOLDER] [--only NAME ...]

FOLDER holds the real data (default: the folder ``shared/data`` beside the checkout, or VISION3D_TEST_DATA). Maps,
runs and the answers of commands are kept in build/results, so an interrupted run goes on where it stopped. Sections
that are not asked for stay on the page as they are.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
WORK = ROOT / "build" / "results"
METHODS = ("favor", "median", "nearest", "all")
REGIMES = ("::2", "::6", "::12", "::18")
FLOW_GROUPS = ("core", "features", "attention", "transport", "consistency")


def command(*words: str) -> dict[str, Any]:
    """The JSON document that ``vision3d WORDS --json`` prints, remembered between runs."""
    key = hashlib.sha256(json.dumps(words).encode()).hexdigest()[:16]  # the same words, the same answer
    memory = WORK / "answers" / f"{key}.json"
    if memory.exists():
        answer: dict[str, Any] = json.loads(memory.read_text())
        return answer
    print("$ vision3d", *words, file=sys.stderr, flush=True)
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "vision3d", *words, "--json"], stdout=subprocess.PIPE, cwd=WORK, check=True
    )
    answer = {**json.loads(done.stdout), "wall_s": round(time.perf_counter() - started, 1)}
    memory.parent.mkdir(parents=True, exist_ok=True)
    memory.write_text(json.dumps(answer))
    return answer


def fit_and_eval(
    data: str, name: str, fit: list[str], evaluate: list[str], baselines: bool = True
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Fit a map and evaluate in it."""
    out = f"maps/{name}"
    fitted = command("fit", "favor", data, *fit, "--out", out, "--overwrite")
    extra = ["--baselines"] if baselines else []
    return fitted, command("eval", "favor", data, *evaluate, "--model", out, "--pictures", "0", *extra)


def values(summary: dict[str, Any]) -> dict[str, float]:
    """Metric name -> value; infinite where the median query failed."""
    return {m["name"]: float("inf") if m["value"] is None else m["value"] for m in summary["metrics"]}


def n_of(summary: dict[str, Any]) -> int:
    """Queries that a summary counts."""
    return next(int(m["n"]) for m in summary["metrics"] if m["name"] == "median_translation_cm")


def row(cells: list[str], summary: dict[str, Any]) -> str:
    """One line of a table of accuracies."""
    v = values(summary)
    return (
        f"| {' | '.join(cells)} | {v['median_translation_cm']:.2f} | {v['median_rotation_deg']:.2f} "
        f"| {v['recall_5cm_5deg']:.3f} | {v['recall_2cm_2deg']:.3f} | {v['recall_1cm_1deg']:.3f} "
        f"| {v['n_localized']:.0f} / {n_of(summary)} |"
    )


def header(names: list[str]) -> list[str]:
    """Head of a table of accuracies."""
    columns = [*names, "median cm", "median deg", "5 cm & 5 deg", "2 cm & 2 deg", "1 cm & 1 deg", "localized / n"]
    return [f"| {' | '.join(columns)} |", f"|{'---|' * len(names)}{'---:|' * 6}"]


def kitchen(data: Path, features: str, truth: str) -> list[str]:
    """Accuracy by number of map images, FaVoR beside its baselines."""
    scene = data / "7scenes_redkitchen"
    lines = header(["map images", "method"])
    notes = []
    for regime in REGIMES:
        options = ["--truth", str(scene / "pgt_sfm_redkitchen_seq01.txt")] if truth == "sfm" else []
        fitted, result = fit_and_eval(
            str(scene / "redkitchen"),
            f"kitchen-{truth}-{features}-{regime.strip(':')}",
            [*options, "--select", regime, "--features.name", features],
            [*options, "--select", "1::2"],
            baselines=truth == "sfm",
        )
        images = fitted["facts"]["images"]
        for method in METHODS if truth == "sfm" else METHODS[:1]:
            summary = result if method == "favor" else result["baselines"][method]
            lines.append(row([f"`{regime}` ({images})" if method == "favor" else "", method], summary))
        notes.append(f"| `{regime}` | {costs(fitted, result)} |")
    columns = [
        "landmarks",
        "fit s",
        "fit ms / landmark",
        "map kB / landmark",
        "query ms median / p95",
        "render + match ms",
    ]
    return [*lines, "", f"| map images | {' | '.join(columns)} |", f"|---|{'---:|' * 6}", *notes]


def costs(fitted: dict[str, Any], result: dict[str, Any]) -> str:
    """What a map and a query cost, as measured in these runs on a machine that did other work beside."""
    landmarks = fitted["facts"]["landmarks"]
    size = sum(file.stat().st_size for file in (WORK / fitted["model"]).iterdir())
    timing = json.loads((WORK / result["run"] / "timing.json").read_text())["timing_ms"]
    total = timing["total"]
    both = timing["render"]["median"] + timing["match"]["median"]
    fit_ms = 1e3 * fitted["wall_s"] / landmarks
    return (
        f"{landmarks} | {fitted['wall_s']:.0f} | {fit_ms:.1f} | {size / landmarks / 1e3:.2f} "
        f"| {total['median']:.0f} / {total['p95']:.0f} | {both:.0f}"
    )


def per_megabyte(data: Path) -> list[str]:
    """Accuracy by resolution and number format of the fields, with what a map weighs."""
    scene = data / "7scenes_redkitchen"
    truth = ["--truth", str(scene / "pgt_sfm_redkitchen_seq01.txt")]
    lines = header(["R", "format", "kB / landmark", "map MB"])
    for resolution in (1, 3, 5):
        for dtype in ("float16", "float32"):
            name = f"kitchen-size-{resolution}-{dtype}"
            options = ["--select", "::12", "--fit.resolution", str(resolution), "--landmarks.dtype", dtype]
            fitted, result = fit_and_eval(
                str(scene / "redkitchen"), name, [*truth, *options], [*truth, "--select", "1::2"], baselines=False
            )
            landmarks = fitted["facts"]["landmarks"]
            size = sum(file.stat().st_size for file in (WORK / "maps" / name).iterdir())
            cells = [str(resolution), dtype, f"{size / landmarks / 1000:.2f}", f"{size / 1e6:.1f}"]
            lines.append(row(cells, result))
    return lines


def other_data(data: Path) -> list[str]:
    """The same two commands on other data, even frames mapped and odd ones localized."""
    video = WORK / "kitchen.mp4"
    if not video.exists():
        write_video(data / "7scenes_redkitchen" / "redkitchen" / "seq-01", video)
    lines = header(["data"])
    for source, title in (
        (str(data / "hololens_dvmvs_000"), "hololens_dvmvs_000 (20 frames)"),
        (str(data / "ngp_fox"), "ngp_fox (10 photos)"),
        (str(data / "gtsfm_lund_door"), "gtsfm_lund_door (6 photos)"),
        (str(video), "video of 40 kitchen frames (poses by SfM, units arbitrary)"),
    ):
        name = title.split(" ")[0]
        _, result = fit_and_eval(source, name, ["--select", "::2"], ["--select", "1::2"], baselines=False)
        lines.append(row([title], result))
    return lines


def write_video(frames: Path, path: Path) -> None:
    """A video of every frame of the first part of a sequence."""
    import cv2

    files = sorted(frames.glob("*.color.*"))[:40]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 5.0, (640, 480))
    for file in files:
        writer.write(cv2.imread(str(file)))
    writer.release()


def script(name: str, *words: str) -> list[str]:
    """What another benchmark prints, as it is."""
    memory = WORK / "answers" / f"{name}.txt"
    if not memory.exists():
        done = subprocess.run(
            [sys.executable, f"benchmarks/{name}.py", *words], stdout=subprocess.PIPE, cwd=ROOT, text=True, check=True
        )
        memory.parent.mkdir(parents=True, exist_ok=True)
        memory.write_text(done.stdout)
    return memory.read_text().splitlines()


def main() -> None:
    """Run what is asked for and write the page of all that has been run."""
    parser = argparse.ArgumentParser(description=__doc__)
    default = os.environ.get("VISION3D_TEST_DATA", str(ROOT.parent / "shared" / "data"))
    parser.add_argument("--data", type=Path, default=Path(default))
    parser.add_argument("--only", nargs="*", default=[])
    arguments = parser.parse_args()
    data = arguments.data.resolve()
    if not data.is_dir():
        sys.exit(f"error: {data}: no such folder; --data names the folder of real data")
    WORK.mkdir(parents=True, exist_ok=True)
    sections = {
        "kitchen-alike": ("7-Scenes redkitchen, SfM truth, ALIKE-n", lambda: kitchen(data, "alike-n", "sfm")),
        "kitchen-sift": ("7-Scenes redkitchen, SfM truth, SIFT (no weights)", lambda: kitchen(data, "sift", "sfm")),
        "kitchen-kinectfusion": (
            "7-Scenes redkitchen, KinectFusion truth (`pose.txt`), ALIKE-n: not comparable with the tables above",
            lambda: kitchen(data, "alike-n", "kinectfusion"),
        ),
        "size": ("Accuracy and size of the map, redkitchen `::12`", lambda: per_megabyte(data)),
        "other": ("Other data through the same two commands", lambda: other_data(data)),
        "basin": ("How far off a prior may be", lambda: script("prior_basin")),
        "views": ("View dependence of a field (seeds 0-3)", lambda: ["```", *script("view_dependence"), "```"]),
        "evaluator": (
            "The evaluator on published estimates",
            lambda: script("check_evaluator", str(data / "reloc_metadata" / "visloc_pgt")),
        ),
        "flow-real": ("Scene flow: every method on three real pairs", lambda: script("scene_flow", str(data))),
        "flow-training": (
            "Scene flow: small trainings on generated scenes",
            lambda: [
                line.replace("## ", "### ", 1) if line.startswith("## ") else line
                for line in script("scene_flow_training", "--only", *FLOW_GROUPS, "--steps", "400")
            ],
        ),
        "flow-scaling": (
            "Scene flow: time and memory of the full-size SCTN",
            lambda: script("scene_flow_scaling", "--data", str(data)),
        ),
        "oriented-aerial": (
            "Oriented detection: points to a detector on generated scenes",
            lambda: script("oriented_boxes"),
        ),
        "oriented-dota": (
            "Oriented detection: points to boxes on four DOTA images, learned from the same images",
            lambda: script("oriented_dota", str(data / "dota_full")),
        ),
        "rotated-boxes": (
            "Rotated boxes: overlap and suppression beside Shapely and OpenCV",
            lambda: ["```", *script("rotated_boxes"), "```"],
        ),
        "tiling": ("Tiles of large images: cutting and merging", lambda: ["```", *script("tiling"), "```"]),
    }
    pages = WORK / "sections"
    pages.mkdir(exist_ok=True)
    for name, (title, make) in sections.items():
        if not arguments.only or name in arguments.only:
            (pages / f"{name}.md").write_text("\n".join([f"## {title}", "", *make(), ""]))
    page = ROOT / "docs" / "RESULTS.md"
    before = sections_of(page.read_text()) if page.exists() else {}
    parts = []
    for name, (title, _) in sections.items():
        file = pages / f"{name}.md"
        if file.exists() or title in before:
            parts.append(file.read_text() if file.exists() else before[title])
    head = (
        "# Results\n\nWritten by `make experiments` (benchmarks/results.py); every figure comes from a command.\n"
        "Relocalization: seed 0. Queries are `--select 1::2`: 71 frames of one sequence, none of them in a map.\n"
        "Failures count as infinite in medians and as misses in recalls. Recalls need both errors below the\n"
        "thresholds.\n"
    )
    page.write_text("\n".join([head, *parts]))


def sections_of(page: str) -> dict[str, str]:
    """Title -> text of each section of the page, its heading included."""
    return {part.partition("\n")[0]: f"## {part.rstrip()}\n" for part in page.split("\n## ")[1:]}


if __name__ == "__main__":
    main()
