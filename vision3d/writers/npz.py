# SPDX-License-Identifier: Apache-2.0
"""One ``.npz`` file per pair, with everything that is known: what the reader ``clouds`` reads back unchanged.

Arrays: ``source`` (N, 3), ``target`` (M, 3), ``axes``, ``dt_s``, ``stamp_ns``; where known ``T_target_source`` (4, 4),
``source_ground``, ``target_ground``, ``camera`` (width, height, fx, fy, cx, cy); with truth ``flow`` (N, 3), ``valid``,
``dynamic``, ``ground``, ``classes`` (rows of ``FLOW_CLASSES``, 255 for none) and ``true_T_target_source``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from vision3d.atomic import whole_path
from vision3d.contracts import WriterSpec
from vision3d.types.clouds import CloudPair, FlowTruth
from vision3d.writers._files import file_name, require_rows


def write(name: str, sample: CloudPair, truth: FlowTruth | None, folder: Path) -> list[Path]:
    """``<name>.npz``; raises DataError when the truth does not fit the pair."""
    require_rows(sample, truth)
    arrays: dict[str, Any] = {
        "source": sample.source,
        "target": sample.target,
        "axes": np.array(sample.axes),
        "dt_s": np.float64(sample.dt_s),
        "stamp_ns": np.int64(sample.stamp_ns),
        "T_target_source": sample.T_target_source,
        "source_ground": sample.source_ground,
        "target_ground": sample.target_ground,
    }
    camera = sample.camera or (None if truth is None else truth.camera)
    if camera is not None and not any(camera.distortion):
        values = (camera.width, camera.height, camera.fx, camera.fy, camera.cx, camera.cy)
        arrays["camera"] = np.array(values, dtype=np.float64)
    if truth is not None:
        arrays |= {
            "flow": truth.flow,
            "valid": truth.valid,
            "dynamic": truth.dynamic,
            "ground": truth.ground,
            "classes": truth.classes,
            "true_T_target_source": truth.T_target_source,
        }
    path = folder / f"{file_name(name)}.npz"
    with whole_path(path) as temporary:
        np.savez_compressed(temporary, **{key: value for key, value in arrays.items() if value is not None})
    return [path]


SPEC = WriterSpec(
    name="npz",
    summary="one .npz per pair with clouds, motion and truth; read back by 'clouds' without loss",
    samples="CloudPair",
    write=write,
)
