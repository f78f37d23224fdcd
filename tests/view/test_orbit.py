# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import base64
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from vision3d.types import CloudLayer, CloudView
from vision3d.view import orbit


def view() -> CloudView:
    rng = np.random.default_rng(0)
    cube = rng.uniform(-1, 1, (2000, 3)).astype(np.float32)
    colored = CloudLayer("cube", cube, rng.integers(0, 255, (2000, 3)).astype(np.uint8))
    plain = CloudLayer("far <b>", (cube + np.float32([3, 0, 0])), np.array([0, 255, 0], np.uint8))
    return CloudView("scan & flow", (colored, plain), np.array([0.0, 0.0, 1.0]))


def test_points_come_back_to_a_step(tmp_path: Path) -> None:
    html = orbit.cloud_figure(view())
    data = json.loads(re.search(r'<script type="application/json">(.*?)</script>', html)[1])  # type: ignore[index]
    for stored, layer in zip(data["layers"], view().layers, strict=True):
        steps = np.frombuffer(base64.b64decode(stored["steps"]), "<u2").reshape(-1, 3)
        back = steps * data["step"] + np.array(data["low"])
        assert np.abs(back - layer.points).max() <= 0.51 * data["step"]
        assert stored["one"] == (layer.colors.ndim == 1)
    assert "far &lt;b&gt; (2000)" in html
    assert "scan &amp; flow" in html


def test_a_view_without_points_is_no_figure() -> None:
    empty = CloudLayer("none", np.zeros((0, 3), np.float32), np.zeros((0, 3), np.uint8))
    assert orbit.cloud_figure(CloudView("empty", (empty,), np.array([0.0, 0, 1]))) == ""


def test_it_turns_and_switches_layers_in_a_browser(tmp_path: Path) -> None:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (extra: dev)")
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if path is None:
        pytest.skip("no Chromium found (Debian: apt-get install chromium)")
    page_file = tmp_path / "page.html"
    page_file.write_text(f"<style>{orbit.CSS}</style>{orbit.cloud_figure(view())}<script>{orbit.JS}</script>")
    with playwright.sync_playwright() as p:
        browser = p.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": 1000, "height": 760})
        complaints: list[str] = []
        page.on("pageerror", lambda e: complaints.append(str(e)))
        page.on("console", lambda m: complaints.append(m.text) if m.type == "error" else None)
        page.goto(page_file.as_uri())

        def colors() -> list[int]:
            """Pixels that are background, that are pure green, and a checksum."""
            return page.evaluate(
                """() => { const c = document.querySelector('.orbit canvas');
                const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;
                let back = 0, green = 0, sum = 0;
                for (let i = 0; i < d.length; i += 4) {
                  if (d[i] == 38 && d[i+1] == 42 && d[i+2] == 48) back++;
                  if (d[i] == 0 && d[i+1] == 255 && d[i+2] == 0) green++;
                  sum = (sum * 31 + d[i] + d[i+1] * 7 + d[i+2] * 13) % 1000003;
                }
                return [back, green, sum]; }"""
            )

        first = colors()
        assert first[0] < 900 * 560  # something is drawn
        assert first[1] > 100
        page.mouse.move(400, 300)
        page.mouse.down()
        page.mouse.move(520, 340, steps=4)
        page.mouse.up()
        page.wait_for_timeout(150)
        turned = colors()
        assert turned[2] != first[2]
        page.locator("input").nth(1).uncheck()
        page.wait_for_timeout(150)
        assert colors()[1] == 0
        page.locator("input").nth(1).check()
        page.locator("canvas").dblclick()
        page.wait_for_timeout(150)
        assert colors() == first
        assert complaints == []
        browser.close()
