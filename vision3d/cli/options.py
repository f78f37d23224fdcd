# SPDX-License-Identifier: Apache-2.0
"""Options of ``fit``, ``run`` and ``eval``: typed flags from the dataclasses, over YAML, over defaults."""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import io
import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from vision3d.cli.arguments import Parser
from vision3d.contracts import DataConfig, PipelineSpec
from vision3d.errors import ConfigError, UserError
from vision3d.run.config import FullConfig, RunnerConfig, default_config, validate
from vision3d.run.data import JOIN
from vision3d.run.modelfolder import model_config, read_card, require_fitted_by
from vision3d.run.seeds import MAX_SEEDS
from vision3d.run.strict_yaml import load_config

Configs = tyro.conf.UseAppendAction[tuple[Path, ...]]
Switch = tyro.conf.FlagCreatePairsOff[bool]
Source = Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="DATA")]
More = Annotated[tyro.conf.Positional[tuple[str, ...]], tyro.conf.arg(metavar="[DATA ...]")]


@dataclass(frozen=True)
class FitOptions:
    """Build a model from training samples.

    Attributes:
        source: folder, file or URI of the data.
        more: further files that make up one sample with the first, for readers of such.
        out: the model's folder to be.
        config: YAML file of options; may be repeated, later ones win, the command line wins over all.
        extend: model to which the samples are added; the result goes to --out.
        overwrite: replace the model at --out, and forget an unfinished fit of another command.
        json: print one JSON document to standard output.
    """

    source: Source
    out: Path
    more: More = ()
    config: Configs = ()
    extend: Path | None = None
    overwrite: Switch = False
    json: Switch = False


@dataclass(frozen=True)
class RunOptions:
    """Apply a pipeline to samples.

    Attributes:
        source: folder, file or URI of the data.
        more: further files that make up one sample with the first, for readers of such.
        model: folder that fit wrote; the options it was fitted with are the defaults here. Some pipelines have a
            model of their own, which is used without this option, and take files of weights too.
        config: YAML file of options; may be repeated, later ones win, the command line wins over all.
        resume: unfinished run folder of the same command, or 'latest'.
        json: print one JSON document to standard output.
    """

    source: Source
    more: More = ()
    model: Path | None = None
    config: Configs = ()
    resume: str = ""
    json: Switch = False


@dataclass(frozen=True)
class EvalOptions:
    """Apply a pipeline to samples and measure the results against the truth.

    Attributes:
        source: folder, file or URI of the data.
        more: further files that make up one sample with the first, for readers of such.
        model: folder that fit wrote; the options it was fitted with are the defaults here. Some pipelines have a
            model of their own, which is used without this option, and take files of weights too.
        config: YAML file of options; may be repeated, later ones win, the command line wins over all.
        baselines: run the pipeline's simpler relatives on the same samples, and print them beside it.
        seeds: how many seeds to evaluate with, from --seed on; numbers are then means with their spread. 0 is the
            pipeline's own choice.
        resume: unfinished run folder of the same command, or 'latest'.
        json: print one JSON document to standard output.
    """

    source: Source
    more: More = ()
    model: Path | None = None
    config: Configs = ()
    baselines: bool = False
    seeds: int = 0
    resume: str = ""
    json: Switch = False


OPTIONS: dict[str, Any] = {"fit": FitOptions, "run": RunOptions, "eval": EvalOptions}
FIT_RUNNER = ("seed", "threads")  # what of the runner's options matters to a fit


@dataclass(frozen=True)
class Parsed:
    """What a command line says.

    Attributes:
        options: the verb's own.
        model: the model to use, given or of the pipeline's choice; None without one.
        chosen: whether the pipeline chose it.
    """

    options: Any
    config: FullConfig
    model: Path | None = None
    chosen: bool = False

    @property
    def source(self) -> str:
        """All words of the data as one source."""
        return JOIN.join((self.options.source, *self.options.more))


def parse(verb: str, spec: PipelineSpec, args: list[str]) -> Parsed:
    """The verb's own options, and the configuration: defaults <- model <- YAML <- command line.

    Raises:
        UserError: one line for whatever is wrong.
        SystemExit: after printing help.
    """
    first = Parser(f"{verb} {spec.name}", add_help=False)
    first.add_argument("--config", action="append", type=Path, default=[])
    first.add_argument("--model", "--extend", type=Path)
    files: list[Path] = []
    base = default_config(spec)
    if not ("-h" in args or "--help" in args):
        known, _ = first.parse_known_args(args)
        files = known.config
        if known.model is not None:
            weights = verb != "fit" and spec.default_model is not None and known.model.is_file()
            base = base if weights else _model_base(known.model, spec, base)
    options, config = _parse(verb, spec, args, files, base)
    if verb == "eval" and not 0 <= options.seeds <= MAX_SEEDS:
        raise ConfigError(f"--seeds must be from 0 to {MAX_SEEDS}, got {options.seeds}")
    model = getattr(options, "model", None)
    if verb == "fit" or model is not None or spec.default_model is None:
        return Parsed(options, config, model)
    # Which model is the default one hangs on the options, and the model's own options come before those typed.
    chosen = spec.default_model(config.pipeline)
    if chosen is None:
        return Parsed(options, config)
    # It may be another pipeline's model; then its options mean nothing here.
    if chosen.is_dir() and read_card(chosen)["pipeline"] == spec.name:
        options, config = _parse(verb, spec, args, files, model_config(chosen, base))
    return Parsed(options, config, chosen, True)


def _model_base(model: Path, spec: PipelineSpec, base: FullConfig) -> FullConfig:
    """``base`` with the options that the model was fitted with."""
    require_fitted_by(model, spec.name)
    return model_config(model, base)


def _parse(
    verb: str, spec: PipelineSpec, args: list[str], files: list[Path], base: FullConfig
) -> tuple[Any, FullConfig]:
    for path in files:
        base = load_config(path, base)
    runner_view = _runner_view(verb, base.runner)
    options_type = OPTIONS[verb]
    missing = {"source": tyro.MISSING, "out": tyro.MISSING}
    needed = {f.name: missing[f.name] for f in dataclasses.fields(options_type) if f.name in missing}
    if verb == "eval":
        needed["baselines"] = spec.eval_baselines
    combined = dataclasses.make_dataclass(
        "Options",
        [
            ("verb", _flat(options_type)),
            ("data", _flat(DataConfig)),
            ("runner", _flat(type(runner_view))),
            ("pipeline", _flat(spec.config_type)),
        ],
        namespace={"__doc__": f"{spec.name}: {spec.summary}"},
    )
    default = combined(options_type(**needed), base.data, runner_view, base.pipeline)
    parsed = _tyro(combined, args, default, f"vision3d {verb} {spec.name}")
    runner = dataclasses.replace(
        base.runner, **{f.name: getattr(parsed.runner, f.name) for f in dataclasses.fields(parsed.runner)}
    )
    config = FullConfig(spec.name, parsed.pipeline, parsed.data, runner)
    validate(config)
    return parsed.verb, config


def _flat(kind: Any) -> Any:
    """The dataclass' fields as options of the command itself, without a prefix."""
    return Annotated[kind, tyro.conf.arg(name="")]


def _runner_view(verb: str, runner: RunnerConfig) -> Any:
    """The runner's options that have an effect on the verb."""
    if verb != "fit":
        return runner
    fields = [f for f in dataclasses.fields(RunnerConfig) if f.name in FIT_RUNNER]
    names = {"__doc__": RunnerConfig.__doc__, "__module__": RunnerConfig.__module__}
    view = dataclasses.make_dataclass("FitRunner", [(f.name, f.type, f.default) for f in fields], namespace=names)
    return view(**{f.name: getattr(runner, f.name) for f in fields})


def _tyro(kind: Any, args: list[str], default: Any, prog: str) -> Any:
    """tyro.cli, with its boxes turned into one line."""
    errors = io.StringIO()
    columns = os.environ.get("COLUMNS")
    try:
        if not ("-h" in args or "--help" in args):
            os.environ["COLUMNS"] = "400"  # a box is parsed below; it must not break words
        with contextlib.redirect_stderr(errors):
            return tyro.cli(kind, args=args, default=default, prog=prog)
    except SystemExit as leaving:
        if leaving.code in (None, 0):
            raise
        raise UserError(one_line(errors.getvalue(), prog)) from None
    except (ValueError, TypeError) as error:
        raise UserError(" ".join(str(error).split())) from None
    finally:
        if columns is None:
            os.environ.pop("COLUMNS", None)
        else:
            os.environ["COLUMNS"] = columns
        rest = errors.getvalue()
        if rest and sys.exc_info()[0] is None:
            sys.stderr.write(rest)


def one_line(box: str, prog: str) -> str:
    """What tyro says in a box of several lines, as one line with the nearest option."""
    lines = [re.sub(r"\x1b\[[0-9;]*m", "", line).strip(" │") for line in box.splitlines()]
    lines = [line for line in lines if line and not re.match(r"[╭╰]", line)]
    rules = [i for i, line in enumerate(lines) if re.fullmatch(r"[─-]{8,}", line)]
    if "╭" not in box and rules[:1] == [1]:  # on an ASCII terminal the title stands above a first rule
        lines, rules = lines[2:], [i - 2 for i in rules[1:]]
    rule = rules[0] if rules else len(lines)
    message, rest = " ".join(lines[:rule]), lines[rule + 1 :]
    unknown = re.match(r"Unrecognized options?: (.*)", message)
    if unknown:
        words = [w.strip() for w in unknown[1].split(",")]
        flag = next((w for w in words if w.startswith("-")), None)
        if flag is None:
            return f"unexpected argument '{words[0]}' (see {prog} --help)"
        near = next((m[0] for line in rest if (m := re.match(r"--[A-Za-z0-9_.-]+", line))), "")
        return f"unknown option '{flag}'; " + (f"did you mean '{near}'?" if near else f"see {prog} --help")
    missing = re.match(r"Missing from .*?: *(.*)", message)
    if missing:
        names = [n for n in re.findall(r"(DATA|--[a-z0-9.-]+)", missing[1]) if n != "--help"]
        return f"missing {' and '.join(dict.fromkeys(names)) or missing[1]} (see {prog} --help)"
    choice = re.match(r"invalid choice '(.*)' for argument '(.*)'. Expected one of \((.*?),?\)", message)
    if choice:
        value, flag, known = choice.groups()
        offered = re.findall(r"'([^']*)'", known)
        close = difflib.get_close_matches(value, offered, n=1)
        hint = f"; did you mean '{close[0]}'?" if close else ""
        return f"{flag} must be one of {', '.join(offered)}, got '{value}'{hint}"
    number = re.match(r"Error parsing (--\S+): (?:invalid literal|could not convert).*: '(.*)'", message)
    if number:
        kind = "int" if "invalid literal" in message else "a number"
        return f"{number[1]} must be {kind}, got '{number[2]}'"
    value = re.match(r"Missing value for argument '(.*?)'. Expected (\d+) value", message)
    if value:
        return f"{value[1]} needs {value[2]} value{'s' if value[2] != '1' else ''}"
    parsing = re.match(r"Error parsing (--\S+): .*?\[('.*?')\]", message)
    if parsing:
        shape = next((line.partition(" ")[2] for line in rest if line.startswith(parsing[1] + " ")), "")
        got = " ".join(re.findall(r"'(.*?)'", parsing[2]))
        return f"{parsing[1]} must be {shape or 'of another form'}, got '{got}'"
    # tyro speaks of nested options by their place in our combined dataclass, which the user never sees.
    message = re.sub(r"^Error parsing (?:(?:pipeline|data|runner|verb)(?:\.|(?=:)))?(?:: )?", "", message)
    return f"{message.rstrip('.')} (see {prog} --help)"
