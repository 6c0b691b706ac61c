import cv2
import numpy as np

from alignment.optical_flow import smooth_flow


def test_a_smooth_known_motion_is_found():
    random = np.random.default_rng(0)
    noise = random.normal(size=(200, 220)).astype(np.float32)
    before = cv2.GaussianBlur(noise, (0, 0), 2)
    rows, columns = np.indices(before.shape, np.float32)
    dy, dx = 1.2 + 0.8 * np.sin(columns / 60), -0.7 + 0 * rows
    # after[p] = before[p - d]: what `before` shows at p, `after` shows at p + d (nearly).
    after = cv2.remap(before, columns - dx, rows - dy, cv2.INTER_CUBIC)
    flow = smooth_flow(before, after, window_px=12)
    inner = (slice(25, -25), slice(25, -25))
    assert np.abs(flow[0][inner] - dy[inner]).max() < 0.25
    assert np.abs(flow[1][inner] - dx[inner]).max() < 0.15


def test_featureless_pictures_do_not_move():
    flat = np.zeros((40, 50), np.float32)
    np.testing.assert_array_equal(smooth_flow(flat, flat, window_px=8), 0)
