"""A service under stress: many threads, an artifact replaced every moment, a log that stalls."""

import shutil
import threading
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from router import DecisionLog, LogCounts, Policy, Router
from tests.builders import make_artifact

NAMES = ("small", "middle", "large")


@dataclass(frozen=True, slots=True)
class Churned:
    """What came of it.

    Attributes:
        decisions: made.
        raised: exceptions out of `route`.
        torn: decisions whose tier is not of the artifact that they name.
        reasons: how many decisions for which reason.
        swapped, refused: by the watcher; every fifth artifact put there is a damaged one.
        counts: of the log, at the end.
        slowest: microseconds.
    """

    decisions: int
    raised: int
    torn: int
    reasons: Counter[str]
    swapped: int
    refused: int
    counts: LogCounts
    slowest: float


def churn(folder: Path, seconds: float, every: float, threads: int = 32) -> Churned:
    """Route for `seconds` in many threads while an artifact is put in place `every` so often."""
    makes = [make_artifact(folder / name, Policy(0.0, constant=k)) for k, name in enumerate(NAMES)]
    versions = [Router.load(path).artifact.version for path in makes]
    belongs = dict(zip(versions, NAMES, strict=True))
    current = make_artifact(folder / "current", Policy(0.0, constant=0))
    belongs[Router.load(current).artifact.version] = "small"
    stalled, stop = threading.Event(), threading.Event()

    def sink(_: dict[str, Any]) -> None:
        if stalled.is_set():
            stop.wait(0.3)  # far slower than decisions come

    log = DecisionLog(sink, capacity=500)
    router = Router.load(current, log=log).watch(seconds=every / 5)
    tallies = [_Tally() for _ in range(threads)]
    workers = [
        threading.Thread(target=_ask, args=(router, belongs, tally, stop, i))
        for i, tally in enumerate(tallies)
    ]
    for worker in workers:
        worker.start()
    until, number = time.monotonic() + seconds, 0
    while time.monotonic() < until:
        time.sleep(every)
        number += 1
        (stalled.set if number % 2 else stalled.clear)()
        _replace(current, makes, number)
    stop.set()
    for worker in workers:
        worker.join()
    assert router.watcher is not None
    router.close()
    return Churned(
        decisions=sum(tally.decisions for tally in tallies),
        raised=sum(tally.raised for tally in tallies),
        torn=sum(tally.torn for tally in tallies),
        reasons=sum((tally.reasons for tally in tallies), Counter()),
        swapped=router.watcher.swapped,
        refused=router.watcher.refused,
        counts=log.counts,
        slowest=max(tally.slowest for tally in tallies),
    )


class _Tally:
    """One thread's counts, so that no lock holds the others up."""

    def __init__(self) -> None:
        self.decisions = self.raised = self.torn = 0
        self.reasons: Counter[str] = Counter()
        self.slowest = 0.0


def _ask(
    router: Router, belongs: dict[str, str], tally: _Tally, stop: threading.Event, who: int
) -> None:
    turn = 0
    while not stop.is_set():
        turn += 1
        try:
            decision = router.route(f"what is {turn} to {who}?", session=f"s{who}")
        except BaseException:
            tally.raised += 1
            continue
        tally.decisions += 1
        tally.torn += belongs[decision.router_version] != decision.tier
        tally.reasons[decision.reason] += 1
        tally.slowest = max(tally.slowest, decision.latency_us)


def _replace(current: Path, makes: list[Path], number: int) -> None:
    """Put another artifact there by two renames; every fifth is damaged."""
    new, old = current.with_name(".new"), current.with_name(".old")
    shutil.copytree(makes[number % 3], new)
    if number % 5 == 0:
        raw = (new / "heads.npz").read_bytes()
        (new / "heads.npz").write_bytes(raw[:-1] + bytes([raw[-1] ^ 1]))
    current.rename(old)
    new.rename(current)
    shutil.rmtree(old)
