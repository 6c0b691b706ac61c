"""The soak: ``python -m tests.chaos.soak --minutes 30 --seed 1 --write`` (`make chaos`).

Runs of the DAG `align_volume`, several at a time, while parts of the platform are killed, frozen,
and starved, and S3 answers wrongly. Every run is then compared, byte by byte, with one of the same
settings that nothing happened to. Exits with 1 if one differs or did not end.
"""

from __future__ import annotations

import argparse
import json
import os
import pickle
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from alignment.platform.errors import PlatformError
from storage.errors import StorageError, UnavailableError
from tests.chaos.counting import read_starts
from tests.chaos.ground import Ground, ground, ground_of
from tests.chaos.injuries import Hand, Injury
from tests.chaos.judge import Verdict, judge, judge_unfinished
from tests.chaos.plan import schedule
from tests.chaos.runs import Run, Runs, abandon, make_golden
from tests.chaos.tally import Soak, figures, markdown, write
from tests.chaos.user import User

TICK_S, LOOK_S = 0.25, 3.0
AT_ONCE = 2
JUDGED_TIMES = 10
PATIENCE_S = 600.0
"""How long runs may take to end once there are no more faults."""


def main() -> None:
    """Soak, print the table, and write it if asked to."""
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m tests.chaos.soak")
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--every", type=float, default=8.0, help="s between two faults, on average")
    parser.add_argument("--patience", type=float, default=PATIENCE_S, help="s for runs to end")
    parser.add_argument("--attach", type=Path, help="the folder of a soak that was killed")
    parser.add_argument("--name", default="volume", help="of the volumes, other than of before")
    parser.add_argument("--log", type=Path, help="where each fault and run is noted, as JSON lines")
    parser.add_argument("--write", action="store_true", help="the table into docs/reliability.md")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by SIGTERM"))  # the platform as well
    with ground_of(options.attach) if options.attach else ground() as place:
        os.environ.update(place.platform.environment())
        soaking = Soaking(place, options.log, options.name)
        soak = soaking.run(options.seed, options.minutes * 60, options.every, options.patience)
    if options.log is not None:  # for another look, should the table be wrong
        options.log.with_suffix(".pickle").write_bytes(pickle.dumps(soak))
    for told in figures(soak):
        soaking.note("kind", asdict(told))
    text = markdown(soak)
    print(text)
    if options.write:
        write(text)
    sys.exit(0 if soak.is_good else 1)


class Soaking:
    """One soak under way."""

    def __init__(self, place: Ground, log: Path | None, name: str) -> None:
        self.place = place
        self.log = log
        self.hand = Hand(place.gate, place.disks)
        self.injuries: list[Injury] = []
        self.verdicts: dict[str, Verdict] = {}
        bucket = f"s3://{place.platform.bucket}"
        self.golden = make_golden(bucket)
        with place.platform.airflow() as airflow:
            abandon(airflow)
        self.runs = Runs(bucket, AT_ONCE, name=name)
        self.user = User(place.platform.config)

    def run(self, seed: int, seconds: float, every_s: float, patience_s: float) -> Soak:
        """Follow the schedule of a seed, then wait for the runs to end."""
        planned = schedule(seed, seconds, every_s)
        self.note("plan", {"seed": seed, "faults": len(planned), "seconds": seconds})
        looking = threading.Thread(target=self._look, daemon=True)
        self.stopped, self.more = threading.Event(), True
        looking.start()
        begin, missed = time.monotonic(), 0
        for fault in planned:
            while time.monotonic() < begin + fault.at_s:
                self.hand.tick()
                time.sleep(TICK_S)
            volumes = tuple(run.volume for run in self.runs.active)
            try:
                injury = self.hand.strike(fault, self.place.platform, volumes)
            except (LookupError, OSError, PlatformError) as error:
                missed += 1
                self.note("missed", {"kind": fault.kind, "why": str(error)})
                continue
            self.injuries.append(injury)
            self.note("fault", {k: v for k, v in asdict(injury).items() if k != "fault"})
        self.more = False
        deadline = time.monotonic() + patience_s
        while self.runs.active and time.monotonic() < deadline:
            self.hand.tick()
            time.sleep(TICK_S)
        self.hand.tick(everything=True)
        self.stopped.set()
        looking.join()
        unfinished = {run.volume: self._judged(run, judge_unfinished) for run in self.runs.active}
        return Soak(
            seed, seconds, self.injuries, missed, self.runs.all, self.verdicts,
            read_starts(self.place.folder), dict(self.place.gate.progress), self.user.acts,
            unfinished,
        )  # fmt: skip

    def _look(self) -> None:
        """Follow the runs, and do what a user would do; in a thread, since faults do not wait."""
        while not self.stopped.wait(LOOK_S):
            try:
                self.user.look()
                for run in self.runs.step(self.place.platform, more=self.more):
                    self._judge(run)
            except Exception as error:  # the soak goes on; the last word is the table's
                self.note("trouble", {"error": f"{type(error).__name__}: {error}"})

    def _judge(self, run: Run) -> None:
        verdict = self.verdicts[run.volume] = self._judged(run, judge)
        self.note("run", {**asdict(run), **asdict(verdict)})

    def _judged(self, run: Run, how: Callable[[str, str], Verdict]) -> Verdict:
        verdict = Verdict(False, ("it was not looked at",))
        for _ in range(JUDGED_TIMES):  # its S3 server may be down at this very moment
            try:
                return how(run.volume, self.golden[run.settings])
            except UnavailableError as error:
                verdict = Verdict(False, (f"cannot be read: {error}",))
                time.sleep(TICK_S)
            except (StorageError, ValueError) as error:  # said to be done, and is not there
                return Verdict(False, (f"{type(error).__name__}: {error}",))
        return verdict

    def note(self, what: str, document: dict[str, object]) -> None:
        """Add a line to the log."""
        line = json.dumps({"at": round(time.time(), 1), "what": what, **document}, default=str)
        print(line, flush=True)
        if self.log is not None:
            with self.log.open("a") as lines:
                lines.write(line + "\n")


if __name__ == "__main__":
    main()
