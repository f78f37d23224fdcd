# SPDX-License-Identifier: Apache-2.0
"""Point clouds that a reader of the report can turn around: data and a small renderer in the page itself.

The renderer draws into a 2-D canvas with a depth buffer of its own. That needs no WebGL, so it works in every browser,
without a graphics driver, and under the page's strict content policy.
"""

from __future__ import annotations

import base64
import json
from html import escape

import numpy as np
from numpy.typing import NDArray

from vision3d.types import CloudLayer, CloudView

_STEPS = 65535  # coordinates are kept as 16-bit steps of the view's box: a millimetre in 65 metres


def cloud_figure(view: CloudView) -> str:
    """A figure with the view's layers, their switches, and the data of all points (9 bytes each)."""
    points = [layer.points for layer in view.layers if len(layer.points)]
    if not points:
        return ""
    together = np.concatenate(points)
    low, high = together.min(axis=0).astype(np.float64), together.max(axis=0).astype(np.float64)
    step_m = max(float((high - low).max()), 1e-6) / _STEPS
    middle = np.median(together, axis=0).astype(np.float64)
    spread = np.percentile(np.linalg.norm(together - middle, axis=1), 80)
    data = {
        "low": low.tolist(),
        "step": step_m,
        "middle": middle.tolist(),
        "distance": 2.2 * max(float(spread), 1e-3),
        "up": np.asarray(view.up, dtype=np.float64).tolist(),
        "layers": [_layer(layer, low, step_m) for layer in view.layers],
    }
    switches = "".join(
        f'<label><input type="checkbox" data-layer="{i}"{" checked" if i < 2 else ""}> '
        f"{escape(layer.name)} ({len(layer.points)})</label>"
        for i, layer in enumerate(view.layers)
    )
    return (
        f'<figure class="orbit"><canvas width="900" height="560" tabindex="0" aria-label="{escape(view.title)}">'
        "</canvas>"
        f"<figcaption>{escape(view.title)}: drag turns, Shift and drag moves, the wheel (or + and -) zooms, a double "
        f'click goes back</figcaption><div class="switches">{switches}</div>'
        f'<script type="application/json">{json.dumps(data)}</script></figure>'
    )


def _layer(layer: CloudLayer, low: NDArray[np.float64], step_m: float) -> dict[str, object]:
    steps = np.rint((layer.points.astype(np.float64) - low) / step_m).clip(0, _STEPS).astype("<u2")
    colors = np.ascontiguousarray(layer.colors, dtype=np.uint8)
    return {"n": len(layer.points), "steps": _base64(steps), "colors": _base64(colors), "one": colors.ndim == 1}


def _base64(array: NDArray[np.generic]) -> str:
    return base64.b64encode(np.ascontiguousarray(array).tobytes()).decode("ascii")


CSS = """
.orbit canvas { width: 100%; background: #262a30; border-radius: 4px; cursor: grab; touch-action: none; }
.orbit .switches { display: flex; flex-wrap: wrap; gap: .3em 1.2em; padding: .3em 0; }
"""

JS = """
for (const figure of document.querySelectorAll('.orbit')) {
  const canvas = figure.querySelector('canvas'), context = canvas.getContext('2d');
  const data = JSON.parse(figure.querySelector('script').textContent);
  const bytes = text => Uint8Array.from(atob(text), c => c.charCodeAt(0));
  const layers = data.layers.map(l => ({...l, steps: new Uint16Array(bytes(l.steps).buffer), colors: bytes(l.colors)}));
  const boxes = [...figure.querySelectorAll('input')];
  const start = {yaw: -0.6, pitch: 0.6, distance: data.distance, target: data.middle.slice()};
  let view, image, depth, waiting = false;
  const reset = () => { view = {...start, target: start.target.slice()}; };
  const cross = (a, b) => [a[1]*b[2]-a[2]*b[1], a[2]*b[0]-a[0]*b[2], a[0]*b[1]-a[1]*b[0]];
  const unit = a => { const n = Math.hypot(...a); return a.map(x => x / n); };
  const up = unit(data.up), side = unit(cross(Math.abs(up[2]) < 0.9 ? [0, 0, 1] : [0, 1, 0], up));
  const ahead = cross(up, side);
  const axes = () => {
    const cy = Math.cos(view.yaw), sy = Math.sin(view.yaw), cp = Math.cos(view.pitch), sp = Math.sin(view.pitch);
    const flat = side.map((s, i) => cy * ahead[i] + sy * s);
    const forward = flat.map((f, i) => cp * f - sp * up[i]);
    const right = unit(cross(forward, up));
    return [right, cross(right, forward), forward];
  };
  function draw() {
    waiting = false;
    const w = canvas.width, h = canvas.height;
    if (!image || image.width !== w || image.height !== h) {
      image = context.createImageData(w, h); depth = new Float32Array(w * h);
    }
    const pixels = new Uint32Array(image.data.buffer);
    pixels.fill(0xff302a26); depth.fill(Infinity);
    const [r, u, f] = axes(), focal = 0.9 * w, eye = view.target.map((t, i) => t - view.distance * f[i]);
    const shift = data.low.map((l, i) => l - eye[i]), s = data.step;
    const shown = layers.filter((_, i) => boxes[i].checked);
    const size = shown.reduce((n, l) => n + l.n, 0) > 30000 ? 2 : 3;
    for (const layer of shown) {
      const p = layer.steps, c = layer.colors;
      for (let i = 0; i < layer.n; i++) {
        const x = shift[0] + s * p[3*i], y = shift[1] + s * p[3*i+1], z = shift[2] + s * p[3*i+2];
        const d = f[0]*x + f[1]*y + f[2]*z;
        if (d < 0.01 * view.distance) continue;
        const a = Math.round(w/2 + focal * (r[0]*x + r[1]*y + r[2]*z) / d);
        const b = Math.round(h/2 - focal * (u[0]*x + u[1]*y + u[2]*z) / d);
        if (a < 0 || b < 0 || a > w - size || b > h - size) continue;
        const k = layer.one ? 0 : 3*i, color = 0xff000000 | c[k+2] << 16 | c[k+1] << 8 | c[k];
        for (let m = 0; m < size; m++) for (let q = (b+m)*w + a, e = q + size; q < e; q++)
          if (d < depth[q]) { depth[q] = d; pixels[q] = color; }
      }
    }
    context.putImageData(image, 0, 0);
    figure.dataset.drawn = String(Number(figure.dataset.drawn || 0) + 1);
  }
  const later = () => { if (!waiting) { waiting = true; requestAnimationFrame(draw); } };
  const zoom = factor => { view.distance = Math.min(Math.max(view.distance * factor, 1e-3), 1e5); later(); };
  const held = new Map();
  canvas.addEventListener('pointerdown', e => { canvas.setPointerCapture(e.pointerId); held.set(e.pointerId, e); });
  for (const name of ['pointerup', 'pointercancel']) canvas.addEventListener(name, e => held.delete(e.pointerId));
  canvas.addEventListener('pointermove', e => {
    const before = held.get(e.pointerId);
    if (!before) return;
    const dx = e.clientX - before.clientX, dy = e.clientY - before.clientY;
    if (held.size === 2) {
      const other = [...held.values()].find(o => o.pointerId !== e.pointerId);
      const gap = o => Math.hypot(o.clientX - other.clientX, o.clientY - other.clientY) + 1;
      zoom(gap(before) / gap(e));
    } else if (e.shiftKey) {
      const [r, u] = axes(), scale = view.distance / canvas.clientWidth;
      view.target = view.target.map((t, i) => t - scale * (dx * r[i] - dy * u[i]));
    } else {
      view.yaw += dx * 0.006;
      view.pitch = Math.min(Math.max(view.pitch + dy * 0.006, -1.55), 1.55);
    }
    held.set(e.pointerId, e);
    later();
  });
  canvas.addEventListener('wheel', e => { e.preventDefault(); zoom(Math.exp(e.deltaY * 0.001)); }, {passive: false});
  canvas.addEventListener('dblclick', () => { reset(); later(); });
  canvas.addEventListener('keydown', e => {
    const turn = {ArrowLeft: [-0.1, 0], ArrowRight: [0.1, 0], ArrowUp: [0, 0.1], ArrowDown: [0, -0.1]}[e.key];
    if (turn) { view.yaw += turn[0]; view.pitch = Math.min(Math.max(view.pitch + turn[1], -1.55), 1.55); later(); }
    else if (e.key === '+') zoom(0.8);
    else if (e.key === '-') zoom(1.25);
    else return;
    e.preventDefault();
  });
  boxes.forEach(box => box.addEventListener('change', later));
  reset(); draw();
}
"""
