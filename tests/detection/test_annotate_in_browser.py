# SPDX-License-Identifier: Apache-2.0
"""The page for clicking points in a real browser, with a real mouse and real keys."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path

import numpy as np
import pytest

from detection.annotate.images import ImageSet
from detection.annotate.server import PointServer
from detection.annotate.store import PointStore

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
SIZES = {"wide": (500, 200), "<b>bold</b> & co": (200, 150), "third": (200, 200)}
CLASSES = ("plane", "<i>ship</i>", "harbor")


class Running:
    """A server in a thread."""

    def __init__(self, folder: Path) -> None:
        rng = np.random.default_rng(0)
        pictures = [rng.integers(60, 200, (h, w, 3), dtype=np.uint8) for w, h in SIZES.values()]
        self.images = ImageSet(list(SIZES), lambda index: pictures[index])
        self.store = PointStore(folder, CLASSES)
        self.server = PointServer(self.images, self.store, window=256)
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02})
        self.thread.start()

    def stop(self) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()

    def points(self, name: str) -> list[tuple[float, float, int]]:
        return self.store.load(name)[0]


class Visit:
    """A page, everything that it said or asked for, and where an image pixel is on its screen."""

    def __init__(self, page, running: Running) -> None:
        self.page, self.running = page, running
        self.complaints: list[str] = []
        self.requests: list[str] = []
        page.on("console", lambda m: self.complaints.append(m.text) if m.type in ("error", "warning") else None)
        page.on("pageerror", lambda e: self.complaints.append(str(e)))
        page.on("request", lambda r: self.requests.append(r.url))
        page.goto(running.server.url)
        self.wait("ready")

    def wait(self, *said: str, line: str = "status") -> None:
        """Until the line says one of these."""
        code = f"words => words.includes(document.getElementById('{line}').textContent)"
        self.page.wait_for_function(code, arg=list(said), timeout=10_000)

    def saved(self) -> None:
        """The page says either only while nothing waits to be saved."""
        self.wait("saved", "ready")

    def screen(self, x: float, y: float, tile: tuple[int, int, int, int]) -> tuple[float, float]:
        """Where the centre of pixel (x, y) is while ``tile`` (x, y, width, height) fills the view."""
        box = self.page.locator("#view").bounding_box()
        scale = min(box["width"] / tile[2], box["height"] / tile[3])
        left = box["x"] + (box["width"] - tile[2] * scale) / 2
        top = box["y"] + (box["height"] - tile[3] * scale) / 2
        return left + (x - tile[0] + 0.5) * scale, top + (y - tile[1] + 0.5) * scale

    def click(self, x: float, y: float, tile: tuple[int, int, int, int] = (0, 0, 256, 200), **how) -> None:
        self.page.mouse.click(*self.screen(x, y, tile), **how)

    def press(self, *keys: str) -> None:
        for key in keys:
            self.page.keyboard.press(key)

    def expect(self, name: str, *points: tuple[float, float, int]) -> None:
        """What is on disk, to within half a pixel (a mouse stands on whole pixels of the screen)."""
        self.saved()
        found = self.running.points(name)
        assert [p[2] for p in found] == [p[2] for p in points]
        for one, other in zip(found, points, strict=True):
            assert abs(one[0] - other[0]) <= 0.5
            assert abs(one[1] - other[1]) <= 0.5


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (extra: dev)")
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        pytest.skip("no Chromium found (Debian: apt-get install chromium)")
    with playwright.sync_playwright() as p:
        opened = p.chromium.launch(executable_path=path, args=FLAGS)
        yield opened
        opened.close()


@pytest.fixture
def running(tmp_path):
    made = Running(tmp_path / "town")
    yield made
    made.stop()


@pytest.fixture
def visit(browser, running):
    page = browser.new_page(viewport={"width": 1100, "height": 800})
    yield Visit(page, running)
    page.close()


def test_it_opens_without_a_complaint_and_asks_nobody_else(visit):
    assert visit.complaints == []
    assert all(url.startswith((visit.running.server.url, "data:")) for url in visit.requests)
    assert visit.page.locator("#total").inner_text() == "0 of 3 images, 0 points"
    assert visit.page.locator("#where").inner_text() == "image 1 of 3, tile 1 of 3 (1 seen), 0 points"
    assert not visit.running.store.folder.exists()  # looking changes nothing


def test_a_click_is_a_point_where_the_mouse_is(visit):
    visit.click(30, 40)
    visit.press("2")
    visit.click(200.3, 150)
    visit.expect("wide", (30, 40, 0), (200.3, 150, 1))
    assert visit.page.locator("#total").inner_text() == "1 of 3 images, 2 points"
    assert visit.page.get_by_role("radio", name="<i>ship</i> (key 2)").get_attribute("aria-checked") == "true"
    visit.page.get_by_role("radio", name="harbor (key 3)").click()
    visit.click(10, 10)
    visit.expect("wide", (30, 40, 0), (200.3, 150, 1), (10, 10, 2))
    assert visit.complaints == []


def test_a_click_beside_the_image_is_none(visit):
    box = visit.page.locator("#view").bounding_box()
    visit.page.mouse.click(box["x"] + box["width"] / 2, box["y"] + 2)
    visit.wait("outside of the image", line="hint")
    assert not visit.running.store.folder.exists()


def test_undo_and_redo(visit):
    for x in (20, 40, 60):
        visit.click(x, 50)
    visit.press("Control+z", "Control+z")
    visit.expect("wide", (20, 50, 0))
    visit.press("Control+y")
    visit.expect("wide", (20, 50, 0), (40, 50, 0))
    visit.press("Control+Shift+Z")
    visit.expect("wide", (20, 50, 0), (40, 50, 0), (60, 50, 0))
    visit.page.locator("#undo").click()
    visit.click(80, 50)
    visit.expect("wide", (20, 50, 0), (40, 50, 0), (80, 50, 0))
    assert visit.page.locator("#redo").is_disabled()
    visit.press("Control+z", "Control+z", "Control+z", "Control+z")
    visit.wait("nothing to undo", line="hint")


def test_deleting_takes_the_nearest_point_and_can_be_undone(visit):
    for x in (20, 40, 200):
        visit.click(x, 50)
    visit.page.mouse.move(*visit.screen(38, 52, (0, 0, 256, 200)))
    visit.press("x")
    visit.expect("wide", (20, 50, 0), (200, 50, 0))
    visit.press("Control+z")
    visit.expect("wide", (20, 50, 0), (40, 50, 0), (200, 50, 0))
    visit.click(201, 51, button="right")
    visit.expect("wide", (20, 50, 0), (40, 50, 0))
    visit.page.mouse.move(*visit.screen(120, 150, (0, 0, 256, 200)))
    visit.press("Delete")
    visit.wait("no point is near", line="hint")


def test_arrows_go_from_tile_to_tile_and_the_points_belong_to_the_image(visit):
    visit.press("ArrowRight")
    visit.wait("ready")
    visit.click(300, 100, (192, 0, 256, 200))
    visit.press("ArrowRight")  # the last tile is moved back, so that it is full
    visit.saved()
    visit.click(499, 0, (244, 0, 256, 200))
    visit.expect("wide", (300, 100, 0), (499, 0, 0))
    visit.press("ArrowRight")
    visit.wait("the image ends here", line="hint")
    visit.press("PageUp", "PageUp", "PageUp")
    visit.wait("this is the first tile", line="hint")
    assert "tile 1 of 3 (3 seen)" in visit.page.locator("#where").inner_text()
    assert visit.page.locator("#grid button.seen").count() == 3
    visit.press("Control+z")  # the view follows what is undone
    assert "tile 3 of 3" in visit.page.locator("#where").inner_text()


def test_images_are_changed_by_keys_and_by_the_list(visit):
    visit.press("n")
    visit.wait("ready")
    assert visit.page.locator("#images option").nth(1).inner_text() == "<b>bold</b> & co"  # text, not markup
    visit.click(100, 75, (0, 0, 200, 150))
    visit.expect("<b>bold</b> & co", (100, 75, 0))
    visit.press("n")
    visit.wait("ready")
    visit.press("n")
    visit.wait("this is the last image", line="hint")
    visit.press("p")
    visit.wait("ready")
    visit.press("Control+z")  # each image has a history of its own
    visit.expect("<b>bold</b> & co")
    visit.page.locator("#images").select_option("0")
    visit.wait("ready")
    assert visit.page.locator("#where").inner_text().startswith("image 1 of 3")
    assert visit.complaints == []


def test_done_keeps_an_empty_image_and_goes_to_the_next(visit):
    visit.press("Enter")
    visit.page.wait_for_function("() => document.getElementById('where').textContent.startsWith('image 2 of 3')")
    visit.page.locator("#done").click()
    visit.page.wait_for_function("() => document.getElementById('where').textContent.startsWith('image 3 of 3')")
    visit.click(50, 50, (0, 0, 200, 200))
    visit.saved()
    assert visit.running.store.counts(visit.running.images.names) == [0, 0, 1]
    assert visit.page.locator("#total").inner_text() == "3 of 3 images, 1 points"
    visit.page.reload()
    visit.wait("ready")
    assert visit.page.locator("#total").inner_text() == "3 of 3 images, 1 points"


def test_the_wheel_zooms_about_the_mouse(visit):
    at = visit.screen(100, 60, (0, 0, 256, 200))
    visit.page.mouse.move(*at)
    for _ in range(5):
        visit.page.mouse.wheel(0, -300)
    visit.page.mouse.click(*at)
    visit.expect("wide", (100, 60, 0))
    visit.page.mouse.click(at[0] + 40, at[1])
    visit.saved()
    step = visit.running.points("wide")[1][0] - visit.running.points("wide")[0][0]
    assert 40 / step > 8 * 828 / 256  # pixels of the screen per pixel of the image: more than 8 times the whole view's
    visit.press("0")
    visit.click(20, 20)
    visit.saved()
    assert visit.running.points("wide")[2] == pytest.approx((20, 20, 0), abs=0.5)


def test_dragging_moves_the_view_and_makes_no_point(visit):
    at = visit.screen(128, 100, (0, 0, 256, 200))
    visit.page.mouse.move(*at)
    visit.page.mouse.wheel(0, -1000)
    visit.page.mouse.down()
    visit.page.mouse.move(at[0] + 60, at[1] + 30, steps=4)
    visit.page.mouse.up()
    assert not visit.running.store.folder.exists()
    visit.page.mouse.click(at[0] + 60, at[1] + 30)
    visit.expect("wide", (128, 100, 0))


def test_it_can_be_used_without_a_mouse(visit):
    visit.press("Shift+ArrowRight", "Shift+ArrowRight", "Space")
    visit.saved()
    (first,) = visit.running.points("wide")
    assert first[0] > 127.5
    assert first[1] == pytest.approx(99.5, abs=0.5)
    visit.press("3", "Shift+ArrowDown", "Shift+ArrowDown", "Space")
    visit.saved()
    second = visit.running.points("wide")[1]
    assert second[2] == 2
    assert second[1] > first[1]
    visit.press("x")
    visit.saved()
    assert visit.running.points("wide") == [first]
    names = visit.page.eval_on_selector_all(
        "button, select, canvas, progress", "all => all.map(e => e.getAttribute('aria-label') || e.textContent.trim())"
    )
    assert all(names)
    assert visit.page.locator("#status").get_attribute("aria-live") == "polite"


def test_it_says_so_when_it_cannot_save_and_goes_on_when_it_can(visit):
    visit.click(20, 20)
    visit.saved()
    visit.page.route("**/api/image/*", lambda route: route.abort("connectionrefused"))
    visit.click(40, 40)
    visit.click(60, 60)
    visit.wait("not saved: the server does not answer; trying again")
    assert len(visit.running.points("wide")) == 1
    visit.page.unroute("**/api/image/*")
    visit.expect("wide", (20, 20, 0), (40, 40, 0), (60, 60, 0))


def test_two_pages_on_one_image_lose_nothing(browser, visit, running):
    visit.click(20, 20)
    visit.click(40, 40)
    visit.saved()
    page = browser.new_page(viewport={"width": 1100, "height": 800})
    other = Visit(page, running)
    other.page.keyboard.press("p")  # it starts at the first image that nobody has looked at
    other.wait("ready")
    other.click(60, 60)
    other.click(20, 20, button="right")
    other.saved()
    visit.click(80, 80)
    visit.saved()
    visit.expect("wide", (40, 40, 0), (60, 60, 0), (80, 80, 0))
    page.close()


@pytest.mark.parametrize(("width", "scheme"), [(360, "light"), (1200, "dark")])
def test_it_fits_a_phone_and_has_a_dark_side(browser, running, width, scheme):
    page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
    visit = Visit(page, running)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (paper == "rgb(255, 255, 255)") == (scheme == "light")
    assert visit.complaints == []
    page.close()
