# SPDX-License-Identifier: Apache-2.0
"""Numbers as tables for people: methods as rows, metrics as columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from vision3d.cli.output import table
from vision3d.run.summary import methods_of


def facts_lines(facts: Mapping[str, Any]) -> list[str]:
    """One line per fact about a model; nested ones become ``name value, name value``."""

    def text(value: Any) -> str:
        if isinstance(value, Mapping):
            return ", ".join(f"{key} {text(item)}" for key, item in value.items()) or "none"
        if isinstance(value, (list, tuple)):
            return " ".join(text(item) for item in value) or "none"
        return str(value)

    return [f"  {key.replace('_', ' ')}: {text(value)}" for key, value in facts.items()]


def metrics_text(metrics: Mapping[str, Any], timing: Mapping[str, Any]) -> str:
    """What `run` and `eval` print when they are done."""
    title = (
        f"{metrics['pipeline']} on {metrics['dataset']} (select {metrics['select']}, truth {metrics['truth']}), "
        f"n = {metrics['n_frames']}, failed = {metrics['n_failed']}, skipped = {metrics['n_skipped']}, "
        f"{_seeds_text(metrics)}"
    )
    parts = []
    methods = methods_of(metrics)
    if metrics["metrics"]:
        parts.append(metrics_table(methods, title))
    else:
        parts.append(title + "\n")
    stages = timing["timing_ms"]
    if stages:
        rows = [[stage, f"{v['median']:.2f}", f"{v['p95']:.2f}"] for stage, v in stages.items()]
        parts.append(table(["time per sample", "median ms", "p95 ms"], rows))
    if timing.get("baselines"):
        parts.append(_costs_table({metrics["pipeline"]: timing, **timing["baselines"]}))
    return "\n".join(parts) + "\n"


def _seeds_text(metrics: Mapping[str, Any]) -> str:
    if "seeds" not in metrics:
        return f"seed = {metrics['seed']}"
    return f"seeds = {', '.join(map(str, metrics['seeds']))} (mean ±standard deviation; failed: of the worst)"


def _costs_table(methods: Mapping[str, Mapping[str, Any]]) -> str:
    """One row per method: how long a sample takes it, and how much memory at most."""
    rows = []
    for method, costs in methods.items():
        total, peak = costs["timing_ms"].get("total"), costs.get("peak_mb")
        cells = ["-", "-"] if total is None else [f"{total['median']:.2f}", f"{total['p95']:.2f}"]
        rows.append([method, *cells, "-" if peak is None else f"{peak['max']:.1f}"])
    return table(["cost per sample", "median ms", "p95 ms", "peak MB"], rows)


def metrics_table(methods: Mapping[str, Sequence[Mapping[str, Any]]], title: str = "") -> str:
    """One row per metric, one column per method; '*' marks the best of each row."""
    names = list(dict.fromkeys(m["name"] for metrics in methods.values() for m in metrics))
    by_method = {method: {m["name"]: m for m in metrics} for method, metrics in methods.items()}
    rows = []
    for name in names:
        found = [by_method[method].get(name) for method in methods]
        known = next(m for m in found if m is not None)
        best = _best(found, known["better"]) if len(methods) > 1 else None
        cells = [
            _cell(m) + ("*" if m is not None and m["value"] is not None and m["value"] == best else "") for m in found
        ]
        ns = sorted({m["n"] for m in found if m is not None})
        unit = f" [{known['unit']}]" if known["unit"] else ""
        rows.append([name + unit, *cells, "/".join(map(str, ns))])
    return table(["metric", *methods, "n"], rows, title)


def _cell(metric: Mapping[str, Any] | None) -> str:
    if metric is None:
        return ""
    if metric["value"] is None:
        return "inf"
    value, spread = metric["value"], metric.get("spread")
    if metric["unit"] in ("", "count") and float(value).is_integer() and value > 1 and not spread:
        return str(int(value))
    decimals = 3 if metric["unit"] == "m" else 2  # a centimetre matters
    return f"{value:.{decimals}f}" + ("" if spread is None else f" ±{spread:.{decimals}f}")


def _best(found: Sequence[Mapping[str, Any] | None], better: str) -> float | None:
    values = [m["value"] for m in found if m is not None and m["value"] is not None]
    if len(values) < 2 or len(set(values)) < 2:
        return None
    best: float = max(values) if better == "higher" else min(values)
    return best
