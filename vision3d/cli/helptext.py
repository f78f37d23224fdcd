# SPDX-License-Identifier: Apache-2.0
"""Help that needs no plug-in: names come from package metadata."""

from __future__ import annotations

from collections.abc import Mapping

from vision3d.run import registry


def overview(verbs: Mapping[str, tuple[str, str, str, str]]) -> str:
    """``vision3d --help``."""
    width = max(len(verb) for verb in verbs)
    lines = ["usage: vision3d VERB ...", "", "verbs:"]
    lines += [f"  {verb.ljust(width)}  {summary}" for verb, (_, _, _, summary) in verbs.items()]
    lines += ["", f"pipelines: {_names(registry.PIPELINES)}", f"readers:   {_names(registry.READERS)}"]
    lines += [f"writers:   {_names(registry.WRITERS)}", ""]
    lines += [
        "examples:",
        "  vision3d fit favor synthetic:room --split train --out maps/room",
        "  vision3d eval favor synthetic:room --split test --model maps/room --baselines",
        "  vision3d run sctn first_scan.bin second_scan.bin",
        "  vision3d config dump favor > favor.yaml",
        "",
        "`vision3d VERB --help` and `vision3d fit PIPELINE --help` say more. Every verb has --json.",
    ]
    return "\n".join(lines) + "\n"


def work_help(verb: str, arguments: str, summary: str) -> str:
    """``vision3d fit --help`` without a pipeline."""
    return "\n".join(
        [
            f"usage: vision3d {verb} {arguments} [options]",
            "",
            f"{summary[0].upper()}{summary[1:]}.",
            "",
            f"pipelines: {_names(registry.PIPELINES)}",
            f"readers:   {_names(registry.READERS)} (guessed from DATA, or --reader NAME)",
            "",
            "DATA is a folder, a file or a URI such as synthetic:room?frames=60; where one sample is made of several",
            "files (two scans, say), name them one after the other.",
            f"`vision3d {verb} PIPELINE --help` lists all options.",
            "",
        ]
    )


def _names(group: str) -> str:
    return ", ".join(registry.names(group)) or "none installed (pip install vision3d, or pip install -e . here)"
