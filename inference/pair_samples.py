"""Samples to train a matching network with: a search image and a template of the same tissue.

A pair names two sections and a place, never where the template's match lies: that the place is the
same in both, to within the slack, is all the supervision there is. What a sample looks like is a
function of (seed, step, number) alone, so training goes on at any step without replaying those
before.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from typing import NamedTuple, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from inference.config import AugmentConfig, NCCTrainingConfig

Image = NDArray[np.float32]
Random = np.random.Generator

_WARP_NODES = 4
_AHEAD = 3
"""Batches that are made before they are asked for."""


class PairPlace(NamedTuple):
    """Where a pair is: sections z and z - d, and the first pixel of a window of both."""

    z: int
    d: int
    y: int
    x: int


class ReadWindow(Protocol):
    """Returns a window (side, side) of a section, uint8; 0 is no data."""

    def __call__(self, z: int, y: int, x: int, side_px: int) -> NDArray[np.uint8]:
        """Read section z from pixel (y, x) on."""


class Batch(NamedTuple):
    """Grey values, 0 to 255, float32 (n, side, side, 1), with their rims."""

    search: Image
    template: Image
    place: NDArray[np.int64]
    """(n, 2): where each template was cut, from the first place (y, x) of its search image."""


def random_of(seed: int, *place: int) -> Random:
    """Return a generator of its own for a place in a sequence: the same on every machine."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, *place])))


def batch_places(
    places: Sequence[PairPlace], step: int, config: NCCTrainingConfig
) -> list[PairPlace]:
    """Return the pairs of a step: all of them once an epoch, in an order of its own."""
    found = []
    for number in range(step * config.batch, (step + 1) * config.batch):
        epoch, at = divmod(number, len(places))
        order = random_of(config.seed, 0, epoch).permutation(len(places))
        found.append(places[order[at]])
    return found


def batches(
    places: Sequence[PairPlace], read: ReadWindow, config: NCCTrainingConfig, *, start: int = 0
) -> Iterator[Batch]:
    """Yield the batches of steps `start`, `start` + 1, ... without end, made ahead in a thread."""

    def make(step: int) -> Batch:
        samples = [
            varied(
                *windows(place, read, config.window_px),
                config,
                random_of(config.seed, 1, step, n),
            )
            for n, place in enumerate(batch_places(places, step, config))
        ]
        return _stacked(samples)

    with ThreadPoolExecutor(1) as pool:
        ahead = [pool.submit(make, step) for step in range(start, start + _AHEAD)]
        for step in count(start + _AHEAD):
            batch = ahead.pop(0).result()
            ahead.append(pool.submit(make, step))
            yield batch


def held_out(
    places: Sequence[PairPlace], read: ReadWindow, config: NCCTrainingConfig
) -> Iterator[Batch]:
    """Yield all pairs once, as they are, always with the same templates; the last may be short."""
    for first in range(0, len(places), config.batch):
        samples = []
        for n, place in enumerate(places[first : first + config.batch], first):
            search, moving = windows(place, read, config.window_px)
            at = _template_place(config, random_of(config.seed, 2, n))
            samples.append((search, _template(moving, at, config), at))
        yield _stacked(samples)


def windows(place: PairPlace, read: ReadWindow, side_px: int) -> tuple[Image, Image]:
    """Return the same window of section z - d, to search in, and of section z."""
    z, d, y, x = place
    search, moving = (read(k, y, x, side_px).astype(np.float32) for k in (z - d, z))
    return search, moving


def varied(
    search: Image, moving: Image, config: NCCTrainingConfig, random: Random
) -> tuple[Image, Image, tuple[int, int]]:
    """Cut a template out of `moving` anywhere within the slack, and vary both images.

    Returns what is searched, the template, and the place (y, x) that it was cut from, in px from
    the first place of what is searched.
    """
    vary = config.augment
    if vary.flips:
        turns, mirror = int(random.integers(4)), bool(random.integers(2))
        search, moving = (np.rot90(image, turns) for image in (search, moving))
        if mirror:
            search, moving = search[:, ::-1], moving[:, ::-1]
    at = _template_place(config, random)
    template = _template(moving, at, config)
    search = _warped(np.ascontiguousarray(search), vary.warp_px, random)
    if vary.blur_px:
        sigma = float(random.uniform(0, vary.blur_px))
        if random.integers(2):
            search = _blurred(search, sigma)
        else:
            template = _blurred(template, sigma)
    return _changed(search, vary, random), _changed(template, vary, random), at


def _template_place(config: NCCTrainingConfig, random: Random) -> tuple[int, int]:
    low, high = config.slack_px, config.search_px - config.template_px - config.slack_px
    y, x = (int(random.integers(low, high + 1)) for _ in range(2))
    return y, x


def _template(moving: Image, at: tuple[int, int], config: NCCTrainingConfig) -> Image:
    """Cut a template with its rim; a window's own rim is as wide, so the place is its corner."""
    return _cut(moving, *at, config.template_px + 2 * config.rim_px)


def _stacked(samples: Sequence[tuple[Image, Image, tuple[int, int]]]) -> Batch:
    searches, templates, places = zip(*samples, strict=True)
    search, template = (np.stack(images)[..., np.newaxis] for images in (searches, templates))
    return Batch(search, template, np.array(places, np.int64))


def _cut(image: Image, y: int, x: int, side: int) -> Image:
    return np.asarray(image[y : y + side, x : x + side], np.float32, order="C")


def _warped(image: Image, most_px: float, random: Random) -> Image:
    """Displace smoothly: a few random nodes, interpolated by splines."""
    if not most_px:
        return image
    nodes = random.uniform(-most_px, most_px, (2, _WARP_NODES, _WARP_NODES)).astype(np.float32)
    dy, dx = (cv2.resize(each, image.shape[::-1], interpolation=cv2.INTER_CUBIC) for each in nodes)
    y, x = np.indices(image.shape, np.float32)
    return np.asarray(cv2.remap(image, x + dx, y + dy, cv2.INTER_LINEAR, None, cv2.BORDER_REFLECT))


def _blurred(image: Image, sigma: float) -> Image:
    return np.asarray(cv2.GaussianBlur(image, (0, 0), sigma)) if sigma > 0.2 else image


def _changed(image: Image, vary: AugmentConfig, random: Random) -> Image:
    """Change contrast and brightness, add noise, and now and then a defect."""
    gain = float(random.uniform(1 - vary.contrast, 1 + vary.contrast))
    shift = float(random.uniform(-vary.brightness, vary.brightness))
    sigma = float(random.uniform(0, vary.noise)) if vary.noise else 0.0
    mean = float(image.mean())
    changed = (image - mean) * gain + mean + shift
    changed += random.normal(0, 1, image.shape).astype(np.float32) * sigma
    if random.uniform() < vary.defects:
        changed = _damaged(changed, random)
    return np.asarray(np.clip(changed, 0, 255), np.float32)


def _damaged(image: Image, random: Random) -> Image:
    """Draw a stain, a crack or a corner without data."""
    side, kind = image.shape[0], int(random.integers(3))
    grey = float(random.choice([0.0, 20.0, 230.0]))
    y, x = (int(random.integers(side)) for _ in range(2))
    if kind == 0:
        axes = tuple(int(random.integers(2, max(side // 6, 3))) for _ in range(2))
        return np.asarray(cv2.ellipse(image.copy(), (x, y), axes, 0, 0, 360, grey, -1))
    if kind == 1:
        end = tuple(int(n) for n in random.integers(0, side, 2))
        return np.asarray(cv2.line(image.copy(), (x, y), end, grey, int(random.integers(1, 5))))
    reach = int(random.integers(1, max(side // 3, 2)))
    changed = image.copy()
    changed[:reach, :reach] = 0.0
    return changed
