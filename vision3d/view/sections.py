# SPDX-License-Identifier: Apache-2.0
"""The parts of a report, each from the run folder's files to HTML; an empty string where there is nothing to say."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from vision3d.types import Table
from vision3d.view.markup import (
    UNITS,
    Cell,
    fold,
    label,
    metric_parts,
    number,
    quiet,
    section,
    table,
    with_unit,
)
from vision3d.view.run_folder import RunFolder

# The numbers people ask for first; a task that has none of these gets its first four.
_HEADLINES = ("median_translation_cm", "median_rotation_deg", "recall_5cm_5deg", "recall_2cm_2deg", "n_localized")
_MAX_FAILURES, _MAX_ROWS = 200, 5000
# Facts of a result that a row of the frame table shows in its own way, or that no row can hold.
_NOT_COLUMNS = {"name", "status", "reason", "T_world_cam", "covariance", "extra", "n_inliers", "n_matches"}
_NOT_COLUMNS |= {"stamp_ns", "camera"}


def heading(run: RunFolder) -> str:
    """Title, what was run on what, and how it ended."""
    m = run.metrics
    pipeline, dataset = str(m.get("pipeline") or ""), str(m.get("dataset") or "")
    title = " on ".join(t for t in (pipeline, dataset) if t) or run.path.resolve().name
    n = m.get("n_frames", len(run.results))
    facts = [f"{n} samples"] if n else []
    if n:
        facts.append(f"{m.get('n_failed', len(run.failures()))} failed")
    if m.get("n_skipped"):
        facts.append(f"{m['n_skipped']} not scored")
    if m.get("truth"):
        facts.append(f"truth: {m['truth']}")
    if run.seed is not None:
        facts.append(f"seed {run.seed}")
    parts = [f"<h1>{escape(title)}</h1>", quiet(" · ".join(facts))]
    if run.failed or m.get("status") == "failed":
        parts.append('<p class="banner">The run did not finish. What follows covers the part that did.</p>')
    parts += [f'<p class="banner">{escape(problem)}</p>' for problem in run.problems]
    return "\n".join(parts)


def headline(run: RunFolder) -> str:
    """The few numbers that answer the question, large, each with its n."""
    metrics = {str(m.get("name")): m for m in _metrics(run.metrics)}
    chosen = [metrics[name] for name in _HEADLINES if name in metrics] or list(metrics.values())[:4]
    tiles = []
    for metric in chosen:
        value, unit = metric_parts(metric)
        count = "" if unit.startswith("of ") else f"n = {metric.get('n', '?')}"
        tiles.append(
            f'<div class="tile"><b>{escape(value)}<small>{escape(unit)}</small></b>'
            f"<span>{escape(label(str(metric['name'])))}</span> <i>{escape(count)}</i></div>"
        )
    if tiles:
        return f'<div class="tiles">{"".join(tiles)}</div>'
    if not run.results:
        return ""
    ok = sum(r.get("status", "ok") == "ok" for r in run.results)
    return (
        f'<div class="tiles"><div class="tile"><b>{ok}<small>of {len(run.results)}</small></b>'
        "<span>with a result</span></div></div>" + quiet("No true values were given, so no errors are stated.")
    )


def metrics_table(run: RunFolder) -> str:
    """Every metric beside those of the baselines and, where there are several, of the sequences."""
    own = _metrics(run.metrics)
    if not own:
        return ""
    others = {str(k): _metrics(v) for k, v in _mapping(run.metrics.get("baselines")).items()}
    body = _compare({str(run.metrics.get("pipeline") or "this run"): own, **others})
    n = sorted({str(m.get("n", "?")) for m in own})
    body += quiet(
        f"n = {', '.join(n)}. Failed samples count as infinite errors in every number; medians are independent. "
        + ("The best value of each row is bold." if others else "")
    )
    sequences = {str(k): _metrics(v) for k, v in _mapping(run.metrics.get("per_sequence")).items()}
    if len(sequences) > 1:
        body += "<h2>By sequence</h2>" + _compare(sequences)
    return section("metrics", "Metrics", body)


def tables(found: Sequence[Table]) -> str:
    """What the pipeline tells of the whole run in tables of its own: by class, say."""
    parts = []
    for item in found:
        rows = [
            [
                Cell(number(c), float(c)) if isinstance(c, float) else Cell(str(c), None if isinstance(c, str) else c)
                for c in row
            ]
            for row in item.rows
        ]
        parts += [f"<h2>{escape(item.title)}</h2>", table(item.header, rows, sortable=True)]
        parts += [quiet(item.note)] if item.note else []
    return section("tables", "Tables", "\n".join(parts)) if parts else ""


def failures(run: RunFolder) -> str:
    """Every sample without a result, and every one that was not scored, by name, with the reason."""
    if not run.results and not run.metrics:
        return ""
    failed = run.failures()
    skipped = [s for s in run.metrics.get("skipped") or [] if isinstance(s, Mapping)]
    body = _reasons(failed, ("name", "status", "reason")) if failed else quiet("None: every sample has a result.")
    if skipped:
        body += "<h2>Not scored</h2>" + quiet("Left out by the reader, and in no number above.")
        body += _reasons(skipped, ("name", "reason"))
    return section("failures", f"Failures ({len(failed)})", body)


def timing(run: RunFolder) -> str:
    """Milliseconds per stage, and in total for every method."""
    stages = _stages(run.timing) or _stages(run.metrics)
    if not stages:
        return ""
    body = _stage_table("stage", stages)
    methods = {str(name): _stages(document) for name, document in _mapping(run.timing.get("baselines")).items()}
    totals = {name: found["total"] for name, found in methods.items() if "total" in found}
    if totals and "total" in stages:
        own = str(run.metrics.get("pipeline") or "this run")
        body += "<h2>Total by method</h2>" + _stage_table("method", {own: stages["total"], **totals})
    return section("timing", "Time per sample", body)


def frames_table(run: RunFolder, per_sample: Mapping[str, Mapping[str, float]]) -> str:
    """One row per sample, to be sorted by any column; ``per_sample`` as in :class:`vision3d.types.Exhibit`."""
    if not run.results:
        return ""
    names = [str(r.get("name", "")) for r in run.results]
    rows = [_flat(r, per_sample.get(name, {})) for name, r in zip(names, run.results, strict=True)]
    for name, row in zip(names, rows, strict=True):
        row |= {"time_ms": run.spent_ms[name]} if name in run.spent_ms else {}
    columns = list(dict.fromkeys(key for row in rows for key in row))
    body_rows: list[list[Cell | str]] = []
    for i, (result, row) in enumerate(zip(run.results, rows, strict=True)):
        status = str(result.get("status", ""))
        title = Cell(str(result.get("name", i)), css="failed" if status not in ("ok", "") else "")
        position = Cell(str(i), float(i))
        body_rows.append([title, position, Cell(status), *(_value_cell(row.get(c), c) for c in columns)])
    body = '<div class="frames"><div class="box">'
    body += table(["name", "#", "status", *(_head(c) for c in columns)], body_rows[:_MAX_ROWS], sortable=True)
    body += "</div></div>"
    if len(body_rows) > _MAX_ROWS:
        body += quiet(f"The first {_MAX_ROWS} of {len(body_rows)} samples; all are in results.jsonl.")
    return section("samples", "Every sample", quiet("Click a column's head to sort by it.") + body)


def record(run: RunFolder) -> str:
    """How to make this run again: command, configuration, machine."""
    environment = json.dumps(run.environment, indent=2, ensure_ascii=False) if run.environment else ""
    parts = [("Command", run.command), ("Configuration", run.config), ("Environment", environment)]
    body = "".join(fold(title, text.strip()) for title, text in parts if text.strip())
    return section("record", "How this was made", body) if body else ""


def _reasons(items: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> str:
    rows = [[str(item.get(c, "")) for c in columns] for item in items]
    more = quiet(f"{len(rows) - _MAX_FAILURES} more in metrics.json.") if len(rows) > _MAX_FAILURES else ""
    return table(columns, rows[:_MAX_FAILURES]) + more


def _compare(columns: Mapping[str, list[Mapping[str, Any]]]) -> str:
    names = list(dict.fromkeys(str(m["name"]) for metrics in columns.values() for m in metrics))
    rows: list[list[Cell | str]] = []
    for name in names:
        found = [next((m for m in metrics if m["name"] == name), None) for metrics in columns.values()]
        best = _best(found) if len(columns) > 1 else None
        row: list[Cell | str] = [Cell(label(name))]
        for metric in found:
            if metric is None:
                row.append(Cell("–", math.inf))
                continue
            text, value = with_unit(*metric_parts(metric)), metric.get("value")
            bold = best is not None and value is not None and text == best
            row.append(Cell(text, math.inf if value is None else float(value), "best" if bold else ""))
        rows.append(row)
    return table(["metric", *columns], rows)


def _best(metrics: Sequence[Mapping[str, Any] | None]) -> str | None:
    """The best value as printed, so that a tie to the printed digit is shown as a tie; None where all are equal."""
    known = [m for m in metrics if m is not None and m.get("value") is not None]
    if len(known) < 2:
        return None
    texts = {with_unit(*metric_parts(m)) for m in known}
    if len(texts) == 1 and len(known) == len(metrics):
        return None
    pick = max if known[0].get("better") == "higher" else min
    return with_unit(*metric_parts(pick(known, key=lambda m: float(m["value"]))))


def _flat(result: Mapping[str, Any], scores: Mapping[str, Any]) -> dict[str, Any]:
    """The plain facts of a result: scores, counts, camera centre, other scalars."""
    row: dict[str, Any] = dict(scores)
    row |= {k: result[k] for k in ("n_inliers", "n_matches") if _is_number(result.get(k))}
    pose = result.get("T_world_cam")
    with contextlib.suppress(TypeError, IndexError, ValueError):
        row |= {f"{axis}_m": float(pose[i][3]) for i, axis in enumerate("xyz")} if pose else {}
    for source in (result, _mapping(result.get("extra"))):
        row |= {k: v for k, v in source.items() if k not in _NOT_COLUMNS and isinstance(v, (int, float, str))}
    return {str(k): v for k, v in row.items()}


def _head(column: str) -> str:
    unit = column.rpartition("_")[2]
    name = label(column)
    return f"{name}, {UNITS.get(unit, unit)}" if unit in ("cm", "m", "mm", "deg", "px", "ms", "s") else name


def _value_cell(value: Any, column: str) -> Cell:
    if isinstance(value, (bool, str)):
        return Cell(str(value))
    if value is None:
        return Cell("", math.inf)
    if not math.isfinite(value):
        return Cell(number(value), float(value))
    # Centimetre steps hide in metres with two decimals, and a column of numbers must line up.
    decimals = 3 if column.endswith("_m") else 2
    return Cell(str(value) if isinstance(value, int) else f"{value:.{decimals}f}", float(value))


def _stages(document: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Stage -> statistic -> value of timing.json (or one method of it): below ``timing_ms``, else at its top."""
    found = _mapping(document.get("timing_ms", document))
    return {
        str(name): stats
        for name, stats in found.items()
        if isinstance(stats, Mapping) and stats and all(_is_number(v) for v in stats.values())
    }


def _stage_table(what: str, stages: Mapping[str, Mapping[str, Any]]) -> str:
    columns = list(dict.fromkeys(c for stats in stages.values() for c in stats))
    head = [what, *(c if c in ("n", "count") else f"{c.removesuffix('_ms').replace('_', ' ')}, ms" for c in columns)]
    return table(head, [[Cell(name), *(_timing_cell(s.get(c), c) for c in columns)] for name, s in stages.items()])


def _timing_cell(value: Any, column: str) -> Cell:
    if not _is_number(value):
        return Cell("", math.inf)
    return Cell(f"{value:.0f}" if column in ("n", "count") else number(value), float(value))


def _metrics(document: Any) -> list[Mapping[str, Any]]:
    items = document.get("metrics") if isinstance(document, Mapping) else document
    return [m for m in items if isinstance(m, Mapping) and "name" in m] if isinstance(items, list) else []


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
