"""The demo: platform up, sections into S3, `align_volume` through Airflow, then where to look."""

from __future__ import annotations

import os
import time
from pathlib import Path

from alignment.commands.console import StageDisplay, counter, err, out
from alignment.commands.convert import convert
from alignment.commands.follow import follow_dag_run, trigger
from alignment.commands.platform import start
from alignment.commands.sample import write_phantom
from alignment.commands.summary import print_result
from alignment.config import PipelineConfig
from alignment.phantom import PhantomConfig
from alignment.platform.environment import lend_connection
from alignment.platform.lifecycle import PlatformInfo
from alignment.runs import load
from alignment.viewer import data_url
from storage.store import exists, join, read_bytes


def demo(data: str | None, config: PipelineConfig) -> None:
    """Run the whole way of the data once, through the real parts, and say where to look.

    Parameters
    ----------
    data : str, optional
        A stack of the user's own; without it a phantom of neuropil, whose truth is known.
    config : PipelineConfig
        The settings of the run.
    """
    begun = time.monotonic()
    err.print("[bold]1[/] the platform: S3 server, Dask, Airflow")
    platform = start()
    lend_connection(os.environ, platform.config)
    name = Path(data).resolve().name.split(".")[0] if data else "phantom"
    if data and name in ("raw", "data"):
        name = Path(data).resolve().parent.name
    root = f"s3://{platform.bucket}/demo/{name.lower()}"
    source, volume = f"{root}/raw", f"{root}/aligned"
    err.print(f"[bold]2[/] unaligned sections into {source}")
    with counter("upload") as tick:
        if data:
            convert(data, source, tell=tick)
        elif not exists(join(source, "truth", "tissue", "zarr.json")):
            write_phantom(source, PhantomConfig(), tell=tick)
    err.print("[bold]3[/] DAG align_volume, triggered through Airflow's REST API")
    started = trigger(source, volume, config)
    err.print(f"  {started.url}")
    with StageDisplay() as display:
        run_uri = follow_dag_run(started, tell=display.tell)
    print_result(run_uri, as_json=False)
    _show_places(platform, run_uri)
    out.print(f"finished in {time.monotonic() - begun:.0f} s; `petalign down` stops the platform")


def _show_places(platform: PlatformInfo, run_uri: str) -> None:
    run = load(run_uri)
    copy = platform.home / "reports" / f"{run.key}.html"
    copy.parent.mkdir(exist_ok=True)
    copy.write_bytes(read_bytes(join(run_uri, "report.html")))
    out.print(f"report, a copy  {copy.as_uri()}")
    out.print(f"viewer          petalign view {run.volume_uri}")
    out.print(f"zarr over http  {data_url(run.volume_uri, environment=os.environ)}")
    out.print(f"airflow         {platform.airflow_url}")
