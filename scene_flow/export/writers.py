# SPDX-License-Identifier: Apache-2.0
"""The results of a run as files beside its records: a file per pair, and submissions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from scene_flow.export.argoverse import Version, write_submission
from scene_flow.export.flow_files import FORMATS, write_flow
from vision3d.errors import ConfigError, UserError
from vision3d.types import FlowResult

SUBMISSIONS: dict[str, Version] = {"av2-v1": 1, "av2-v2": 2}
# Methods that see no labels at all. Others may have, so a submission says so: the wrong word there is cheating.
UNSUPERVISED = ("zero-flow", "nearest", "icp", "cluster-icp", "nsfp")


def write_results(results: Sequence[FlowResult], folder: Path, formats: Sequence[str], method: str = "") -> list[Path]:
    """Write ``flow/<name>.<format>`` for every result that has a flow, and ``<format>.zip`` for submissions.

    Args:
        results: may be read lazily; one is in memory at a time.
        formats: of ``npz``, ``ply``, ``feather``, ``npy``, ``av2-v1``, ``av2-v2``.
        method: stated in the files.

    Raises:
        ConfigError: an unknown format.
        UserError: a submission cannot be made of these results; a pair's name is no relative path.
        MissingExtraError: .feather without pyarrow.
    """
    for kind in formats:
        if kind not in FORMATS and kind not in SUBMISSIONS:
            raise ConfigError(f"'{kind}' is no flow format; known are {', '.join((*FORMATS, *SUBMISSIONS))}")
    files = [kind for kind in formats if kind in FORMATS]
    written = []
    for i in range(len(results) if files else 0):
        result = results[i]
        if result.status == "ok" and result.flow is not None:
            written += [write_flow(_place(folder / "flow", result.name, kind), result, method=method) for kind in files]
    for kind in formats:
        if kind in SUBMISSIONS:
            supervised = method not in UNSUPERVISED
            written.append(write_submission(folder / f"{kind}.zip", results, SUBMISSIONS[kind], supervised))
    return written


def _place(folder: Path, name: str, kind: str) -> Path:
    """The file of a pair; names with a slash lie in folders."""
    parts = PurePosixPath(name).parts
    if not parts or PurePosixPath(name).is_absolute() or ".." in parts:
        raise UserError(f"pair '{name}' cannot name a file")
    return folder.joinpath(*parts[:-1], f"{parts[-1]}.{kind}")
