"""The platform that a soak strikes: on disks of its own, its S3 server behind the proxy."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from alignment.platform.config import PlatformConfig, checkout
from alignment.platform.lifecycle import PlatformInfo, down, up
from alignment.platform.state import Home, read_state
from tests.chaos.gate import Gate
from tests.chaos.injuries import WORKER_TTL_S
from tests.platform.conftest import free_ports

SITE = Path(__file__).parent / "site"
DISKS = {"S3 server": ("s3", "1g"), "all else": (".", "2g")}
"""Folder below the home, and size of the disk that is mounted there."""
PORT = "proxy-port"


@dataclass(frozen=True)
class Ground:
    """A platform, and what stands around it."""

    platform: PlatformInfo
    gate: Gate
    folder: Path
    """Of notes about the soak, on no disk that is filled."""
    disks: dict[str, Path]


@contextmanager
def ground(*, clock_s: float = 0.0, dags: tuple[str, ...] = ("align_volume",)) -> Iterator[Ground]:
    """Bring a platform up and give it; take it down afterwards, and its disks away."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="petalign-chaos-")))
        home = folder / "home"
        disks = stack.enter_context(_disks(home))
        (folder / "dags").mkdir()
        root = checkout()
        for dag in dags:
            file = f"{dag}.py"
            (folder / "dags" / file).symlink_to((root or Path.cwd()) / "dags" / file)
        random.seed()
        config = PlatformConfig(
            home=home, dags_folder=folder / "dags", dask_workers=2, worker_memory_gib=2,
            **free_ports(),
        )  # fmt: skip
        gate = stack.enter_context(Gate(config.s3_endpoint))
        (folder / PORT).write_text(gate.endpoint.rpartition(":")[2])
        stack.enter_context(_environment(gate, folder, clock_s))
        stack.callback(down, config)
        yield Ground(up(config, timeout_s=600), gate, folder, disks)


@contextmanager
def ground_of(folder: Path) -> Iterator[Ground]:
    """Give the platform of a soak that was killed, with a new proxy in the place of the old."""
    with ExitStack() as stack:
        home = folder / "home"
        state = read_state(Home(home))
        if state is None:
            raise SystemExit(f"no platform was left in {folder}")
        port = int((folder / PORT).read_text())
        gate = stack.enter_context(Gate(state.config.s3_endpoint, port))
        disks = {name: home / below for name, (below, _) in DISKS.items()}
        disks = {name: place for name, place in disks.items() if place.is_mount()}
        stack.enter_context(_environment(gate, folder, 0.0))
        stack.callback(_remove, folder, disks)
        stack.callback(down, state.config)
        yield Ground(up(state.config, timeout_s=600), gate, folder, disks)


def _remove(folder: Path, disks: dict[str, Path]) -> None:
    for name in ("S3 server", "all else"):
        if name in disks:
            subprocess.run(("umount", "-l", str(disks[name])), check=False)
    shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _environment(gate: Gate, folder: Path, clock_s: float) -> Iterator[None]:
    bytecode = Path(tempfile.gettempdir()) / "petalign-chaos-bytecode"
    wanted = {
        "CHAOS_UPSTREAM": f"http://127.0.0.1:{gate.upstream.port}",
        "CHAOS_ENDPOINT": gate.endpoint,
        "CHAOS_WORKER_TTL": f"{WORKER_TTL_S:g}s",
        "CHAOS_FOLDER": str(folder),
        "CHAOS_CLOCK_S": f"{clock_s:g}" if clock_s else "",
        "PYTHONPATH": os.pathsep.join([str(SITE), os.environ.get("PYTHONPATH", "")]),
        # Airflow compiled anew would double the time until it is ready, at every start.
        "PYTHONPYCACHEPREFIX": str(bytecode),
    }
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value


@contextmanager
def _disks(home: Path) -> Iterator[dict[str, Path]]:
    """Mount small disks in memory, which only root may; without, none can be filled."""
    found: dict[str, Path] = {}
    home.mkdir(mode=0o700)
    try:
        for name in ("all else", "S3 server"):
            below, size = DISKS[name]
            place = home / below
            place.mkdir(exist_ok=True, mode=0o700)
            command = (
                "mount",
                "-t",
                "tmpfs",
                "-o",
                f"size={size},mode=700",
                "petalign",
                str(place),
            )
            if subprocess.run(command, capture_output=True).returncode == 0:
                found[name] = place
        yield found
    finally:
        for name in ("S3 server", "all else"):
            if name in found:
                with suppress(OSError):
                    subprocess.run(("umount", "-l", str(found[name])), check=False)
