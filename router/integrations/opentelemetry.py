"""Metrics of a router for OpenTelemetry.

| instrument | unit | attributes |
|---|---|---|
| `suffice.decisions`, a counter | `{decision}` | `suffice.tier`, `suffice.reason` |
| `suffice.route.duration`, a histogram | `s` | |
| `suffice.artifact.loads`, a counter | `{artifact}` | `suffice.outcome`: swapped, refused |
| `suffice.log.lines`, a counter | `{line}` | `suffice.outcome`: written, dropped, failed |
"""

import weakref
from collections.abc import Iterable
from typing import Final

from router.decision import Decision
from router.integrations import extra
from router.service import Router

with extra("opentelemetry"):
    from opentelemetry import metrics
    from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation

BUCKETS: Final = (5e-5, 1e-4, 2e-4, 3e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 0.1, 0.5)


def instrument(router: Router, provider: MeterProvider | None = None) -> None:
    """Count a router's decisions, loads and log lines, and time its decisions.

    Args:
        router: may be instrumented once for each provider.
        provider: by default the global one.
    """
    meter = metrics.get_meter("suffice", meter_provider=provider)
    decisions = meter.create_counter("suffice.decisions", "{decision}", "Decisions made")
    duration = meter.create_histogram(
        "suffice.route.duration",
        "s",
        "Time to a decision",
        explicit_bucket_boundaries_advisory=BUCKETS,
    )
    reference = weakref.ref(router)

    def count(decision: Decision) -> None:
        decisions.add(1, {"suffice.tier": decision.tier, "suffice.reason": decision.reason})
        duration.record(decision.latency_us / 1e6)

    def loads(_: CallbackOptions) -> Iterable[Observation]:
        watched = (served := reference()) and served.watcher
        if watched:
            for outcome in ("swapped", "refused"):
                yield Observation(getattr(watched, outcome), {"suffice.outcome": outcome})

    def lines(_: CallbackOptions) -> Iterable[Observation]:
        log = (served := reference()) and served.log
        if log:
            counts = log.counts
            for outcome in ("written", "dropped", "failed"):
                yield Observation(getattr(counts, outcome), {"suffice.outcome": outcome})

    meter.create_observable_counter("suffice.artifact.loads", [loads], "{artifact}")
    meter.create_observable_counter("suffice.log.lines", [lines], "{line}")
    router.observe(count)
