# SPDX-License-Identifier: Apache-2.0
"""One self-contained page per run: it opens without a server, loads nothing from outside, and can be mailed."""

from __future__ import annotations

import re
from html import escape
from pathlib import Path

import cv2
import numpy as np

from vision3d import canvas
from vision3d.canvas import Picture
from vision3d.errors import DataError
from vision3d.run.cloud_files import read_cloud_view
from vision3d.run.files import jsonable, read_json, write_bytes, write_json, write_text
from vision3d.types import Exhibit, Table
from vision3d.view import orbit, sections
from vision3d.view.charts import chart_svg
from vision3d.view.markup import picture, quiet, section
from vision3d.view.run_folder import RunFolder, inside, read_run
from vision3d.view.scenes import scene_picture
from vision3d.view.style import CSS, JS

# Frame pictures together stay below this, so that the page stays below about 8 MB.
_FRAME_BYTES = 4_500_000
_SCENE_BYTES = 400_000
_CLOUD_BYTES = 6_000_000
_MAX_FRAMES = 24
# (widest, JPEG quality), tried in turn until the pictures fit.
_SIZES = ((900, 82), (720, 76), (560, 70))

# The browser itself refuses anything that is not in the file.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"


def write_report(run_dir: Path, exhibit: Exhibit | None = None) -> Path:
    """Write ``report.html`` into a run folder from what lies in it, and the exhibit's pictures into ``viz/``.

    Args:
        run_dir: reads config.yaml, metrics.json, timing.json, results.jsonl, command.txt, environment.json and
            viz/frame_*.png, each of which may be missing.
        exhibit: charts become ``viz/<name>.svg``, scenes ``viz/<name>_top.png`` and ``viz/<name>_side.png``.
            Tables become ``viz/<name>.table.json``. None shows the ones that lie there from before.

    Returns:
        The path of report.html.

    Raises:
        FileNotFoundError: there is no such folder.
    """
    run_dir = Path(run_dir)
    if not run_dir.is_dir():
        raise FileNotFoundError(f"no run folder {run_dir}")
    scenes, charts = _draw(run_dir, exhibit) if exhibit is not None else _drawn_before(run_dir)
    run = read_run(run_dir)
    parts = [
        sections.headline(run),
        sections.metrics_table(run),
        sections.tables(_tables(run_dir, exhibit)),
        section("charts", "Curves", f'<div class="wide-gallery">{"".join(charts)}</div>') if charts else "",
        section("scene", "Map and cameras", f'<div class="wide-gallery">{"".join(scenes)}</div>') if scenes else "",
        _clouds(run),
        _gallery(run),
        sections.failures(run),
        sections.timing(run),
        sections.frames_table(run, exhibit.per_sample if exhibit is not None else {}),
        sections.record(run),
    ]
    page = _page(run, [part for part in parts if part])
    target = run_dir / "report.html"
    write_text(target, page)
    return target


def _page(run: RunFolder, parts: list[str]) -> str:
    title = str(run.metrics.get("pipeline") or run.path.resolve().name)
    links = re.findall(r'<section id="([^"]+)"><h2>([^<]+)</h2>', "\n".join(parts))
    nav = "".join(f'<a href="#{key}">{name}</a>' for key, name in links)
    body = chr(10).join(parts)
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<link rel="icon" href="data:,">
<title>{escape(title)}: report</title>
<style>{CSS}{orbit.CSS}</style>
</head>
<body>
<header>
{sections.heading(run)}
<nav>{nav}</nav>
</header>
<main>
{body}
</main>
<script>{JS}{orbit.JS if 'class="orbit"' in body else ""}</script>
</body>
</html>
"""


def _draw(run_dir: Path, exhibit: Exhibit) -> tuple[list[str], list[str]]:
    """Figures of scenes and of charts; also written as files."""
    viz = run_dir / "viz"
    viz.mkdir(exist_ok=True)
    scenes, charts = [], []
    for scene in exhibit.scenes:
        for view, words in (("top", "from above"), ("side", "from the side")):
            data = _encode(scene_picture(scene, view), ".png", cv2.IMWRITE_PNG_COMPRESSION, 9)  # type: ignore[arg-type]
            write_bytes(viz / f"{_file_name(scene.name)}_{view}.png", data)
            scenes.append(_scene_figure(data, f"{scene.title}, {words}"))
    for chart in exhibit.charts:
        svg = chart_svg(chart)
        write_text(viz / f"{_file_name(chart.name)}.svg", svg)
        charts.append(f"<figure>{svg}</figure>")
    return scenes, charts


def _tables(run_dir: Path, exhibit: Exhibit | None) -> list[Table]:
    """The exhibit's tables, also written as files; without an exhibit, those files."""
    viz = run_dir / "viz"
    if exhibit is None:
        return [_read_table(f) for f in sorted(viz.glob("*.table.json")) if inside(f, run_dir)]
    for table in exhibit.tables:
        viz.mkdir(exist_ok=True)
        write_json(viz / f"{_file_name(table.name)}.table.json", jsonable(table))
    return list(exhibit.tables)


def _read_table(path: Path) -> Table:
    """A table that was written before; a damaged one is a table that says so."""
    try:
        found = read_json(path)
        rows = tuple(tuple(c if isinstance(c, (int, float)) else str(c) for c in row) for row in found["rows"])
        header = tuple(map(str, found["header"]))
        if any(len(row) != len(header) for row in rows):
            raise ValueError("rows of different lengths")
        return Table(path.stem, str(found["title"]), header, rows, str(found["note"]))
    except (DataError, KeyError, TypeError, ValueError) as error:
        return Table(path.stem, path.name, ("cannot be read",), ((str(error),),))


def _drawn_before(run_dir: Path) -> tuple[list[str], list[str]]:
    viz = run_dir / "viz"
    files = [f for pattern in ("*_top.png", "*_side.png", "*.svg") for f in sorted(viz.glob(pattern))]
    files = [f for f in files if inside(f, run_dir)]
    scenes = [_scene_figure(f.read_bytes(), f.stem) for f in files if f.suffix == ".png"]
    # As an image a drawing from disk can run no script, whatever is in it.
    charts = [picture(f.read_bytes(), "image/svg+xml", f.stem) for f in files if f.suffix == ".svg"]
    return scenes, charts


def _gallery(run: RunFolder) -> str:
    """Pictures of samples: failures first, then evenly over the run, within the page's budget."""
    if not run.frames:
        return ""
    chosen = _choose(run)
    images = {i: image for i in chosen if (image := _decode(run.frames[i].read_bytes())) is not None}
    encoded: dict[int, bytes] = {}
    for width, quality in _SIZES:
        encoded = {i: _jpeg(image, width, quality) for i, image in images.items()}
        if sum(map(len, encoded.values())) <= _FRAME_BYTES:
            break
    figures, used = [], 0
    for i, data in encoded.items():
        used += len(data)
        if used <= _FRAME_BYTES:
            figures.append(picture(data, "image/jpeg", f"sample {i}", f"viz/{run.frames[i].name}"))
    note = f"{len(figures)} of {len(run.frames)} pictures" if len(figures) < len(run.frames) else ""
    note += f" ({len(chosen) - len(images)} damaged)" if len(images) < len(chosen) else ""
    body = quiet(f"{note}; all are in viz/. Click one to enlarge it.") if note else quiet("Click one to enlarge it.")
    return section("pictures", "Pictures", f'{body}<div class="gallery">{"".join(figures)}</div>')


def _clouds(run: RunFolder) -> str:
    """Point clouds of the first pictured samples, to be turned around, within the page's budget."""
    figures, used = [], 0
    for file in sorted((run.path / "viz").glob("cloud_*.npz")):
        if not inside(file, run.path):
            continue
        try:
            figure = orbit.cloud_figure(read_cloud_view(file))
        except DataError as error:
            figure = quiet(str(error))
        used += len(figure)
        if used <= _CLOUD_BYTES:
            figures.append(figure)
    return section("clouds", "Point clouds", "".join(figures)) if figures else ""


def _choose(run: RunFolder) -> list[int]:
    status = {i: row.get("status", "ok") for i, row in enumerate(run.results)}
    failed = [i for i in run.frames if status.get(i, "ok") != "ok"]
    good = [i for i in run.frames if status.get(i, "ok") == "ok"]
    return sorted(_spread(failed, _MAX_FRAMES // 2)) + _spread(good, _MAX_FRAMES - min(len(failed), _MAX_FRAMES // 2))


def _spread(items: list[int], limit: int) -> list[int]:
    if len(items) <= limit:
        return items
    return [items[i] for i in np.linspace(0, len(items) - 1, limit).astype(int)]


def _scene_figure(png: bytes, title: str) -> str:
    if len(png) <= _SCENE_BYTES:
        return picture(png, "image/png", title)
    image = _decode(png)
    return "" if image is None else picture(_jpeg(image, 1000, 88), "image/jpeg", title)


def _decode(data: bytes) -> Picture | None:
    image = cv2.imdecode(np.frombuffer(data or b"\0", np.uint8), cv2.IMREAD_COLOR)
    return None if image is None else np.asarray(image[..., ::-1], dtype=np.uint8)


def _jpeg(image: Picture, width: int, quality: int) -> bytes:
    if image.shape[1] > width:
        image = canvas.resize(image, (width, max(1, round(image.shape[0] * width / image.shape[1]))))
    return _encode(image, ".jpg", cv2.IMWRITE_JPEG_QUALITY, quality)


def _encode(image: Picture, suffix: str, option: int, value: int) -> bytes:
    ok, data = cv2.imencode(suffix, np.ascontiguousarray(image[..., ::-1]), [option, value])
    if not ok:
        raise RuntimeError(f"OpenCV could not encode a {suffix} image of shape {image.shape}")
    return bytes(data)


def _file_name(name: str) -> str:
    """A name as a file name: it comes from data and must not lead out of the folder."""
    return re.sub(r"[^A-Za-z0-9._-]+", "_", name).strip("._") or "unnamed"
