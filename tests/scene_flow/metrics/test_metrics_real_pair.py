# SPDX-License-Identifier: Apache-2.0
"""The Argoverse 2 protocols on a real pair: what a flow that only knows the sensor's motion scores."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scored_flow import counts, values

from scene_flow.export.argoverse import write_submission
from scene_flow.export.argoverse_check import check_submission
from scene_flow.export.flow_files import read_flow, write_flow
from scene_flow.metrics.charts import flow_exhibit
from scene_flow.metrics.pair import score_pair
from scene_flow.metrics.ranges import RangeErrors
from scene_flow.metrics.table import score_flow
from vision3d.contracts import DataConfig
from vision3d.types import CloudPair, FlowResult, FlowTruth

pytest.importorskip("pyarrow")
Case = tuple[CloudPair, FlowTruth, FlowResult]


@pytest.fixture(scope="module")
def case(shared_data: Path) -> Case:
    """The pair, its truth with all points but the invalid ones scored, and the flow of the sensor's motion alone."""
    from vision3d.readers.av2 import SPEC

    folder = shared_data / "av2_sensor_val"
    if not folder.is_dir():
        pytest.skip(f"no Argoverse 2 pair at {folder}")
    reader = SPEC.open(f"{folder}?range=0&ground=1", DataConfig(reader="av2"))
    pair, truth = reader[0], reader.truth(0)
    T, p = pair.T_target_source, pair.source.astype(np.float64)
    flow = (p @ T[:3, :3].T + T[:3, 3] - p).astype(np.float32)
    facts = {"dt_s": pair.dt_s}
    return pair, truth, FlowResult(reader.key(0), "ok", points=pair.source, flow=flow, T_target_source=T, extra=facts)


def test_the_sensors_motion_alone_explains_no_motion(case: Case) -> None:
    _, truth, still = case
    found = values(score_flow([still], [truth]))
    for name in ("bucket_car_dynamic", "bucket_pedestrian_dynamic", "bucket_mean_dynamic"):
        assert found[name] == pytest.approx(1.0, abs=1e-5)
    assert found["three_way_bs"] < 2e-3 and found["three_way_fs"] < 1e-2  # poses of labels are rounded to 16 bits
    assert found["three_way_fd"] == pytest.approx(0.674, abs=2e-3)
    assert found["three_way_mean"] == pytest.approx(found["three_way_mean_frames"])  # one pair: no difference
    # Doing nothing looks good on the numbers that are not normalised: why these are no headline.
    assert found["acc3ds"] > 0.97 and found["epe3d"] < 0.02
    assert found["epe3d_dynamic"] > 100 * found["epe3d_static"]


def test_labels_of_motion_agree_with_the_sensors_motion(case: Case) -> None:
    _, truth, still = case
    pair = score_pair(still, truth)
    assert (pair.dynamic == (pair.frame_m > 0.05)).mean() > 0.9999


def test_the_truth_is_perfect(case: Case) -> None:
    pair, truth, still = case
    perfect = FlowResult(still.name, "ok", points=pair.source, flow=truth.flow, dynamic=truth.dynamic)
    found = values(score_flow([perfect], [truth]))
    wrong = {n: v for n, v in found.items() if n not in ("acc3ds", "acc3dr", "dynamic_iou")}
    assert all(v == pytest.approx(0.0, abs=1e-12) for v in wrong.values())
    assert found["acc3ds"] == found["acc3dr"] == found["dynamic_iou"] == 1.0


def test_points_are_counted_once(case: Case) -> None:
    _, truth, still = case
    n = counts(score_flow([still], [truth]))
    inside = (np.abs(truth.points[:, :2]) < 35).all(axis=1) & ~truth.ground & truth.valid & (truth.classes != 255)
    moving_background = inside & (truth.classes == 0) & truth.dynamic
    assert n["three_way_mean"] == inside.sum() - moving_background.sum()
    assert n["bucket_mean_static"] + n["bucket_mean_dynamic"] == inside.sum()


def test_range_reaches_beyond_the_square(case: Case) -> None:
    _, truth, still = case
    score = RangeErrors()
    score.add(score_pair(still, truth))
    assert set(score.bins("static")) == {"0-35", "35-50", "50-75", "75-100", "100+"}
    assert score.mean("dynamic") > 0.2 > score.mean("static")
    charts = {chart.name: chart for chart in flow_exhibit([still], [truth]).charts}
    assert charts["speed"].series["car"][1] == pytest.approx(1.0, abs=1e-5)


def test_real_flow_goes_through_every_file(case: Case, tmp_path: Path) -> None:
    _, _, still = case
    for kind in ("npz", "ply", "feather"):
        record = read_flow(write_flow(tmp_path / f"a.{kind}", still))
        assert np.array_equal(record.flow, still.flow) and record.dt_s == pytest.approx(0.1, abs=0.01)
    assert np.abs(record.residual()).max() < 1e-5


def test_real_pair_makes_both_submissions(case: Case, tmp_path: Path) -> None:
    _, _, still = case
    first = write_submission(tmp_path / "v1.zip", [still], 1, supervised=False)
    assert check_submission(first, {f"{still.name}.feather": len(still.flow)}) == []
    second = write_submission(tmp_path / "v2.zip", [still], 2, supervised=False)
    log = still.name.partition("/")[0]
    assert check_submission(second, {log: 1}) == []
