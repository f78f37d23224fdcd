# SPDX-License-Identifier: Apache-2.0
"""The verbs that compute: fit, run, eval."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from vision3d import distributed
from vision3d.cli.interrupt import interruptible
from vision3d.cli.output import Output
from vision3d.errors import UserError
from vision3d.run import registry

if TYPE_CHECKING:
    from vision3d.cli.options import Parsed


def fit(args: list[str], out: Output) -> int:
    """``vision3d fit PIPELINE DATA --out MODEL``"""
    begun = _begin("fit", args, out)
    if begun is None:
        return 0
    spec, parsed = begun
    options, config = parsed.options, parsed.config
    if not spec.has_fit:
        raise UserError(f"pipeline '{spec.name}' has nothing to fit; use `vision3d run {spec.name} DATA`")

    from vision3d.cli.tables import facts_lines
    from vision3d.run.console import Console
    from vision3d.run.data import open_data
    from vision3d.run.fitting import Fit

    main = distributed.is_main()
    console = Console(sys.stderr if main else None)
    try:
        with interruptible():
            data = open_data(parsed.source, config.data, console, spec.samples)
            pipeline = spec.make(config.pipeline)
            job = Fit(
                pipeline, config, data.reader, options.out, console, options.overwrite, options.extend, data.spec.name
            )
            if not main:
                job.take_part()
                return 0
            card = job.execute()
    except UserError as error:
        if main:
            raise
        # The first process speaks for all, to people and to programs; this line is for whoever looks for the odd one.
        out.note(f"error: process {distributed.rank()}: {error}")
        return 2
    facts = _facts(pipeline, options.out)
    document = {"model": options.out, "card": card, "facts": facts}
    left_out = f", {card['n_bad']} left out" if card["n_bad"] else ""
    lines = [f"{options.out}: {spec.name} from {card['n_samples']} samples{left_out}, seed {card['seed']}"]
    lines += facts_lines(facts)
    out.result(document, "\n".join(lines))
    return 0


def run(args: list[str], out: Output) -> int:
    """``vision3d run PIPELINE DATA``"""
    return _execute("run", args, out)


def evaluate(args: list[str], out: Output) -> int:
    """``vision3d eval PIPELINE DATA``"""
    return _execute("eval", args, out)


def _execute(verb: Literal["run", "eval"], args: list[str], out: Output) -> int:
    begun = _begin(verb, args, out)
    if begun is None:
        return 0
    spec, parsed = begun
    options, config = parsed.options, parsed.config
    if not distributed.is_main():
        out.note(f"process {distributed.rank()} has nothing to do: only fit is shared by several")
        return 0

    from vision3d.cli.tables import metrics_text
    from vision3d.run.console import Console
    from vision3d.run.data import open_data
    from vision3d.run.evaluation import Evaluation, require_model
    from vision3d.run.folder import find_run
    from vision3d.run.seeds import Series, with_spread

    console = Console(sys.stderr)
    model = require_model(parsed.model, spec.has_fit and spec.default_model is None, spec.name)
    if parsed.chosen:
        console.note(f"model: {parsed.model} (of {spec.name}'s own choice; --model uses another)")
    resume = find_run(options.resume, config.runner.runs) if options.resume else None
    with interruptible():
        data = open_data(parsed.source, config.data, console, spec.samples)
        job = Evaluation(
            verb,
            spec.make(config.pipeline),
            config,
            data.reader,
            model,
            console,
            baselines=getattr(options, "baselines", False),
            resume=resume,
            command=shlex.join(["vision3d", verb, *args]),
            reader_name=data.spec.name,
        )
        # Unless asked for, no second seed where it would give the same numbers.
        seeds = (options.seeds or (1 if job.deterministic else spec.eval_seeds)) if verb == "eval" else 1
        if seeds > 1:
            outcome, summary = Series(job, seeds).execute()
            metrics = with_spread(outcome.metrics, summary)
            runs = [outcome.folder / run for run in summary["runs"]]
        else:
            outcome = job.execute()
            metrics, runs = outcome.metrics, [outcome.folder]
    report = _report(outcome.folder, outcome.exhibit, console)
    document = {
        "run": outcome.folder,
        "runs": runs,
        **metrics,
        "timing_ms": outcome.timing["timing_ms"],
        "timing": {key: value for key, value in outcome.timing.items() if key != "schema"},
        "report": report,
    }
    text = metrics_text(metrics, outcome.timing)
    out.result(
        document, f"{text}run: {outcome.folder.as_posix()}" + (f"\nreport: {report.as_posix()}" if report else "")
    )
    return 0


def _begin(verb: str, args: list[str], out: Output) -> tuple[Any, Parsed] | None:
    """The pipeline's spec and what the command line says; None when help was all that was asked for."""
    words = [a for a in args if a != "--json"]
    if words and words[0] in ("-h", "--help"):
        from vision3d.cli import VERBS
        from vision3d.cli.helptext import work_help

        out.text(work_help(verb, VERBS[verb][2], VERBS[verb][3]))
        return None
    if not words or words[0].startswith("-"):
        names = ", ".join(registry.names(registry.PIPELINES)) or "none installed"
        raise UserError(f"{verb} needs a pipeline first: {names}")
    spec = registry.load(registry.PIPELINES, words[0])
    registry.require_extras("pipeline", spec.name, spec.extras)
    args = list(args)
    args.remove(words[0])

    from vision3d.cli.options import parse

    try:
        return spec, parse(verb, spec, args)
    except SystemExit:
        return None


def _facts(pipeline: Any, model: Path) -> dict[str, Any]:
    return dict(pipeline.describe(pipeline.load(model))) if hasattr(pipeline, "describe") else {}


def _report(folder: Path, exhibit: Any, console: Any) -> Path | None:
    """report.html; the run is complete without it, so what goes wrong here is a warning."""
    from vision3d.view.report import write_report

    try:
        return write_report(folder, exhibit)
    except Exception as error:
        console.warn(f"no report: {type(error).__name__}: {error}")
        return None
