"""Airflow tasks that bring sections in and look for damage; their driving is in `errands`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.sdk.exceptions import AirflowSkipException

from petalign_airflow.errands import ErrandOperator

if TYPE_CHECKING:
    from airflow.sdk import Context

LINES = 1_000
"""Findings that the log shows; the result, whose URI it names, has all."""


class VerifyOperator(ErrandOperator):
    """Check a volume against its records; red if something is damaged and was not mended."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(
            errand="verify",
            about="volume",
            places=("volume",),
            settings=("full", "every_run", "repair"),
            **kwargs,
        )

    def finish(self, context: Context, found: dict[str, Any]) -> Any:
        """Return counts; the log has the rest."""
        self.tell(found)
        checked, mended = found["checked"], found["mended"] or {"units": []}
        return {
            "objects": checked["objects"],
            "bytes": checked["bytes"],
            "damaged": len(checked["problems"]),
            "mended_units": len(mended["units"]),
        }

    def tell(self, found: dict[str, Any]) -> None:
        """List the damaged objects, and what became of them."""
        for phase in ("checked", "after"):
            report = found.get(phase)
            if report:
                how = "read and hashed" if report["full"] else "listed"
                self.log.info(
                    "%s: %d runs, %d objects, %.3f GB %s, %d damaged",
                    phase,
                    len(report["runs"]),
                    report["objects"],
                    report["bytes"] / 1e9,
                    how,
                    len(report["problems"]),
                )
                for problem in report["problems"][:LINES]:
                    self.log.warning("damaged: %s", problem)
        for unit in (found.get("mended") or {}).get("units", [])[:LINES]:
            self.log.info("computed again: %s", unit)
        for fault in (found.get("mended") or {}).get("failed", [])[:LINES]:
            self.log.error("not mended: %s", fault)


class IngestOperator(ErrandOperator):
    """Bring section images into a source volume; skipped, with all behind it, if none are new."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(
            errand="ingest",
            about="source",
            places=("incoming", "source"),
            settings=("pad", "resolution_nm"),
            **kwargs,
        )

    def finish(self, context: Context, found: dict[str, Any]) -> Any:
        """Return counts and give them to the asset, so that what follows on it knows."""
        self.tell(found)
        counts = {kind: len(found[kind]) for kind in ("new", "replaced")}
        if not any(counts.values()):
            raise AirflowSkipException(f"no new images; {found['unchanged']} are known already")
        for asset in self.outlets:
            context["outlet_events"][asset].extra = {**counts, "sections": found["sections"]}
        return {**counts, "unchanged": found["unchanged"], "sections": found["sections"]}

    def tell(self, found: dict[str, Any]) -> None:
        """List what was brought in, or everything that is wrong with it."""
        for fault in found.get("faults", [])[:LINES]:
            self.log.error("refused: %s", fault)
        for kind in ("new", "replaced"):
            for name in found.get(kind, [])[:LINES]:
                self.log.info("%s section: %s", kind, name)
