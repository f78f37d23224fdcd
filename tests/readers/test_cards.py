# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import importlib
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from layouts import cambridge, colmap, posed_folder, seven_scenes, transforms, tum

from vision3d.contracts import DataConfig, Reader, ReaderSpec
from vision3d.errors import ConfigError, DataError
from vision3d.readers import cards

ROOT = Path(__file__).resolve().parents[2]
ENTRIES = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]["vision3d.readers"]


@pytest.fixture(scope="module")
def specs() -> dict[str, ReaderSpec]:
    found = {}
    for name, target in ENTRIES.items():
        module, _, attribute = target.partition(":")
        found[name] = getattr(importlib.import_module(module), attribute)
    return found


def test_entry_points_lead_to_specs_of_their_name(specs):
    for name, spec in specs.items():
        assert spec.name == name
        assert spec.samples in {"Frame", "CloudPair", "LabeledImage"}
        assert spec.summary
        assert spec.check is not None


def test_importing_every_spec_is_cheap():
    modules = ", ".join(target.partition(":")[0] for target in ENTRIES.values())
    heavy = "{'torch', 'cv2', 'pycolmap', 'skimage', 'PIL', 'yaml'}"
    code = f"import sys; import {modules}; print(sorted({heavy} & set(sys.modules)))"
    out = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


@pytest.mark.parametrize("source", ["", "/no/such/path", "\0", "a" * 5000, "camera:0", "synthetic", "?x=1", "~", "/"])
def test_match_never_raises(specs, source, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # an empty source means the working folder, which may hold data
    for spec in specs.values():
        assert 0.0 <= spec.match(source) <= 1.0
    assert all(spec.match(source) == 0 for name, spec in specs.items() if name != "images" and source != "/")


def test_every_layout_is_recognised_also_from_the_folder_above(specs, tmp_path, small, vga):
    made = {
        "7scenes": seven_scenes(tmp_path / "a" / "heads", vga[:2]),
        "posed": posed_folder(tmp_path / "b" / "room", small),
        "cambridge": cambridge(tmp_path / "c" / "ShopFacade", small),
        "tum": tum(tmp_path / "d" / "freiburg1_xyz", vga[:1]),
        "transforms": transforms(tmp_path / "e" / "fox", small),
        "colmap": colmap(tmp_path / "f" / "door", small),
    }
    for name, path in made.items():
        for source in (str(path), str(path.parent)):
            scores = {other: spec.match(source) for other, spec in specs.items()}
            assert max(scores, key=scores.__getitem__) == name, scores
            assert sorted(scores.values())[-2] < scores[name]
            assert isinstance(specs[name].open(source, DataConfig()), Reader)
        assert specs[name].check(str(path)) == []


def test_real_folders_are_recognised_from_above(specs, shared_data):
    for folder, name in (
        ("7scenes_redkitchen", "7scenes"),
        ("ngp_fox", "transforms"),
        ("hololens_dvmvs_000", "posed"),
        ("gtsfm_lund_door", "colmap"),
        ("tum_slambook_rgbd", "tum"),
        ("open3d_testdata", "posed"),
    ):
        scores = {other: spec.match(str(shared_data / folder)) for other, spec in specs.items()}
        assert max(scores, key=scores.__getitem__) == name, (folder, scores)


def test_every_card_is_complete_and_names_a_reader(specs):
    found = cards.load_cards()
    assert {"7scenes", "cambridge", "tum-rgbd", "colmap", "transforms", "synthetic-room"} <= set(found)
    for name, card in found.items():
        assert card["reader"] in specs, name
        assert card["home"].startswith("https://")
    for spec in specs.values():
        assert not spec.card or spec.card in found


def test_check_goes_through_the_card_to_the_reader(specs, tmp_path, vga):
    scene = seven_scenes(tmp_path / "heads", vga[:2])
    assert cards.check("7scenes", str(scene), specs) == []
    (scene / "seq-01" / "frame-000000.pose.txt").unlink()
    (scene / "TestSplit.txt").unlink()
    problems = cards.check("7scenes", str(scene), specs)
    assert len(problems) == 2
    assert all("\n" not in problem for problem in problems)
    assert cards.check("synthetic-room", "synthetic:room?frames=2", specs) == []
    assert cards.check("posed", str(scene), specs) == [
        f"{scene}: holds no posed images (images/ with poses.txt, or color/ with trajectory.log)"
    ]
    with pytest.raises(ConfigError, match="'8scenes' is neither a data set card nor a reader; known: 7scenes"):
        cards.check("8scenes", str(scene), specs)


def test_checksums_of_the_card_are_compared(specs, shared_data, tmp_path, vga):
    scene = seven_scenes(tmp_path / "heads", vga[:2])
    relative = "pgt/sfm/7scenes/heads_test.txt"
    source = shared_data / "reloc_metadata" / "visloc_pgt" / relative
    target = scene / relative
    target.parent.mkdir(parents=True)
    shutil.copy(source, target)
    assert cards.check("7scenes", str(scene), specs) == []
    target.write_text(target.read_text().replace("1", "2", 1))
    (problem,) = cards.check("7scenes", str(scene), specs)
    assert "heads_test.txt: sha256 is" in problem
    assert "the published file has 02bf44688c37..." in problem


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t.replace("licence:", "license:"), "field 'licence' is missing"),
        (lambda t: t + "extra: 1\n", "unknown field 'extra'"),
        (lambda t: t.replace("name: colmap", "name: other"), "field 'name' is 'other' but the file is called colmap"),
        (
            lambda t: t.replace("splits:\n  all:", "splits:\n  - all:"),
            "field 'splits' must be of type dict, found list",
        ),
        (lambda t: "a: [", "is not YAML"),
        (lambda t: "- a\n", "must hold fields, found list"),
        (lambda t: t + "checksums: !!python/object/apply:os.getcwd []\n", "is not YAML"),
    ],
)
def test_damaged_cards_are_named(tmp_path, change, words):
    (tmp_path / "colmap.yaml").write_text(change((cards.cards_dir() / "colmap.yaml").read_text()))
    with pytest.raises(DataError, match=rf"colmap\.yaml: {words}"):
        cards.read_card(tmp_path / "colmap.yaml")
