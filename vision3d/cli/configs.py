# SPDX-License-Identifier: Apache-2.0
"""``vision3d config dump|check``."""

from __future__ import annotations

from pathlib import Path

from vision3d.cli.arguments import Parser
from vision3d.cli.output import Output
from vision3d.errors import UserError
from vision3d.run import registry


def config(args: list[str], out: Output) -> int:
    """``vision3d config dump PIPELINE`` or ``vision3d config check FILE``"""
    from vision3d.run.config import default_config, dump_yaml
    from vision3d.run.strict_yaml import load_config, pipeline_name

    parser = Parser("config", description="Write all options of a pipeline as YAML, or check such a file.")
    parser.add_argument("action", choices=("dump", "check"))
    parser.add_argument("what", nargs="+", metavar="PIPELINE|FILE", help="a pipeline to dump, or files to check")
    options = parser.parse_args(args)
    if options.action == "dump":
        if len(options.what) > 1:
            raise UserError("config dump takes one pipeline")
        full = default_config(registry.load(registry.PIPELINES, options.what[0]))
        out.result(full.plain(), dump_yaml(full, comments=True))
        return 0
    checked = []
    for file in map(Path, options.what):
        name = pipeline_name(file)
        load_config(file, default_config(registry.load(registry.PIPELINES, name)))
        checked.append({"file": file, "pipeline": name})
    out.result({"checked": checked}, "\n".join(f"{c['file']}: a valid config of {c['pipeline']}" for c in checked))
    return 0
