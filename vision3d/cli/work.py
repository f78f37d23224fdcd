# SPDX-License-Identifier: Apache-2.0
"""The verbs that compute: fit, run, eval."""

from __future__ import annotations

import contextlib
import shlex
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from vision3d.cli.output import Output
from vision3d.errors import UserError
from vision3d.run import registry


def fit(args: list[str], out: Output) -> int:
    """``vision3d fit PIPELINE DATA --out MODEL``"""
    begun = _begin("fit", args, out)
    if begun is None:
        return 0
    spec, options, config = begun
    if not spec.has_fit:
        raise UserError(f"pipeline '{spec.name}' has nothing to fit; use `vision3d run {spec.name} DATA`")

    from vision3d.cli.tables import facts_lines
    from vision3d.run.console import Console
    from vision3d.run.data import open_data
    from vision3d.run.fitting import Fit

    console = Console(sys.stderr)
    with _interruptible():
        data = open_data(options.source, config.data, console, spec.samples)
        pipeline = spec.make(config.pipeline)
        job = Fit(
            pipeline, config, data.reader, options.out, console, options.overwrite, options.extend, data.spec.name
        )
        card = job.execute()
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
    spec, options, config = begun

    from vision3d.cli.tables import metrics_text
    from vision3d.run.console import Console
    from vision3d.run.data import open_data
    from vision3d.run.evaluation import Evaluation, require_model
    from vision3d.run.folder import find_run

    console = Console(sys.stderr)
    model = require_model(options.model, spec.has_fit, spec.name)
    resume = find_run(options.resume, config.runner.runs) if options.resume else None
    with _interruptible():
        data = open_data(options.source, config.data, console, spec.samples)
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
        outcome = job.execute()
    report = _report(outcome.folder, outcome.exhibit, console)
    document = {
        "run": outcome.folder,
        **outcome.metrics,
        "timing_ms": outcome.timing["timing_ms"],
        "report": report,
    }
    text = metrics_text(outcome.metrics, outcome.timing)
    out.result(
        document, f"{text}run: {outcome.folder.as_posix()}" + (f"\nreport: {report.as_posix()}" if report else "")
    )
    return 0


def _begin(verb: str, args: list[str], out: Output) -> tuple[Any, Any, Any] | None:
    """The pipeline's spec, the verb's options and the configuration; None when help was all that was asked for."""
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
        options, config = parse(verb, spec, args)
    except SystemExit:
        return None
    return spec, options, config


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


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """Let SIGTERM end the work as Ctrl-C does: what is complete stays, and can be resumed."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, frame: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
