# SPDX-License-Identifier: Apache-2.0
"""The verbs that look at what is there: list, inspect, export, compare, report."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from vision3d.cli.arguments import Parser
from vision3d.cli.output import Output, table
from vision3d.errors import UserError
from vision3d.run import registry


def list_plugins(args: list[str], out: Output) -> int:
    """``vision3d list [pipelines|readers|writers]``"""
    groups = {"pipelines": registry.PIPELINES, "readers": registry.READERS, "writers": registry.WRITERS}
    parser = Parser("list", description="Installed pipelines, readers and writers, and why a broken one is broken.")
    parser.add_argument("group", nargs="?", choices=tuple(groups), help="all when left out")
    group = parser.parse_args(args).group
    found = {name: registry.listing(key) for name, key in groups.items() if group in (None, name)}
    document = {name: [dataclasses.asdict(item) for item in items] for name, items in found.items()}
    texts = []
    for name, items in found.items():
        if not items:
            texts.append(f"{name}: none installed\n")
            continue
        rows = [[item.name, item.samples, item.package, _summary(item)] for item in items]
        texts.append(table([name, "samples", "package", "summary"], rows, right=False))
    out.result(document, "\n".join(texts))
    return 0


def _summary(item: registry.Listing) -> str:
    if item.problem:
        return f"broken: {item.problem}"
    if item.missing:
        return f"{item.summary} (missing: {', '.join(item.missing)})"
    return item.summary


def inspect(args: list[str], out: Output) -> int:
    """``vision3d inspect MODEL``"""
    from vision3d.cli.tables import facts_lines

    parser = Parser("inspect", description="What a model holds, and how it was made.")
    parser.add_argument("model", type=Path, metavar="MODEL", help="folder that fit wrote")
    path = parser.parse_args(args).model
    card, config, pipeline, model = _load(path)
    files = {p.relative_to(path).as_posix(): p.stat().st_size for p in sorted(path.rglob("*")) if p.is_file()}
    facts = dict(pipeline.describe(model)) if hasattr(pipeline, "describe") else {}
    total = sum(files.values())
    document = {
        "model": path,
        "pipeline": card["pipeline"],
        "facts": facts,
        "card": card,
        "config": config.plain(),
        "files": files,
        "bytes": total,
    }
    data = card["data"]
    lines = [
        f"{path.as_posix()}: {card['pipeline']}, {total / 1e6:.2f} MB",
        f"  made from: {card['n_samples']} samples of {data['dataset']} ({data['reader']}), {card['n_bad']} left out",
        f"  seed: {card['seed']}",
        f"  made by: vision3d {card['created_by'].get('vision3d', '?')}, torch {card['created_by'].get('torch', '?')}",
        *facts_lines(facts),
        *(f"  file {name}: {size / 1e3:.1f} kB" for name, size in files.items()),
    ]
    out.result(document, "\n".join(lines))
    return 0


def export(args: list[str], out: Output) -> int:
    """``vision3d export MODEL OUT``"""
    parser = Parser("export", description="Write a model in its field's public formats, e.g. as a COLMAP model.")
    parser.add_argument("model", type=Path, metavar="MODEL", help="folder that fit wrote")
    parser.add_argument("out", type=Path, metavar="OUT", help="folder to write into; must be new or empty")
    options = parser.parse_args(args)
    card, _, pipeline, model = _load(options.model)
    if not hasattr(pipeline, "export_model"):
        raise UserError(f"pipeline '{card['pipeline']}' has no public format for its models")
    if options.out.exists() and (not options.out.is_dir() or any(options.out.iterdir())):
        raise UserError(f"{options.out}: exists already and is not empty; choose another folder")
    try:
        options.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{options.out}: cannot be made ({error.strerror or error})") from None
    files = [Path(f) for f in pipeline.export_model(model, options.out)]
    out.result({"model": options.model, "files": files}, "\n".join(f.as_posix() for f in files))
    return 0


def compare(args: list[str], out: Output) -> int:
    """``vision3d compare RUN...``"""
    from vision3d.cli.tables import metrics_table
    from vision3d.run.seeds import read_seeds, with_spread
    from vision3d.run.summary import comparison_warnings, methods_of, read_metrics

    parser = Parser("compare", description="Metrics of several runs side by side; warns when they do not compare.")
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="run folder")
    parser.add_argument("--baselines", action="store_true", help="with the baselines that the runs hold")
    options = parser.parse_args(args)
    runs: dict[str, dict[str, Any]] = {}
    for path in options.runs:
        if path.as_posix() in runs:
            raise UserError(f"{path}: is given twice")
        metrics = read_metrics(path)
        summary = read_seeds(path)
        runs[path.as_posix()] = metrics if summary is None else with_spread(metrics, summary)
    warnings = comparison_warnings(runs)
    columns: dict[str, Any] = {}
    for number, metrics in enumerate(runs.values(), 1):
        methods = methods_of(metrics)
        for method in methods if options.baselines else list(methods)[:1]:
            columns[f"[{number}] {method}"] = methods[method]
    fields = ("pipeline", "dataset", "split", "select", "truth", "seed", "seeds", "n_frames", "n_failed", "n_skipped")
    document = {
        "runs": [
            {
                "run": name,
                **{field: metrics.get(field) for field in fields},
                "metrics": metrics["metrics"],
                **({"baselines": metrics.get("baselines", {})} if options.baselines else {}),
            }
            for name, metrics in runs.items()
        ],
        "warnings": warnings,
    }
    lines = [f"[{number}] {name}" for number, name in enumerate(runs, 1)]
    for warning in warnings:
        out.note(f"warning: {warning}")
    out.result(document, "\n".join([*lines, "", metrics_table(columns)]))
    return 0


def report(args: list[str], out: Output) -> int:
    """``vision3d report RUN``"""
    from vision3d.run.folder import find_run, read_run
    from vision3d.view.report import write_report

    parser = Parser("report", description="Write a run's report.html anew from what its folder holds.")
    parser.add_argument("run", metavar="RUN", help="run folder, or 'latest'")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="where 'latest' is looked for (default: runs)")
    options = parser.parse_args(args)
    path = find_run(options.run, options.runs)
    read_run(path)
    written = write_report(path, None)
    out.result({"report": written}, written.as_posix())
    return 0


def _load(path: Path) -> tuple[dict[str, Any], Any, Any, Any]:
    """Card, config, pipeline and loaded model of a model folder."""
    from vision3d.run.config import default_config
    from vision3d.run.modelfolder import model_config, read_card

    card = read_card(path)
    spec = registry.load(registry.PIPELINES, card["pipeline"])
    registry.require_extras("pipeline", spec.name, spec.extras)
    config = model_config(path, default_config(spec))
    pipeline = spec.make(config.pipeline)
    return card, config, pipeline, pipeline.load(path)
