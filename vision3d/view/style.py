# SPDX-License-Identifier: Apache-2.0
"""The looks and the behaviour of a report: one style sheet, one small script, both inlined."""

from __future__ import annotations

CSS = """
:root {
  color-scheme: light dark;
  --paper: #ffffff; --ink: #1f2328; --muted: #656d76; --grid: #e1e4e8; --card: #f6f8fa;
  --good: #00795a; --bad: #b84f00; --link: #0060a0; --sheet: transparent;
  --series-0: #0072b2; --series-1: #d55e00; --series-2: #56b4e9; --series-4: #cc79a7;
  --series-5: #009e73; --series-6: #e69f00;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #0f1318; --ink: #e6eaef; --muted: #98a2ad; --grid: #2b323a; --card: #171c22;
    --good: #3ecfa5; --bad: #f59a5b; --link: #7cc0f2;
    --series-0: #3f95d6; --series-1: #f0843f; --series-2: #9ad6f8; --series-4: #dd9ac0;
    --series-5: #35c39c; --series-6: #e9ae2c;
  }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body {
  margin: 0 auto; padding: 2rem clamp(1rem, 4vw, 2.5rem) 4rem; max-width: 1120px;
  background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", "DejaVu Sans", sans-serif;
}
h1 { font-size: 1.6rem; line-height: 1.25; font-weight: 650; margin: 0 0 .25rem; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; font-weight: 650; margin: 2.75rem 0 .75rem; scroll-margin-top: 1rem; }
p { margin: .25rem 0 .75rem; max-width: 70ch; }
a { color: var(--link); }
nav { margin: .9rem 0 0; display: flex; flex-wrap: wrap; gap: .15rem 1.1rem; font-size: .9rem; }
nav a { text-decoration: none; }
nav a:hover { text-decoration: underline; }
.quiet { color: var(--muted); font-size: .9rem; }
.banner { border-left: 4px solid var(--bad); background: var(--card); padding: .6rem .9rem; margin: 1rem 0; }
.tiles {
  display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: .75rem; margin: 1.5rem 0 .5rem;
}
.tile { background: var(--card); border-radius: 8px; padding: .9rem 1rem; }
.tile b { display: block; font-size: 1.65rem; line-height: 1.2; font-weight: 600; font-variant-numeric: tabular-nums; }
.tile b small { font-size: 1rem; font-weight: 500; color: var(--muted); margin-left: .2em; }
.tile span, .tile i { color: var(--muted); font-size: .9rem; font-style: normal; display: block; line-height: 1.4; }
.tile i { font-size: .82rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .92rem; font-variant-numeric: tabular-nums; min-width: 50%; }
th, td { text-align: left; padding: .38rem 1.1rem .38rem 0; border-bottom: 1px solid var(--grid); vertical-align: top; }
th { color: var(--muted); font-weight: 500; white-space: nowrap; }
td.num, th.num { text-align: right; white-space: nowrap; }
tbody th { color: var(--ink); font-weight: 400; }
td.best { font-weight: 650; }
tr.failed td, tr.failed th { color: var(--bad); }
table.sortable thead th { cursor: pointer; user-select: none; }
table.sortable thead th:hover { color: var(--ink); }
th[aria-sort=ascending]::after { content: " \\2191"; }
th[aria-sort=descending]::after { content: " \\2193"; }
.frames td, .frames th { font-size: .86rem; padding-top: .25rem; padding-bottom: .25rem; }
.frames .box { max-height: 32rem; overflow: auto; border: 1px solid var(--grid); border-radius: 8px; padding: 0 .9rem; }
.frames table { width: 100%; }
.frames th:last-child, .frames td:last-child { padding-right: .2rem; }
.frames .scroll { overflow: visible; }
.frames thead th { position: sticky; top: 0; background: var(--paper); }
.gallery { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 310px), 1fr)); gap: 1rem; }
.wide-gallery {
  display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 440px), 1fr)); gap: 1rem; align-items: start;
}
figure { margin: 0; overflow-x: auto; }
figure img {
  display: block; width: 100%; height: auto; border-radius: 6px; border: 1px solid var(--grid); cursor: zoom-in;
}
figure.open { grid-column: 1 / -1; }
figure.open img { cursor: zoom-out; }
figcaption { color: var(--muted); font-size: .85rem; margin-top: .3rem; overflow-wrap: anywhere; }
figure svg { display: block; width: 100%; min-width: 500px; height: auto; }
details { border-top: 1px solid var(--grid); padding: .6rem 0; }
details:last-of-type { border-bottom: 1px solid var(--grid); }
summary { cursor: pointer; }
pre {
  overflow-x: auto; background: var(--card); border-radius: 8px; padding: .8rem 1rem;
  font-size: .84rem; line-height: 1.45;
}
@media print { nav { display: none; } .frames .box { max-height: none; } }
"""

# Click a column's head to sort by it, a picture to enlarge it. The page is complete without.
JS = """
document.querySelectorAll("table.sortable").forEach(table => {
  const heads = [...table.tHead.rows[0].cells];
  const value = (row, i) => row.cells[i].dataset.v ?? row.cells[i].textContent;
  heads.forEach((head, i) => {
    head.tabIndex = 0;
    const sort = () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      heads.forEach(h => h.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const rows = [...table.tBodies[0].rows];
      rows.sort((a, b) => {
        const x = value(a, i), y = value(b, i), n = Number(x) - Number(y);
        const order = x !== "" && y !== "" && !Number.isNaN(n) ? n : x.localeCompare(y, "en", {numeric: true});
        return down ? -order : order;
      });
      table.tBodies[0].append(...rows);
    };
    head.addEventListener("click", sort);
    head.addEventListener("keydown", e => { if (e.key === "Enter") sort(); });
  });
});
document.querySelectorAll("figure img").forEach(img =>
  img.addEventListener("click", () => img.closest("figure").classList.toggle("open")));
"""
