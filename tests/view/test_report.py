# SPDX-License-Identifier: Apache-2.0
"""The report as a text: what it must say, what it must survive, and what it must never let through."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest
from synthetic_run import FAILED, N, exhibit, name_of, write_run

from vision3d.types import Chart, Exhibit, Scene, Table
from vision3d.view import NullViewer
from vision3d.view.markup import label, metric_parts, number
from vision3d.view.report import write_report
from vision3d.view.run_folder import read_run

VOID = {"meta", "link", "img", "br", "hr", "input", "rect", "polyline", "circle"}


class Page(HTMLParser):
    """Elements, texts and addresses of a page; fails on tags that do not close in order."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] not in (["script"], ["style"]):
            self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(self.texts)

    def addresses(self) -> list[str]:
        return [v or "" for _, attrs in self.tags for k, v in attrs.items() if k in ("src", "href", "srcset", "data")]


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_run(tmp_path_factory.mktemp("report") / "run", n_pictures=10)
    write_report(folder, exhibit())
    return folder


@pytest.fixture(scope="module")
def page(run_dir: Path) -> Page:
    return Page((run_dir / "report.html").read_text("utf-8"))


def test_headline_numbers_stand_with_unit_n_and_seed(page: Page) -> None:
    text = re.sub(r"\s+", " ", page.text)
    assert "0.40 cm median translation n = 40" in text
    assert "95.00 % within 5 cm & 5° n = 40" in text
    assert "38 of 40 localized" in text
    assert "40 samples · 2 failed · 1 not scored · truth: pgt_sfm.txt · seed 3" in text


def test_baselines_stand_beside_with_the_best_value_marked(page: Page) -> None:
    assert "median descriptor" in page.text
    best = [attrs for tag, attrs in page.tags if tag == "td" and "best" in (attrs.get("class") or "")]
    # Both medians and the 1 cm recall, the latter tied with one baseline; equal rows carry no mark.
    assert len(best) == 4
    assert "∞ cm" in page.text


def test_every_failure_is_named_with_its_reason(page: Page) -> None:
    for i in FAILED:
        assert page.texts.count(name_of(i)) == 2  # in the list of failures and among all samples
    assert page.texts.count("4 inliers < 12") >= len(FAILED)


def test_every_sample_has_a_row_that_can_be_sorted(page: Page) -> None:
    for i in range(N):
        assert name_of(i) in page.texts
    assert ("table", {"class": "sortable"}) in page.tags
    for head in ("prior rank", "x, m", "translation, cm", "rotation, °", "time, ms"):
        assert head in page.texts
    assert "stamp ns" not in page.texts


def test_a_failed_sample_sorts_behind_every_error(page: Page) -> None:
    cells = [a for t, a in page.tags if t == "td" and a.get("data-v") == "Infinity"]
    assert len(cells) >= len(FAILED)


def test_samples_that_were_not_scored_are_named(page: Page) -> None:
    assert "seq-01/frame-000099.color.png" in page.texts
    assert "no truth is known" in page.texts


def test_the_total_time_of_every_method_is_stated(page: Page) -> None:
    assert "Total by method" in page.texts
    assert "91.25" in page.texts


def test_command_configuration_environment_and_timing_are_there(page: Page) -> None:
    for text in ("vision3d eval favor redkitchen", "type: favor", '"cpu_count": 2', "118.20", "p95, ms"):
        assert text in page.text


def test_nothing_is_loaded_from_anywhere(page: Page, run_dir: Path) -> None:
    assert all(a.startswith(("data:", "#")) for a in page.addresses())
    policy = [a["content"] for t, a in page.tags if t == "meta" and a.get("http-equiv") == "Content-Security-Policy"]
    assert policy
    assert "default-src 'none'" in str(policy[0])
    html = (run_dir / "report.html").read_text("utf-8")
    assert "@import" not in html
    assert "url(" not in html


def test_drawings_are_also_files(run_dir: Path) -> None:
    names = {f.name for f in (run_dir / "viz").iterdir()} - {f"frame_{i:06d}.png" for i in range(N)}
    assert names == {"map_top.png", "map_side.png", "recall.svg", "error.svg"}


def test_names_from_data_are_never_markup(page: Page) -> None:
    assert "b" not in {t for t, a in page.tags if t == "b" and not a} or page.texts.count(name_of(7)) == 2
    known = {"html", "head", "meta", "link", "title", "style", "body", "header", "h1", "h2", "p", "nav", "a", "main"}
    known |= {"div", "b", "small", "span", "i", "section", "table", "thead", "tbody", "tr", "th", "td", "figure"}
    known |= {"img", "figcaption", "details", "summary", "pre", "script", "svg", "rect", "polyline", "circle", "text"}
    assert {t for t, _ in page.tags} <= known
    assert [t for t, _ in page.tags].count("script") == 1


def test_hostile_documents_stay_text(tmp_path: Path) -> None:
    evil = "</script><script>alert(1)</script><img src=x onerror=alert(1)>"
    folder = write_run(tmp_path / "run", 0)
    metric = {"name": evil, "value": 1.0, "unit": evil, "better": "higher", "n": evil}
    document = {"pipeline": evil, "dataset": evil, "n_frames": evil, "metrics": [metric], "baselines": {evil: [metric]}}
    document |= {"failures": [{"name": evil, "status": evil, "reason": evil}], "n_skipped": evil}
    (folder / "metrics.json").write_text(json.dumps(document))
    (folder / "timing.json").write_text(json.dumps({evil: {evil: 1.0}}))
    (folder / "results.jsonl").write_text(json.dumps({"name": evil, "status": evil, "extra": {evil: evil}}) + "\n")
    (folder / "config.yaml").write_text(f'seed: "{evil}"\n')
    (folder / "command.txt").write_text(evil)
    show = Exhibit(
        charts=(Chart("../../" + evil, evil, evil, evil, {evil: (np.arange(2.0), np.arange(2.0))}),),
        scenes=(Scene("../up", evil, np.eye(3), None, {evil: np.eye(4)[None]}, np.array([0.0, 0.0, 1.0])),),
    )
    out = Page(write_report(folder, show).read_text("utf-8"))
    assert [t for t, _ in out.tags].count("script") == 1
    assert all(not k.startswith("on") for _, attrs in out.tags for k in attrs)
    assert all((a.get("src") or "").startswith("data:") for t, a in out.tags if t == "img")
    # Names of drawings are data as well: they must not lead out of the folder.
    assert {f.parent for f in tmp_path.rglob("*") if f.suffix in (".svg", ".png")} == {folder / "viz"}


def test_tables_of_the_run_are_shown_and_found_again(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", 0)
    rows = (("ship", 0.75, 12), ("<b>plane</b>", 1.0, 3))
    show = Exhibit(tables=(Table("per class", "By class", ("class", "AP", "n"), rows, "Area under the curve."),))
    first = Page(write_report(folder, show).read_text("utf-8")).text
    for text in ("By class", "ship", "0.75", "12", "<b>plane</b>", "Area under the curve."):
        assert text in first
    assert Page(write_report(folder).read_text("utf-8")).text == first
    (file,) = (folder / "viz").glob("*.table.json")
    for damage in ("{", '{"title": "x", "header": ["a"], "rows": [["a", "b"]], "note": ""}', "[]"):
        file.write_text(damage)
        assert "cannot be read" in Page(write_report(folder).read_text("utf-8")).text


def test_only_pictures_inside_the_run_folder_are_shown(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", 2)
    secret = tmp_path / "secret.png"
    (folder / "viz" / "frame_000001.png").rename(secret)
    (folder / "viz" / "frame_000001.png").symlink_to(secret)
    run = read_run(folder)
    assert list(run.frames) == [0]
    assert run.problems == ["viz/frame_000001.png: lies outside the run folder and was left out"]
    assert "lies outside the run folder" in Page(write_report(folder).read_text("utf-8")).text


@pytest.mark.parametrize(
    "missing", ["config.yaml", "metrics.json", "timing.json", "results.jsonl", "command.txt", "environment.json", "viz"]
)
def test_a_run_that_lacks_a_file_is_still_reported(tmp_path: Path, missing: str) -> None:
    folder = write_run(tmp_path / "run", 1)
    if missing == "viz":
        (folder / "viz" / "frame_000000.png").unlink()
        (folder / "viz").rmdir()
    else:
        (folder / missing).unlink()
    out = Page(write_report(folder).read_text("utf-8"))
    assert ("0.40" in out.text) == (missing != "metrics.json")
    if missing == "metrics.json":
        assert "with a result" in out.text
        assert "Failures (2)" in out.text


def test_an_empty_folder_gives_a_page_and_no_folder_an_error(tmp_path: Path) -> None:
    assert "<h1>" in write_report(tmp_path).read_text("utf-8")
    with pytest.raises(FileNotFoundError, match="no run folder"):
        write_report(tmp_path / "absent")


def test_damaged_files_are_named_on_the_page(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", 1)
    (folder / "timing.json").write_text("{")
    (folder / "environment.json").write_text("[1]")
    with open(folder / "results.jsonl", "a") as file:
        file.write('{"name": "cut')
    (folder / "viz" / "frame_000000.png").write_bytes(b"no picture")
    text = Page(write_report(folder).read_text("utf-8")).text
    for problem in ("timing.json: is damaged", "environment.json: is damaged", "results.jsonl: line 41 is damaged"):
        assert problem in text
    assert "0 of 1 pictures (1 damaged)" in text


def test_a_run_that_broke_off_says_so(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", 1)
    assert "did not finish" not in write_report(folder).read_text("utf-8")
    (folder / "FAILED").touch()
    assert "did not finish" in write_report(folder).read_text("utf-8")


def test_a_report_can_be_written_again_from_the_files_alone(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", 1)
    write_report(folder, exhibit())
    again = Page(write_report(folder).read_text("utf-8"))
    images = [a.get("src") or "" for t, a in again.tags if t == "img"]
    assert sum(i.startswith("data:image/svg+xml") for i in images) == 2
    assert sum(i.startswith("data:image/png") for i in images) == 2


def test_equal_runs_give_equal_pages(tmp_path: Path) -> None:
    pages = [write_report(write_run(tmp_path / str(i) / "run", 3), exhibit()).read_bytes() for i in range(2)]
    assert pages[0] == pages[1]


def test_the_page_stays_small_with_many_large_noisy_pictures(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", 0)
    noise = np.random.default_rng(0).integers(0, 255, (900, 900, 3), dtype=np.uint8)
    data = bytes(cv2.imencode(".png", noise, [cv2.IMWRITE_PNG_COMPRESSION, 0])[1])
    for i in range(30):
        (folder / "viz" / f"frame_{i:06d}.png").write_bytes(data)
    report = write_report(folder, exhibit())
    assert report.stat().st_size < 8_000_000
    text = Page(report.read_text("utf-8")).text
    shown = re.search(r"(\d+) of 30 pictures; all are in viz/", text)
    assert shown
    assert int(shown[1]) > 3


def test_failed_samples_are_shown_first(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", N)
    captions = [t for t in Page(write_report(folder).read_text("utf-8")).texts if t.startswith("viz/frame_")]
    assert captions[:2] == [f"viz/frame_{i:06d}.png" for i in FAILED]
    assert len(captions) == len(set(captions)) == 24


@pytest.mark.parametrize(
    ("metric", "text"),
    [
        ({"name": "recall_5cm_5deg", "value": 0.97183, "unit": "", "n": 71}, ("97.18", "%")),
        ({"name": "median_rotation_deg", "value": 0.0951, "unit": "deg", "n": 71}, ("0.10", "°")),
        ({"name": "median_translation_cm", "value": None, "unit": "cm", "n": 71}, ("∞", "cm")),
        ({"name": "n_localized", "value": 71.0, "unit": "", "n": 71}, ("71", "of 71")),
        ({"name": "map", "value": 0.0012, "unit": "", "n": 2}, ("1.2e-03", "")),
    ],
)
def test_metrics_are_written_as_people_read_them(metric: dict, text: tuple[str, str]) -> None:
    assert metric_parts(metric) == text


def test_names_and_numbers_read_well() -> None:
    assert label("recall_25cm_2deg") == "within 25 cm & 2°"
    assert label("recall_5m_10deg") == "within 5 m & 10°"
    assert label("median_translation_cm") == "median translation"
    assert number(0.0) == "0.00"
    assert number(float("-inf")) == "-∞"


def test_the_viewer_that_shows_nothing_takes_everything() -> None:
    viewer = NullViewer()
    viewer.on_result(object(), object())
    viewer.close()
