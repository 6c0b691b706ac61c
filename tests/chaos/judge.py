"""Is a run what it would have been without faults?"""

from __future__ import annotations

from dataclasses import dataclass

from storage import store
from storage.commit import manifest, records
from storage.commit.verify import check_object, verify_volume
from storage.errors import MissingError
from storage.publish import versions


@dataclass(frozen=True)
class Verdict:
    """What was found in a volume whose run is said to be done."""

    is_identical: bool
    findings: tuple[str, ...] = ()
    units: int = 0


def run_uri_of(volume_uri: str) -> str:
    """Return the URI of the one run of a volume."""
    keys = store.list_names(store.join(volume_uri, "runs"))
    if len(keys) != 1:
        raise MissingError(f"{volume_uri} has the runs {keys}, expected one")
    (key,) = keys
    return store.join(volume_uri, "runs", key)


def root_of(volume_uri: str) -> str:
    """Return the digest of all objects and records of a volume's run: equal roots, equal runs."""
    return manifest.run_root(run_uri_of(volume_uri))


def judge(volume_uri: str, golden_uri: str) -> Verdict:
    """Compare a volume with the one of the same settings that nothing happened to.

    I1, I3, I4, I5 are `verify_volume`'s, which reads every byte; I2 is that the roots are equal,
    which cover the digest of every object by its path.
    """
    findings = [str(problem) for problem in verify_volume(volume_uri, full=True).problems]
    run_uri, golden_run = run_uri_of(volume_uri), run_uri_of(golden_uri)
    stages, expected = (manifest.sealed_stages(uri) for uri in (run_uri, golden_run))
    findings += [f"stage {name} is not sealed" for name in sorted(expected - stages)]
    for stage in sorted(expected & stages):
        ours, theirs = (manifest.read_seal(uri, stage).root for uri in (run_uri, golden_run))
        if ours != theirs:
            findings.append(f"stage {stage} has the root {ours[:16]}, undisturbed {theirs[:16]}")
    epochs = [version.epoch for version in versions(volume_uri)]
    if epochs != [1]:
        findings.append(f"the volume has the epochs {epochs}, expected one publication")
    units = sum(manifest.read_seal(run_uri, stage).units for stage in stages)
    return Verdict(not findings, tuple(findings), units)


def judge_unfinished(volume_uri: str, golden_uri: str) -> Verdict:
    """Compare what a run that did not end has recorded so far, unit by unit, byte by byte."""
    run_uri, golden_run = run_uri_of(volume_uri), run_uri_of(golden_uri)
    findings, units = [], 0
    below = store.join(run_uri, records.FOLDER)
    for stage in store.list_names(below):
        for phase in store.list_names(store.join(below, stage)):
            ours = records.read_commits(run_uri, stage, phase)
            theirs = records.read_commits(golden_run, stage, phase)
            units += len(ours)
            for unit, commit in ours.items():
                if commit != theirs.get(unit):
                    findings.append(f"{stage}/{phase}/{unit} has another record")
                problems = [check_object(run_uri, stored) for stored in commit.objects]
                findings += [str(problem) for problem in problems if problem is not None]
    return Verdict(not findings, tuple(findings), units)
