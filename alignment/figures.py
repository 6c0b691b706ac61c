"""Pictures for the report: charts as SVG, images as PNG in a data URI; nothing is loaded.

Charts are drawn by hand instead of by a plotting library, because SVG inside the page takes the
page's colours: one chart serves light and dark, stays sharp, and weighs a few kB. Colours are
classes of the template's style sheet; before is orange and after is blue, which every common kind
of colour blindness tells apart, and lines differ in their dashes too.
"""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import cv2
import numpy as np
from markupsafe import Markup, escape
from matplotlib import colormaps
from numpy.typing import NDArray

from alignment.errors import ShapeError
from alignment.qc import MISSING_AREA_PX, missing_pixels

Style = Literal["before", "after", "plain", "faint"]

LARGEST_MAP_PX = 128
"""Maps are averaged down to this: about what a card of the report can show."""


@dataclass(frozen=True)
class Series:
    """One line of a chart: values over the chart's x, NaN where the line breaks."""

    label: str
    values: Sequence[float]
    style: Style


@dataclass(frozen=True)
class _Axis:
    """Linear map of values to px along one side of a chart."""

    low: float
    high: float
    start: float
    stop: float

    def at(self, value: float) -> float:
        return self.start + (value - self.low) / (self.high - self.low) * (self.stop - self.start)


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Return about `count` round numbers in low..high.

    >>> ticks(0.0, 0.83)
    [0.0, 0.2, 0.4, 0.6, 0.8]
    """
    raw = (high - low) / max(count, 1)
    magnitude = 10.0 ** np.floor(np.log10(raw))
    step = next(m * magnitude for m in (1, 2, 2.5, 5, 10) if m * magnitude >= raw * 0.75)
    first = int(np.ceil(low / step - 1e-9))
    last = int(np.floor(high / step + 1e-9))
    return [round(float(i * step), 10) for i in range(first, last + 1)]


def line_chart(
    title: str,
    x: Sequence[int],
    series: Sequence[Series],
    *,
    y_label: str,
    y_range: tuple[float, float] | None = None,
    gaps: Sequence[int] = (),
) -> Markup:
    """Draw values per section as an SVG of 1040 x 190 px.

    Parameters
    ----------
    title : str
        What is shown, for the chart's heading and for readers that cannot see it.
    x : sequence of int
        Section of every value, ascending.
    series : sequence of Series
        Lines; each has as many values as `x`.
    y_label : str
        What the values are, with their unit.
    y_range : (low, high), optional
        Fixed range; by default one that holds 0 and every value.
    gaps : sequence of int
        Sections without data, marked as bars.
    """
    values = [float(v) for s in series for v in s.values if np.isfinite(v)]
    low, high = y_range or (min(values, default=0.0) * 1.1, max(values, default=1.0) * 1.1)
    low, high = min(low, 0.0), max(high, 0.0)
    ys = _Axis(low, high if high > low else low + 1.0, 162.0, 12.0)
    ends = [*x, *gaps] or [0]
    xs = _Axis(min(ends) - 0.5, max(ends) + 0.5, 52.0, 1028.0)
    width = max(xs.at(1) - xs.at(0), 1.5)
    parts = [f'<svg class="chart" viewBox="0 0 1040 190" role="img" aria-label="{escape(title)}">']
    parts += [
        f'<rect class="gap" x="{xs.at(z - 0.5):.1f}" y="12" width="{width:.1f}" height="150">'
        f"<title>section {z}: bridged</title></rect>"
        for z in gaps
    ]
    parts += [
        f'<line class="grid" x1="52" x2="1028" y1="{ys.at(t):.1f}" y2="{ys.at(t):.1f}"/>'
        f'<text class="tick" x="46" y="{ys.at(t) + 4:.1f}" text-anchor="end">{t:g}</text>'
        for t in ticks(ys.low, ys.high, 6)
    ]
    parts += [
        f'<text class="tick" x="{xs.at(t):.1f}" y="178" text-anchor="middle">{t:,.0f}</text>'
        for t in ticks(xs.low, xs.high, 12)
        if t == int(t)
    ]
    parts += [_line(s, x, xs, ys) for s in series]
    parts.append(
        f'<text class="tick" transform="translate(11 87) rotate(-90)" text-anchor="middle">'
        f"{escape(y_label)}</text></svg>"
    )
    return Markup("".join(parts))


def _line(series: Series, x: Sequence[int], xs: _Axis, ys: _Axis) -> str:
    points, pen, dots = [], "M", []
    # One dot a value tells single pairs from trends; in long stacks they would only thicken.
    with_dots = len(x) <= 150
    for z, value in zip(x, series.values, strict=True):
        if not np.isfinite(value):
            pen = "M"
            continue
        px, py = xs.at(z), ys.at(min(max(value, ys.low), ys.high))
        points.append(f"{pen}{px:.1f} {py:.1f}")
        pen = "L"
        if with_dots:
            dots.append(
                f'<circle class="dot {series.style}" cx="{px:.1f}" cy="{py:.1f}" r="2.6">'
                f"<title>{escape(series.label)}, section {z}: {value:.3g}</title></circle>"
            )
    return f'<path class="line {series.style}" d="{"".join(points)}"/>{"".join(dots)}'


def histogram(values: NDArray[Any], high: float, *, label: str, bins: int = 40) -> Markup:
    """Draw a histogram of known `values` over 0..high px as SVG; its last bar holds the rest."""
    known = np.asarray(values, np.float64)
    known = known[np.isfinite(known)]
    last = bins - 1
    counts = np.bincount(np.minimum(known / high * last, last).astype(int), minlength=bins)
    unit = 56 / max(int(counts.max()), 1)
    bars = "".join(f"M{i * 12 + 1} 60v{-n * unit:.1f}h10V60z" for i, n in enumerate(counts) if n)
    places = [(t, t / high * last * 12) for t in ticks(0.0, high, 6)[1:]]
    labels = "".join(
        f'<text class="tick" x="{x:.0f}" y="75" text-anchor="middle">{t:g}</text>'
        for t, x in places
    )
    end = bins * 12
    return Markup(
        f'<svg class="chart" viewBox="0 0 {end} 80" role="img" aria-label="{escape(label)}">'
        f'<path class="bar" d="{bars}"/><line class="axis" x1="0" x2="{end}" y1="60.5" y2="60.5"/>'
        f'<text class="tick" x="0" y="75">0 px</text>{labels}</svg>'
    )


def shrink(values: NDArray[Any], largest_px: int) -> NDArray[np.float32]:
    """Average a map (..., ny, nx) over whole squares so that no side exceeds `largest_px`.

    Unknown elements (NaN) do not count; a square without a known one is NaN.
    """
    ny, nx = values.shape[-2:]
    k = max(-(-max(ny, nx, 1) // largest_px), 1)
    lead = [(0, 0)] * (values.ndim - 2)
    padded = np.pad(
        values.astype(np.float64), [*lead, (0, -ny % k), (0, -nx % k)], constant_values=np.nan
    )
    squares = padded.reshape(*values.shape[:-2], -(-ny // k), k, -(-nx // k), k)
    known = np.isfinite(squares)
    count = known.sum(axis=(-3, -1))
    total = np.where(known, squares, 0.0).sum(axis=(-3, -1))
    mean = np.where(count > 0, total / np.maximum(count, 1), np.nan)
    return np.asarray(mean, np.float32)


def palette_png(values: NDArray[Any], low: float, high: float, name: str) -> str:
    """Return a map (ny, nx) in a matplotlib palette as a PNG data URI; NaN is transparent.

    Indexed colours: a byte a pixel, a third of what the same picture takes in RGBA.
    """
    known = np.isfinite(values)
    scaled = (np.where(known, values, low) - low) / max(high - low, 1e-12)
    index = np.where(known, 1 + (scaled.clip(0, 1) * 254).round(), 0).astype(np.uint8)
    colours = (colormaps[name](np.arange(256))[:, :3] * 255).round().astype(np.uint8)
    ny, nx = index.shape
    rows = np.pad(index, ((0, 0), (1, 0)))  # each row starts with its filter, 0 = none
    return _data_uri(
        b"\x89PNG\r\n\x1a\n"
        + _png_chunk(b"IHDR", struct.pack(">2I5B", nx, ny, 8, 3, 0, 0, 0))
        + _png_chunk(b"PLTE", colours.tobytes())
        + _png_chunk(b"tRNS", b"\0")
        + _png_chunk(b"IDAT", zlib.compress(rows.tobytes(), 9))
        + _png_chunk(b"IEND", b"")
    )


def _png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _data_uri(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode()


def overlay(moving: NDArray[np.uint8], fixed: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Lay two uint8 images (y, x) over each other, RGBA: moving in red, fixed in cyan.

    Where they agree the picture is grey; a red or cyan rim is a displacement. It is transparent
    where neither holds data.
    """
    if moving.shape != fixed.shape or moving.ndim != 2:
        raise ShapeError(
            f"an overlay needs two (y, x) images of one shape, got {moving.shape} and "
            f"{fixed.shape}; cut both at the same box"
        )
    red, cyan = stretch(moving), stretch(fixed)
    missing = missing_pixels(moving) & missing_pixels(fixed)
    return _with_alpha([red, cyan, cyan], missing)


def stretch(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Stretch the contrast of known pixels between their percentiles 1 and 99; 0 stays 0."""
    known = image[image > 0]
    if not known.size:
        return image.copy()
    low, high = (float(p) for p in np.percentile(known, (1, 99)))
    scaled = (image.astype(np.float32) - low) / max(high - low, 1.0) * 254 + 1
    return np.where(image > 0, scaled.clip(1, 255), 0).round().astype(np.uint8)


def grey(image: NDArray[np.uint8], *, missing_area_px: int = MISSING_AREA_PX) -> NDArray[np.uint8]:
    """Return `image` (y, x) with stretched contrast; RGBA if zero areas of that size are in it."""
    missing = missing_pixels(image, area_px=missing_area_px)
    shown = stretch(image)
    return _with_alpha([shown] * 3, missing) if missing.any() else shown


def _with_alpha(
    channels: Sequence[NDArray[np.uint8]], missing: NDArray[np.bool_]
) -> NDArray[np.uint8]:
    rgba = np.stack([*channels, np.full(missing.shape, 255, np.uint8)], axis=-1)
    rgba[missing] = 0
    return rgba


def png(image: NDArray[np.uint8]) -> str:
    """Return a data URI of a grey (y, x), RGB or RGBA (y, x, 3 or 4) uint8 image."""
    if image.ndim == 3:
        order = cv2.COLOR_RGB2BGR if image.shape[2] == 3 else cv2.COLOR_RGBA2BGRA
        image = np.asarray(cv2.cvtColor(np.ascontiguousarray(image), order), np.uint8)
    return _data_uri(cv2.imencode(".png", image, [cv2.IMWRITE_PNG_COMPRESSION, 6])[1].tobytes())


def photograph(image: NDArray[np.uint8], alt: str, *, aspect: float | None = None) -> Markup:
    """Return an <img> of a grey, RGB or RGBA image.

    Parameters
    ----------
    image : uint8 ndarray of shape (y, x), (y, x, 3) or (y, x, 4)
        An empty one is shown as an empty box.
    alt : str
        What the picture shows, for readers that cannot see it.
    aspect : float, optional
        Width over height, where pixels are not square; they are then drawn as sharp blocks.
    """
    image = image if image.size else np.zeros((1, 1), np.uint8)
    return _img(png(image), image.shape, alt, aspect, "smooth" if aspect is None else "crisp")


def scalar_map(values: NDArray[Any], low: float, high: float, name: str, alt: str) -> Markup:
    """Draw a map (ny, nx) in a palette; unknown elements show the page's hatching."""
    small = _drawable(shrink(values, LARGEST_MAP_PX))
    return _img(palette_png(small, low, high, name), small.shape, alt, None, "crisp")


def _img(uri: str, shape: tuple[int, ...], alt: str, aspect: float | None, kind: str) -> Markup:
    ny, nx = shape[:2]
    return Markup(
        f'<img class="{kind}" loading="lazy" decoding="async" width="{nx}" height="{ny}" '
        f'style="aspect-ratio:{aspect or nx / ny:.4f}" alt="{escape(alt)}" src="{uri}">'
    )


def _drawable(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return `values`, or one unknown element where there is none: sections below one chunk."""
    return values if values.size else np.full((*values.shape[:-2], 1, 1), np.nan, np.float32)


def field_picture(
    field: NDArray[np.float32], high: float, name: str, alt: str, *, arrows: int = 12
) -> Markup:
    """Draw a pull field (2, ny, nx), px: its length in colour, and needles the way tissue moved.

    The longest needle spans the distance of two needles; they start at the thick end. They show
    -F, because a pull field points to where the tissue came from.
    """
    known, sparse = (_drawable(shrink(field, n)) for n in (LARGEST_MAP_PX, arrows))
    ny, nx = known.shape[1:]
    step = min(ny / sparse.shape[1], nx / sparse.shape[2])
    lengths = np.hypot(sparse[0], sparse[1])
    longest = max(float(np.nanmax(lengths, initial=0.0)), 1e-6)
    needles = []
    for i, j in np.argwhere(lengths > 0.02 * longest):
        vy, vx = (-0.95 * step / longest * float(v) for v in sparse[:, i, j])
        y, x = (i + 0.5) * ny / sparse.shape[1] - vy / 2, (j + 0.5) * nx / sparse.shape[2] - vx / 2
        # Half of the thick end, across the needle.
        oy, ox = (0.09 * step / np.hypot(vy, vx) * v for v in (vx, -vy))
        needles.append(
            f"M{x + ox:.1f} {y + oy:.1f}L{x + vx:.1f} {y + vy:.1f}L{x - ox:.1f} {y - oy:.1f}z"
        )
    picture = palette_png(np.hypot(known[0], known[1]), 0.0, high, name)
    return Markup(
        f'<svg class="field" viewBox="0 0 {nx} {ny}" role="img" aria-label="{escape(alt)}">'
        f"<title>{escape(alt)}</title>"
        f'<image class="crisp" width="{nx}" height="{ny}" href="{picture}"/>'
        f'<path class="needle" stroke-width="{0.06 * step:.2f}" d="{"".join(needles)}"/></svg>'
    )


def colour_bar(low: float, high: float, name: str, unit: str) -> Markup:
    """Draw the legend of a palette: low to high, with the unit."""
    strip = palette_png(np.linspace(low, high, 128)[None], low, high, name)
    return Markup(
        f'<span class="scale"><span>{low:.3g}</span><img alt="colours of {low:.3g} to {high:.3g} '
        f'{escape(unit)}" src="{strip}"><span>{high:.3g} {escape(unit)}</span></span>'
    )
