# SPDX-License-Identifier: Apache-2.0
"""``vision3d VERB ...``: finds the verb and turns errors into exit codes; the work is done below.

Nothing heavy is imported before a verb is known. Exit codes: 0 done, 1 a bug, or a check that found
problems, 2 a mistake of the user's, 130 interrupted.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence

from vision3d.cli.output import Output
from vision3d.errors import UserError

# verb -> (module, function, arguments, one line)
VERBS: dict[str, tuple[str, str, str, str]] = {
    "fit": ("work", "fit", "PIPELINE DATA... --out MODEL", "build a model (a map, a network) from training samples"),
    "run": ("work", "run", "PIPELINE DATA... [--model MODEL]", "apply a pipeline to samples and store the results"),
    "eval": ("work", "evaluate", "PIPELINE DATA... [--model MODEL]", "run, and measure the results against the truth"),
    "compare": ("show", "compare", "RUN...", "metrics of several runs side by side"),
    "report": ("show", "report", "RUN", "write a run's report.html anew"),
    "inspect": ("show", "inspect", "MODEL", "what a model holds"),
    "export": ("show", "export", "MODEL OUT", "write a model in its field's public formats"),
    "convert": ("convert", "convert", "DATA... OUT --to FORMAT", "write samples and their truth in another format"),
    "split": ("split", "split", "DATA... OUT", "cut large images and their labels into tiles"),
    "points": ("points", "points", "DATA", "click one point per object in a browser page on this machine"),
    "list": ("show", "list_plugins", "[pipelines|readers|writers]", "installed pipelines, readers and writers"),
    "config": ("configs", "config", "dump PIPELINE | check FILE", "write or check a file of options"),
    "datasets": ("datasets", "datasets", "list | show NAME | check NAME PATH", "data set cards, and checks of a copy"),
    "bench": ("bench", "bench", "sparse", "how fast the sparse engine is on this machine, beside its peers"),
    "doctor": ("doctor", "doctor", "", "versions, extras, weights; with --full a tiny real run of each pipeline"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    # Threads that spin while they wait take the processor from whoever works: on a busy laptop, 30 times slower.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    args = list(sys.argv[1:] if argv is None else argv)
    out = Output(json_mode="--json" in args)
    try:
        return _dispatch(args, out)
    except UserError as error:
        return out.fail(str(error))
    except KeyboardInterrupt:
        out.fail("interrupted")
        return 130
    except BrokenPipeError:
        # The reader of our output has gone (`vision3d list | head`); nothing is left to say to it.
        sys.stderr.close()
        return 141


def _dispatch(args: list[str], out: Output) -> int:
    words = [a for a in args if a != "--json"]
    if not words or words[0] in ("-h", "--help", "help"):
        from vision3d.cli.helptext import overview

        out.text(overview(VERBS))
        return 0
    if words[0] in ("--version", "-V"):
        from vision3d import __version__

        out.result({"version": __version__}, __version__)
        return 0
    verb = words[0]
    if verb not in VERBS:
        import difflib

        near = difflib.get_close_matches(verb, VERBS, n=1)
        hint = f"did you mean '{near[0]}'?" if near else f"there are: {', '.join(VERBS)}"
        raise UserError(f"unknown command '{verb}'; {hint}")
    args.remove(verb)
    module, function, _, _ = VERBS[verb]
    handler = getattr(importlib.import_module(f"vision3d.cli.{module}"), function)
    code: int = handler(args, out)
    return code
