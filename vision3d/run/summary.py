# SPDX-License-Identifier: Apache-2.0
"""``metrics.json`` and ``timing.json`` from what a run stored: the same bytes however often it was interrupted."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vision3d.errors import DataError
from vision3d.run.files import read_json
from vision3d.run.store import ResultStore, failed
from vision3d.types import Metric

SCHEMA = 1


def metric_json(metric: Metric) -> dict[str, Any]:
    """A metric as in ``metrics.json``: an infinite value is null and says so.

    Raises:
        ValueError: the value is not a number.
    """
    value = float(metric.value)
    if math.isnan(value):
        raise ValueError(f"metric {metric.name} is not a number")
    out = {
        "name": metric.name,
        "value": value if math.isfinite(value) else None,
        "unit": metric.unit,
        "better": metric.better,
        "n": int(metric.n),
    }
    return out if math.isfinite(value) else {**out, "infinite": True}


def method_summary(results: Sequence[Any], metrics: Sequence[Metric]) -> dict[str, Any]:
    """Counts, failures by name, and metrics of one method. Of the results only the heads are looked at."""
    failures = [
        {"name": r.name, "status": getattr(r, "status", ""), "reason": getattr(r, "reason", "")}
        for r in results
        if failed(r)
    ]
    return {
        "n_frames": len(results),
        "n_failed": len(failures),
        "metrics": [metric_json(metric) for metric in metrics],
        "failures": failures,
    }


def run_summary(
    verb: str,
    pipeline: str,
    config: Mapping[str, Any],
    identity: Mapping[str, Any],
    main: Mapping[str, Any],
    baselines: Mapping[str, Mapping[str, Any]],
    skipped: Sequence[Mapping[str, str]],
) -> dict[str, Any]:
    """The content of ``metrics.json``; holds no time and no path of a result."""
    data = {key.removeprefix("data:"): value for key, value in identity.items() if key.startswith("data:")}
    return {
        "schema": SCHEMA,
        "status": "done",
        "verb": verb,
        "pipeline": pipeline,
        "dataset": data.get("dataset", ""),
        "split": config["data"]["split"],
        "select": config["data"]["select"],
        "truth": Path(config["data"]["truth"]).name if config["data"]["truth"] else "of the data set",
        "data": data,
        "model": identity.get("model", ""),
        "seed": config["runner"]["seed"],
        "n_frames": main["n_frames"],
        "n_failed": main["n_failed"],
        "n_skipped": len(skipped),
        "metrics": main["metrics"],
        **({"baselines": {name: dict(summary) for name, summary in baselines.items()}} if baselines else {}),
        "failures": main["failures"],
        "skipped": [dict(item) for item in skipped],
    }


def timing_summary(stores: Mapping[str, ResultStore]) -> dict[str, Any]:
    """The content of ``timing.json``: per stage the median and the 95th percentile in milliseconds, and the memory
    that a step needed at most, in megabytes, where that could be measured; the same for each baseline."""
    methods = {name: _costs(store.timing.records) for name, store in stores.items()}
    main = methods.pop("")
    return {"schema": SCHEMA, **main, **({"baselines": methods} if methods else {})}


def _costs(records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    last = {record["name"]: record for record in records}
    stages: dict[str, list[float]] = {}
    for record in last.values():
        for stage, value in record.items():
            if stage != "name" and value is not None:
                stages.setdefault(stage, []).append(value)
    peaks_mb = stages.pop("peak_mb", [])
    timing_ms = {
        stage: {
            "median": round(float(np.median(ms)), 3),
            "p95": round(float(np.percentile(ms, 95)), 3),
            "n": len(ms),
        }
        for stage, ms in stages.items()
    }
    if not peaks_mb:
        return {"timing_ms": timing_ms}
    peak = {"median": round(float(np.median(peaks_mb)), 3), "max": round(max(peaks_mb), 3), "n": len(peaks_mb)}
    return {"timing_ms": timing_ms, "peak_mb": peak}


def read_metrics(run: Path) -> dict[str, Any]:
    """``metrics.json`` of a finished run, given the run folder or the file.

    Raises:
        DataError: there is none.
    """
    path = run if run.is_file() else run / "metrics.json"
    if not path.exists():
        raise DataError(run, "holds no metrics.json (is it a run folder, and has the run finished?)")
    content = read_json(path)
    if not isinstance(content, dict) or not isinstance(content.get("metrics"), list):
        raise DataError(path, "is not the metrics.json of a run")
    if content.get("schema") != SCHEMA:
        raise DataError(path, f"has schema {content.get('schema')}; this version reads {SCHEMA}")
    return content


def methods_of(metrics: Mapping[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Method -> metrics of one run: the pipeline first, then its baselines."""
    out = {metrics["pipeline"]: metrics["metrics"]}
    for name, summary in metrics.get("baselines", {}).items():
        out[name] = summary["metrics"]
    return out


def comparison_warnings(runs: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Why the numbers of several runs may not be compared, one line each."""
    first_name, *others = runs
    first = runs[first_name]
    warnings = []
    for other in others:
        for label, get in (
            ("different samples", lambda m: m["data"].get("samples")),
            ("different data sets", lambda m: m["dataset"]),
            ("different truth", lambda m: (m["truth"], m["data"].get("truth"))),
            ("different seeds", lambda m: m["seed"]),
        ):
            if get(first) != get(runs[other]):
                warnings.append(f"{label}: {first_name} ({_text(get(first))}) and {other} ({_text(get(runs[other]))})")
    return warnings


def _text(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)
