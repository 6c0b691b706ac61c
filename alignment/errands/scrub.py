"""Look through a volume for damage that nobody has met yet, and mend it if that is wanted."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from alignment.blockwise import Client
from alignment.errands.drive import Finding
from alignment.errands.progress import Progress
from alignment.stages.repair import repair
from storage.commit.verify import Report, verify_volume
from storage.store import normalise_uri

log = logging.getLogger(__name__)

SHOWN = 5
"""Problems that the message names; the result names all."""


def verify(arguments: Mapping[str, Any], client: Client, progress: Progress) -> dict[str, Any]:
    """Check a volume, mend it if ``repair``, and return what was found.

    Parameters
    ----------
    arguments : mapping
        ``volume``; ``full`` (every byte, not only sizes), ``every_run`` (unpublished ones too),
        ``repair``.

    Raises
    ------
    Finding
        If something is damaged, and still is after mending.
    """
    volume = normalise_uri(arguments["volume"])
    report = _check(volume, arguments, progress, "checking")
    found: dict[str, Any] = {"checked": _told(report), "mended": None, "after": None}
    if report.problems and arguments.get("repair"):
        progress.tell(0, len(report.problems), "mending")
        mended = repair(report, client, tell=log.info)
        report = _check(volume, arguments, progress, "checking again")
        found |= {"mended": asdict(mended), "after": _told(report)}
    if report.problems:
        raise Finding(_words(report, repaired=found["mended"] is not None), found)
    return found


def _check(volume: str, arguments: Mapping[str, Any], progress: Progress, phase: str) -> Report:
    return verify_volume(
        volume,
        full=bool(arguments.get("full")),
        runs="all" if arguments.get("every_run") else "published",
        tell=lambda done, total: progress.tell(done, total, phase),
    )


def _told(report: Report) -> dict[str, Any]:
    return {
        "runs": list(report.runs),
        "objects": report.objects,
        "bytes": report.bytes,
        "full": report.full,
        "problems": [str(problem) for problem in report.problems],
    }


def _words(report: Report, *, repaired: bool) -> str:
    n = len(report.problems)
    shown = "; ".join(str(problem) for problem in report.problems[:SHOWN])
    more = f"; and {n - SHOWN} more" if n > SHOWN else ""
    advice = (
        "mending did not help: see 'mended.failed' in the result"
        if repaired
        else "mend it with `petalign repair`, or trigger this again with repair set"
    )
    return f"{report.volume_uri} has {n} damaged objects: {shown}{more}. {advice}"
