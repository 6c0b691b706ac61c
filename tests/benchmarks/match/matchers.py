"""The same matches by the engine and by its peers, and that they are the same.

Every matcher takes a `Task` and a part of its jobs, and returns for each the best whole-pixel place
of the template in its window and the score there. Only the engine also finds fractions of a pixel,
a covariance, second peaks, r_delta, sharpness and the turned template's score, and knows masks.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import cv2
import numpy as np
import scipy.fft
from numpy.typing import NDArray
from scipy import ndimage as ndi
from skimage.feature import match_template

from alignment.ncc import FeatureImage, Job, find_matches

Answers = NDArray[np.float64]
"""(n, 3): dy, dx from the window's first position, and the score."""


@dataclass(frozen=True)
class Task:
    """Grid of nodes over sections, each section matched with its earlier neighbours."""

    template_px: int
    window_px: int
    grey: NDArray[np.uint8]
    """(z, y, x), sections of one tissue."""
    images: list[FeatureImage]
    """The same: (grey - 128) / 64."""
    jobs: NDArray[np.int32]
    """(n, 6), rows of `alignment.ncc.Job`, node by node."""


def make_task(
    template_px: int,
    window_px: int,
    *,
    nodes: int = 16,
    sections: int = 4,
    neighbours: int = 3,
    spacing_px: int = 80,
    holes: float = 0.0,
    all_pairs: bool = False,
) -> Task:
    """Return the last of `sections` against its neighbours, or every one (`all_pairs`).

    `holes` is the share of the sections that bands of invalid pixels make up.
    """
    side = nodes * spacing_px + window_px
    random = np.random.default_rng(template_px)
    tissue = ndi.gaussian_filter(random.normal(size=(side, side)), 2.0)
    own = ndi.gaussian_filter(random.normal(size=(sections, side, side)), (0, 1.0, 1.0))
    both = tissue / tissue.std() + 0.5 * own / own.std()
    grey = np.clip(np.rint(128 + 28 * both), 1, 255).astype(np.uint8)
    valid = np.ones((sections, side, side), bool)
    if holes:
        width = 12
        for first in range(side // 3, side, int(width / holes)):
            valid[:, first : first + width] = False
    features = (grey.astype(np.float32) - 128) / 64
    images = [FeatureImage.of(*section) for section in zip(features, valid, strict=True)]
    rim = (window_px - template_px) // 2
    moving = range(1, sections) if all_pairs else (sections - 1,)
    jobs = [
        Job(z - d, i * spacing_px, j * spacing_px, z, i * spacing_px + rim, j * spacing_px + rim)
        for i in range(nodes)
        for j in range(nodes)
        for z in moving
        for d in range(1, neighbours + 1)
        if z >= d
    ]
    return Task(template_px, window_px, grey, images, np.array(jobs, np.int32))


def by_engine(task: Task, jobs: NDArray[np.int32]) -> Answers:
    """All statistics, masks on; a box for weights, as the peers have it."""
    peaks, _ = find_matches(
        task.images,
        jobs,
        template_px=task.template_px,
        search_radius_px=(task.window_px - task.template_px) // 2,
        min_overlap=0.3,
        weights="box",
    )
    return np.vstack([peaks.offset, peaks.score]).T


def _patches(
    task: Task, jobs: NDArray[np.int32]
) -> list[tuple[NDArray[np.uint8], NDArray[np.uint8]]]:
    t, w = task.template_px, task.window_px
    return [
        (task.grey[a, y : y + w, x : x + w], task.grey[b, v : v + t, u : u + t])
        for a, y, x, b, v, u in jobs.tolist()
    ]


def by_opencv(task: Task, jobs: NDArray[np.int32]) -> Answers:
    """OpenCV's matchTemplate, TM_CCOEFF_NORMED, on 8 bits, which it is fastest on."""
    answers = []
    for window, template in _patches(task, jobs):
        surface = cv2.matchTemplate(window, template, cv2.TM_CCOEFF_NORMED)
        _, score, _, (x, y) = cv2.minMaxLoc(surface)
        answers.append((y, x, score))
    return np.array(answers)


def by_skimage(task: Task, jobs: NDArray[np.int32]) -> Answers:
    """scikit-image's match_template."""
    answers = []
    for window, template in _patches(task, jobs):
        surface = match_template(window, template)
        y, x = np.unravel_index(surface.argmax(), surface.shape)
        answers.append((y, x, surface[y, x]))
    return np.array(answers)


def by_scipy(task: Task, jobs: NDArray[np.int32]) -> Answers:
    """Batches of 16 through scipy.fft in float32, circular at the window's own fast size."""
    t, w = task.template_px, task.window_px
    k, size = w - t + 1, scipy.fft.next_fast_len(w, real=True)
    answers = []
    for first in range(0, len(jobs), 16):
        windows, templates = (
            np.stack(patches).astype(np.float32) - np.float32(128)
            for patches in zip(*_patches(task, jobs[first : first + 16]), strict=True)
        )
        templates -= templates.mean((1, 2), keepdims=True)
        spectra = scipy.fft.rfft2(windows, (size, size))
        spectra *= scipy.fft.rfft2(templates, (size, size)).conj()
        cross = scipy.fft.irfft2(spectra, (size, size))[:, :k, :k]
        sums, squares = (
            _box_sums(values, t) for values in (windows.astype(float), windows.astype(float) ** 2)
        )
        spread = np.sqrt(
            (squares - sums**2 / t**2) * np.square(templates).sum((1, 2))[:, None, None]
        )
        surfaces = (cross / spread).reshape(len(cross), -1)
        best = surfaces.argmax(1)
        answers += zip(*divmod(best, k), surfaces[np.arange(len(best)), best], strict=True)
    return np.array(answers)


def _box_sums(values: NDArray[np.float64], side: int) -> NDArray[np.float64]:
    integral = np.pad(values, ((0, 0), (1, 0), (1, 0))).cumsum(1).cumsum(2)
    edge = integral[:, side:] - integral[:, :-side]
    return edge[:, :, side:] - edge[:, :, :-side]


PEERS: dict[str, tuple[Callable[[Task, NDArray[np.int32]], Answers], float]] = {
    "OpenCV matchTemplate": (by_opencv, 0.5),
    "scipy.fft, batches of 16": (by_scipy, 0.125),
    "scikit-image match_template": (by_skimage, 0.03),
}
"""Each with the share of the jobs that is enough to time it."""


def in_threads(
    matcher: Callable[[Task, NDArray[np.int32]], Answers],
    task: Task,
    jobs: NDArray[np.int32],
    threads: int,
) -> Answers:
    """Let several Python threads do a part of the jobs each."""
    if threads == 1:
        return matcher(task, jobs)
    with ThreadPoolExecutor(threads) as pool:
        parts = [part for part in np.array_split(jobs, threads) if len(part)]
        return np.concatenate(list(pool.map(lambda part: matcher(task, part), parts)))


def assert_equal(ours: Answers, theirs: Answers) -> None:
    """Raise AssertionError unless all have the same best pixel and the same score within 1e-3."""
    known = np.isfinite(ours[:, 2])
    assert known.mean() > 0.95, f"the engine found {known.mean():.0%} of the matches"
    apart = np.abs(ours[known, :2] - theirs[known, :2]).max()
    assert apart <= 1, f"best places are {apart:.2f} px apart"
    worst = np.abs(ours[known, 2] - theirs[known, 2]).max()
    assert worst <= 1e-3, f"scores differ by {worst:.1e}"
