# SPDX-License-Identifier: Apache-2.0
"""``vision3d bench sparse``: measure the engine on this machine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vision3d.cli.arguments import Parser
from vision3d.cli.output import Output, table
from vision3d.errors import UserError


def bench(args: list[str], out: Output) -> int:
    """Run, print, and write ``sparse.json`` and the pictures."""
    parser = Parser("bench", description="How fast the engine is here, beside torch.mm and its peers.")
    parser.add_argument("what", choices=("sparse",), help="what to measure")
    parser.add_argument("--quick", action="store_true", help="a minute: the room, 16 and 32 channels")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2], metavar="T", help="thread counts (1 2)")
    parser.add_argument("--turns", type=int, default=7, metavar="N", help="repeats of each case (7)")
    parser.add_argument(
        "--cloud",
        action="append",
        default=[],
        metavar="FILE:VOXEL_M",
        help="also measure a file of points (.bin, .npy, .npz) at this voxel size; may be given again",
    )
    parser.add_argument("--out", type=Path, default=Path("runs/bench"), metavar="FOLDER", help="(runs/bench)")
    options = parser.parse_args(args)
    if options.turns < 1 or min(options.threads) < 1:
        raise UserError("--turns and --threads must be at least 1")
    files = dict(_cloud(text) for text in options.cloud)

    from vision3d.bench.sparse import Plan, run

    plan = Plan(tuple(dict.fromkeys(options.threads)), options.turns, options.quick, files)
    document = run(plan, out.note)
    paths = _write(document, options.out)
    out.result(document, _text(document) + "".join(f"\n{path.as_posix()}" for path in paths))
    return 0


def _cloud(text: str) -> tuple[str, tuple[Path, float]]:
    path, _, size = text.rpartition(":")
    try:
        voxel_m = float(size)
    except ValueError:
        voxel_m = 0.0
    if not path or not voxel_m > 0:
        raise UserError(f"--cloud {text}: FILE:VOXEL_M is needed, for instance sweep.bin:0.05")
    return Path(path).name.split(".")[0][:24], (Path(path), voxel_m)


def _write(document: Mapping[str, Any], folder: Path) -> list[Path]:
    import cv2

    from vision3d.bench.sparse import chart
    from vision3d.run.files import json_text, write_bytes, write_text
    from vision3d.view.charts import chart_picture

    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / "sparse.json"]
    write_text(paths[0], json_text(document))
    for action in ("forward", "step"):
        picture = chart_picture(chart(document, action))
        ok, data = cv2.imencode(".png", picture[:, :, ::-1])
        if ok:
            paths.append(folder / f"sparse_{action}.png")
            write_bytes(paths[-1], data.tobytes())
    return paths


def _text(document: Mapping[str, Any]) -> str:
    machine = document["machine"]
    head = (
        f"{machine['processor']}, {machine['cpu_count']} processors, kernels {machine['isa']}, torch "
        f"{machine['versions'].get('torch')}; limit: {document['limit']}; {document['clock']}; n = {document['turns']}"
    )
    skipped = [f"{name} ({why})" for name, why in document["peers"].items() if why != "measured"]
    parts = [head, "not measured: " + ("; ".join(skipped) or "none"), ""]
    rows = [r for r in document["rows"] if r["question"] == "subm3"]
    parts.append(_side_by_side(rows, "Submanifold 3^3: median ms, % of torch.mm"))
    parts.append(_maps([r for r in document["rows"] if r["question"] == "map"]))
    others = [r for r in document["rows"] if r["question"] not in ("subm3", "map") and r.get("median_ms") is not None]
    parts.append(_list(others))
    parts.append(_targets(document["targets"]))
    return "\n".join(parts)


def _side_by_side(rows: Sequence[Mapping[str, Any]], title: str) -> str:
    engines = list(dict.fromkeys(r["engine"] for r in rows))
    cells: dict[tuple[Any, ...], dict[str, str]] = {}
    for r in rows:
        key = (r["cloud"], r["threads"], r["channels"], r["action"])
        cells.setdefault(key, {})[r["engine"]] = f"{r['median_ms']:.2f}, {100 * r['share']:.0f} %"
    body = [[*map(str, key), *(found.get(e, "-") for e in engines)] for key, found in cells.items()]
    return table(["cloud", "threads", "C", "action", *engines], body, title)


def _maps(rows: Sequence[Mapping[str, Any]]) -> str:
    engines = list(dict.fromkeys(r["engine"] for r in rows))
    cells: dict[tuple[Any, ...], dict[str, str]] = {}
    for r in rows:
        cells.setdefault((r["cloud"], r["threads"], r["action"]), {})[r["engine"]] = f"{r['ns_per_voxel']:.0f}"
    body = [[*map(str, key), *(found.get(e, "-") for e in engines)] for key, found in cells.items()]
    return table(["cloud", "threads", "rows", *engines], body, "Kernel map 3^3: ns per voxel")


def _list(rows: Sequence[Mapping[str, Any]]) -> str:
    body = []
    for r in rows:
        share = r.get("share")
        extra = [
            f"{name.replace('_', ' ')} {r[name]:.3g}"
            for name in ("compulsory_share", "copy_gb_per_s", "outside_convolutions", "voxels", "ns_per_unit")
            if r.get(name) is not None
        ]
        body.append(
            [r["question"], r["cloud"], str(r["channels"] or "-"), str(r["threads"]), r["engine"], r["action"]]
            + [f"{r['median_ms']:.2f}", "-" if share is None else f"{100 * share:.0f} %", ", ".join(extra)]
        )
    header = ["question", "cloud", "C", "threads", "engine", "action", "median ms", "share", "also"]
    return table(header, body, "Other questions")


def _targets(targets: Sequence[Mapping[str, Any]]) -> str:
    body = []
    for t in targets:
        measured = "-" if t["measured"] is None else f"{t['measured']:.2f}"
        sign = ">=" if t["more_is_better"] else "<="
        aim = "-" if t["aim"] is None else f"{t['aim']:g}"
        state = {True: "met", False: "MISSED", None: "not measured"}[t["met"]]
        body.append([t["name"], t["unit"], measured, f"{sign} {t['must']:.4g}", aim, state])
    return table(["target", "unit", "measured", "must", "aim", ""], body, "Targets")
