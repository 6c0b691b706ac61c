"""Synchronous stochastic gradient descent, by one process or several that share each batch.

Each step has 8 parts. A process computes the gradients of its share of them, the chief adds all 8
up in one order and hands the sum back: so the weights are the same, bit for bit, whether 1, 2, 4 or
8 processes work. The chief saves the weights every 50 steps where the next start finds them.
"""

import argparse
import io
import json
import os
import time
from multiprocessing.connection import Client, Connection, Listener
from pathlib import Path

import numpy as np

from storage.store import exists, join, read_bytes, replace_bytes

PARTS, PART, FEATURES, SAVE = 8, 32, 24, 50
RANK, WORLD = int(os.environ["PETALIGN_RANK"]), int(os.environ["PETALIGN_WORLD"])
CHECKPOINT = join(os.environ["PETALIGN_SHARED"], "checkpoint.npz")
KEY = os.environ["PETALIGN_RECIPE"].encode()
PATIENCE_S = 60.0


def batch(step: int, part: int) -> tuple[np.ndarray, np.ndarray]:
    """Return inputs and labels of a part of a step's batch; made up, as if read from disk."""
    draw = np.random.default_rng((step, part))
    inputs = draw.normal(size=(PART, FEATURES))
    truth = np.linspace(-1, 1, FEATURES)
    return inputs, (inputs @ truth + draw.normal(size=PART) > 0).astype(float)


def gradient(weights: np.ndarray, step: int, part: int) -> np.ndarray:
    """Return the gradient of the logistic loss over a part, and the loss itself at the end."""
    inputs, labels = batch(step, part)
    odds = 1 / (1 + np.exp(-(inputs @ weights)))
    loss = -np.mean(np.log(np.where(labels > 0, odds, 1 - odds) + 1e-12))
    return np.append(inputs.T @ (odds - labels) / PART, loss)


def connect() -> list[Connection]:
    """Return the chief's connections to all others, in the order of ranks; else that to it."""
    if WORLD == 1:
        return []
    host, _, port = os.environ["PETALIGN_CHIEF"].rpartition(":")
    if RANK == 0:
        with Listener((host, int(port)), authkey=KEY) as listener:
            found = dict(hello(listener.accept()) for _ in range(WORLD - 1))
        return [found[rank] for rank in range(1, WORLD)]
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            chief = Client((host, int(port)), authkey=KEY)
        except ConnectionRefusedError:  # it does not listen yet
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
        else:
            chief.send_bytes(RANK.to_bytes(4))
            return [chief]


def hello(connection: Connection) -> tuple[int, Connection]:
    """Return which process has connected."""
    return int.from_bytes(connection.recv_bytes()), connection


def all_reduce(own: np.ndarray, peers: list[Connection]) -> np.ndarray:
    """Return the mean over all parts, from this process's rows and those of all others."""
    if RANK != 0:
        peers[0].send_bytes(own.tobytes())
        return np.frombuffer(peers[0].recv_bytes())
    rows = [own] + [np.frombuffer(peer.recv_bytes()).reshape(-1, FEATURES + 1) for peer in peers]
    total = np.concatenate(rows).sum(axis=0) / PARTS
    for peer in peers:
        peer.send_bytes(total.tobytes())
    return total


def main() -> None:
    """Train."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--rate", type=float, required=True)
    parser.add_argument("--pause", type=float, default=0.0, help="s a step, as if it took long")
    given = parser.parse_args()
    if PARTS % WORLD:
        raise SystemExit(f"{PARTS} parts cannot be shared by {WORLD} processes; use 1, 2, 4 or 8")
    peers = connect()
    first, weights = 0, np.zeros(FEATURES)
    if exists(CHECKPOINT):
        saved = np.load(io.BytesIO(read_bytes(CHECKPOINT)), allow_pickle=False)
        first, weights = int(saved["step"]), saved["weights"]
    print(f"process {RANK} of {WORLD} begins at step {first}")
    share = range(RANK * PARTS // WORLD, (RANK + 1) * PARTS // WORLD)
    loss = 0.0
    for step in range(first, given.steps):
        total = all_reduce(np.stack([gradient(weights, step, part) for part in share]), peers)
        weights, loss = weights - given.rate * total[:-1], float(total[-1])
        time.sleep(given.pause)
        if RANK == 0 and (step + 1) % SAVE == 0:
            print(f"step {step + 1}: loss {loss:.4f}")
            data = io.BytesIO()
            np.savez(data, step=step + 1, weights=weights)
            replace_bytes(CHECKPOINT, data.getvalue())
    if RANK == 0:
        np.save("out/weights.npy", weights)
        figures = {"loss": loss, "first_step": first, "processes": WORLD}
        Path("result.json").write_text(json.dumps(figures))


if __name__ == "__main__":
    main()
