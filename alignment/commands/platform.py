"""What `petalign up`, `down`, `doctor` and `view` print; the work is in `alignment.platform`."""

from __future__ import annotations

import os
import time

from rich.table import Table

from alignment.commands.console import err, out, print_json
from alignment.platform.config import platform_config
from alignment.platform.doctor import doctor as examine_platform
from alignment.platform.lifecycle import PlatformInfo, up
from alignment.platform.lifecycle import down as stop_platform

STYLES = {"ok": "green", "warn": "yellow", "fail": "bold red"}


def start(*, as_json: bool = False) -> PlatformInfo:
    """Bring the platform up, telling of each service, and print where its parts are."""
    begun = time.monotonic()
    platform = up(platform_config(os.environ), _tell)
    secrets = platform.credentials()
    places = {
        "s3": f"{platform.s3_endpoint}/{platform.bucket}",
        "dask": platform.dask_address,
        "dask_dashboard": platform.dask_dashboard_url,
        "airflow": platform.airflow_url,
        "airflow_user": secrets.airflow_user,
        "home": str(platform.home),
    }
    if as_json:
        print_json(places)
        return platform
    out.print(f"the platform is up ({time.monotonic() - begun:.0f} s)")
    for name, place in places.items():
        out.print(f"  {name.replace('_', ' '):<15} {place}")
    out.print(f"  {'password':<15} in {platform.home / 'credentials.json'}")
    return platform


def _tell(title: str, status: str) -> None:
    if status != "waiting":
        err.print(f"  {title:<24} {status}")


def stop() -> None:
    """Stop the platform and print what was stopped."""
    stopped = stop_platform(platform_config(os.environ))
    out.print(f"stopped: {', '.join(stopped)}" if stopped else "the platform was not up")


def examine(*, as_json: bool = False) -> bool:
    """Print what each part is and what to do; return whether nothing fails."""
    findings = examine_platform(platform_config(os.environ))
    if as_json:
        print_json([vars(finding) for finding in findings])
    else:
        table = Table(box=None, pad_edge=False, show_header=False)
        for finding in findings:
            style = STYLES[finding.status]
            found = (
                f"{finding.found}\n[dim]{finding.advice}[/]" if finding.advice else finding.found
            )
            table.add_row(f"[{style}]{finding.status}[/]", finding.name, found)
        out.print(table)
    return all(finding.status != "fail" for finding in findings)


def view(uri: str, *, port: int) -> None:
    """Serve a viewer of the volume until interrupted."""
    from alignment.viewer import serve

    with serve(uri, environment=os.environ, port=port) as url:
        out.print(f"viewer          {url}\n(Ctrl-C ends it)")
        try:
            while True:
                time.sleep(3600)
        except KeyboardInterrupt:
            out.print("viewer closed")
