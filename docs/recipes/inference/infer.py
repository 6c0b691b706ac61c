"""Three steps of batch inference: write images, run a small network over each shard, check."""

import argparse
import hashlib

import numpy as np
from volume import GRID, SHAPE, box, create, image, open_array, save

HALO = 4
"""Each of the two layers looks 2 px beyond its output."""


def weights() -> list[np.ndarray]:
    """Return the network: two layers of 5 x 5 kernels; a trained one would be read from a file."""
    draw = np.random.default_rng(0)
    return [draw.normal(0, 0.2, (5, 5)).astype(np.float32) for _ in range(2)]


def network(patch: np.ndarray) -> np.ndarray:
    """Return probabilities (uint8) for a patch; HALO px smaller on each side."""
    values = patch.astype(np.float32) / 255 - 0.5
    for kernel in weights():
        windows = np.lib.stride_tricks.sliding_window_view(values, kernel.shape)
        values = np.tanh(np.einsum("yxij,ij->yx", windows, kernel))
    return np.rint(127.5 * (values + 1)).astype(np.uint8)


def padded(z: int, y: slice, x: slice) -> np.ndarray:
    """Return a shard's image with a margin, mirrored where the volume ends."""
    source = open_array("images")
    wanted = [(s.start - HALO, s.stop + HALO) for s in (y, x)]
    inside = [(max(a, 0), min(b, n)) for (a, b), n in zip(wanted, SHAPE[1:], strict=True)]
    (y0, y1), (x0, x1) = inside
    margins = [(i - a, b - j) for (a, b), (i, j) in zip(wanted, inside, strict=True)]
    return np.pad(np.asarray(source[z, y0:y1, x0:x1]), margins, mode="symmetric")


def infer(shard: int) -> None:
    """Predict one shard and write it, once."""
    z, y, x = box(shard)
    found = network(padded(z.start, y, x))
    open_array("probabilities", write=True)[z, y, x] = found[None]
    save({"shard": shard, "mean": float(found.mean())})


def check() -> None:
    """Compare the volume with what the network says about whole sections."""
    found = np.asarray(open_array("probabilities")[:])
    whole = [network(np.pad(image(z), HALO, mode="symmetric")) for z in range(SHAPE[0])]
    differing = int(np.count_nonzero(found != np.stack(whole)))
    if differing:
        raise SystemExit(f"{differing} voxels differ from a prediction in one piece")
    digest = hashlib.sha256(found.tobytes()).hexdigest()
    print(f"{found.size} voxels as in one piece, sha256 {digest[:16]}")
    save({"voxels": found.size, "differing": differing, "sha256": digest})


def main() -> None:
    """Run one step."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("step", choices=["images", "infer", "check"])
    parser.add_argument("--shard", type=int, default=0, help=f"of {np.prod(GRID)}")
    given = parser.parse_args()
    if given.step == "images":
        create("images", "uint8")[:] = np.stack([image(z) for z in range(SHAPE[0])])
        create("probabilities", "uint8")
    elif given.step == "infer":
        infer(given.shard)
    else:
        check()


if __name__ == "__main__":
    main()
