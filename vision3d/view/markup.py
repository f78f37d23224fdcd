# SPDX-License-Identifier: Apache-2.0
"""Small pieces of HTML and the way numbers are written in them. Every string from outside is escaped here."""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

UNITS = {"deg": "°", "percent": "%", "us": "µs"}
_RECALL = re.compile(r"recall_([\d.]+)(cm|m)_([\d.]+)deg$")
_UNIT_SUFFIX = re.compile(r"_(cm|m|mm|deg|px|ms|s|percent)$")


@dataclass(frozen=True)
class Cell:
    """A table cell: what is read, what it is sorted by, and its class."""

    text: str
    sort_by: float | None = None
    css: str = ""


def label(name: str) -> str:
    """A metric's or column's name as people say it: ``recall_5cm_5deg`` is ``within 5 cm & 5°``."""
    match = _RECALL.search(name)
    if match:
        return f"{name[: match.start()].replace('_', ' ')}within {match[1]} {match[2]} & {match[3]}°"
    if name.startswith("n_"):
        return name[2:].replace("_", " ")
    return _UNIT_SUFFIX.sub("", name).replace("_", " ")


def number(value: Any, decimals: int = 2) -> str:
    """Two decimals, more where these would show nothing; the infinity sign for null, an infinite value in JSON."""
    if value is None:
        return "∞"
    value = float(value)
    if not math.isfinite(value):
        return "∞" if value > 0 else "-∞"
    if value != 0 and abs(value) < 0.5 * 10.0**-decimals:
        return f"{value:.1e}"
    return f"{value:.{decimals}f}"


def metric_parts(metric: Mapping[str, Any]) -> tuple[str, str]:
    """(number, unit) of one entry of metrics.json, as text."""
    name, value, unit = str(metric.get("name", "")), metric.get("value"), str(metric.get("unit") or "")
    if name.split(".")[-1].startswith("n_") and value is not None:
        return f"{value:.0f}", f"of {metric.get('n', '?')}"
    if _RECALL.search(name) and value is not None:
        return number(100.0 * value), "%"
    # Centimetres matter where the unit is a metre.
    return number(value, 3 if unit == "m" else 2), UNITS.get(unit, unit)


def with_unit(text: str, unit: str) -> str:
    """``0.24 cm``, ``0.10°``."""
    return f"{text}{'' if unit in ('', '°') else ' '}{unit}"


def table(head: Sequence[str], rows: Sequence[Sequence[Cell | str]], sortable: bool = False) -> str:
    """A table; the first cell of a row names it, cells with a sort value are set right-aligned."""
    numeric = [any(isinstance(r[i], Cell) and r[i].sort_by is not None for r in rows) for i in range(len(head))]  # type: ignore[union-attr]
    parts = [f'<div class="scroll"><table{" class=sortable" if sortable else ""}><thead><tr>']
    parts += [f"<th{_css('num' if n else '')}>{escape(h)}</th>" for h, n in zip(head, numeric, strict=True)]
    parts.append("</tr></thead><tbody>")
    for row in rows:
        cells = [c if isinstance(c, Cell) else Cell(c) for c in row]
        failed = any(c.css == "failed" for c in cells)
        parts.append(f"<tr{_css('failed' if failed else '')}>")
        for i, cell in enumerate(cells):
            tag = "th" if i == 0 else "td"
            css = " ".join(filter(None, ["num" if numeric[i] else "", "" if cell.css == "failed" else cell.css]))
            data = "" if cell.sort_by is None else f' data-v="{_script_number(cell.sort_by)}"'
            parts.append(f"<{tag}{_css(css)}{data}>{escape(cell.text)}</{tag}>")
        parts.append("</tr>")
    return "".join([*parts, "</tbody></table></div>"])


def section(key: str, title: str, body: str) -> str:
    """A headed part of the page."""
    return f'<section id="{escape(key)}"><h2>{escape(title)}</h2>\n{body}\n</section>'


def picture(data: bytes, mime: str, alt: str, caption: str = "") -> str:
    """A figure whose image is part of the page."""
    source = f"data:{mime};base64,{base64.b64encode(data).decode('ascii')}"
    below = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    return f'<figure><img src="{source}" alt="{escape(alt)}">{below}</figure>'


def fold(title: str, text: str) -> str:
    """Preformatted text behind a heading."""
    return f"<details><summary>{escape(title)}</summary><pre>{escape(text)}</pre></details>"


def quiet(text: str) -> str:
    """A remark."""
    return f'<p class="quiet">{escape(text)}</p>'


def _script_number(value: float) -> str:
    return f"{value:.12g}".replace("inf", "Infinity")


def _css(names: str) -> str:
    return f' class="{names}"' if names else ""
