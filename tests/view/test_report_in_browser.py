# SPDX-License-Identifier: Apache-2.0
"""The report in a real browser: it must work from the file alone, and people must find the numbers."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from synthetic_run import FAILED, N, exhibit, name_of, write_run

from vision3d.view.report import write_report

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


class Visit:
    """A page and everything that it said or asked for."""

    def __init__(self, page: Any, file: Path) -> None:
        self.page = page
        self.complaints: list[str] = []
        self.requests: list[str] = []
        page.on("console", lambda m: self.complaints.append(m.text) if m.type in ("error", "warning") else None)
        page.on("pageerror", lambda e: self.complaints.append(str(e)))
        page.on("requestfailed", lambda r: self.complaints.append(f"failed: {r.url[:80]}"))
        page.on("request", lambda r: self.requests.append(r.url))
        page.goto(file.as_uri())
        page.wait_for_load_state("load")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (extra: dev)")
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        pytest.skip("no Chromium found (Debian: apt-get install chromium)")
    with playwright.sync_playwright() as p:
        opened = p.chromium.launch(executable_path=path, args=FLAGS)
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(write_run(tmp_path_factory.mktemp("browser") / "run", 12), exhibit())


@pytest.fixture
def visit(browser: Any, report: Path) -> Iterator[Visit]:
    page = browser.new_page(viewport={"width": 1200, "height": 900})
    yield Visit(page, report)
    page.close()


def test_it_opens_from_the_file_alone_without_a_complaint(visit: Visit, report: Path) -> None:
    assert visit.complaints == []
    assert report.as_uri() in visit.requests
    assert [url for url in visit.requests if url != report.as_uri() and not url.startswith("data:")] == []


def test_every_picture_is_there(visit: Visit) -> None:
    widths = visit.page.eval_on_selector_all("img", "all => all.map(i => i.complete ? i.naturalWidth : 0)")
    assert len(widths) == 2 + 12
    assert min(widths) > 0
    boxes = visit.page.eval_on_selector_all("figure svg", "all => all.map(s => s.getBoundingClientRect().height)")
    assert len(boxes) == 2
    assert min(boxes) > 150


def test_the_headline_numbers_are_seen_without_scrolling(visit: Visit) -> None:
    tiles = visit.page.locator(".tile")
    assert tiles.count() == 5
    for text in ("0.40", "95.00", "38"):
        assert visit.page.locator(".tile b", has_text=text).first.is_visible()
    assert tiles.last.bounding_box()["y"] < 900


def test_hostile_names_are_shown_as_they_are(visit: Visit) -> None:
    for i in FAILED:
        assert visit.page.get_by_text(name_of(i), exact=True).count() == 2


def test_a_click_sorts_the_samples_both_ways(visit: Visit) -> None:
    head = visit.page.locator("table.sortable thead th", has_text="inliers").first
    at = visit.page.locator("table.sortable thead th").all_inner_texts().index("inliers")
    column = f"rows => rows.map(r => Number(r.cells[{at}].textContent))"
    head.click()
    up = visit.page.eval_on_selector_all("table.sortable tbody tr", column)
    assert len(up) == N
    assert up == sorted(up)
    head.click()
    assert visit.page.eval_on_selector_all("table.sortable tbody tr", column) == sorted(up, reverse=True)
    assert head.get_attribute("aria-sort") == "descending"
    assert visit.complaints == []


def test_failures_come_last_when_sorted_by_error(visit: Visit) -> None:
    visit.page.locator("table.sortable thead th", has_text="translation").first.click()
    names = visit.page.eval_on_selector_all("table.sortable tbody tr", "all => all.map(r => r.cells[0].textContent)")
    assert names[-2:] == [name_of(i) for i in FAILED]


def test_a_click_enlarges_a_picture(visit: Visit) -> None:
    image = visit.page.locator(".gallery img").first
    small = image.bounding_box()["width"]
    image.click()
    assert image.bounding_box()["width"] > 2 * small


@pytest.mark.parametrize(("width", "scheme"), [(360, "light"), (1200, "dark")])
def test_it_fits_a_phone_and_has_a_dark_side(browser: Any, report: Path, width: int, scheme: str) -> None:
    page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
    visit = Visit(page, report)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (paper == "rgb(255, 255, 255)") == (scheme == "light")
    assert visit.complaints == []
    page.close()
