"""Time of the paired bootstrap: 14,042 requests, all metrics, 1,000 resamples (limit: 10 s).

All metrics: of five curves, of the fixed choices, of both tiers' calibration, the dial's bands,
and 118 slices.

Run with: OMP_NUM_THREADS=1 pytest tests/benchmarks/bench_metrics.py -m benchmark -s
"""

from time import process_time

import numpy as np
import pytest

from training.measure.curve import oracle_walk, order_walk, policy_walk
from training.measure.dial import positions
from training.measure.intervals import bootstrap
from training.measure.metrics import curve_metrics, policy_metrics, random_metrics, states
from training.measure.reliability import reliability_metrics
from training.measure.rows import Rows
from training.measure.slice_report import slice_metrics
from training.measure.slices import Slice


@pytest.mark.benchmark
def test_the_bootstrap_of_a_report() -> None:
    n, resamples = 14_042, 1_000
    rng = np.random.default_rng(0)
    hard = rng.random(n)
    truth = np.column_stack([0.85 - 0.5 * hard, 0.9 - 0.2 * hard])
    quality = (rng.random((n, 2)) < truth).astype(float)
    cost = np.column_stack([rng.random(n) * 1e-4, 1e-3 + rng.random(n) * 4e-3])
    p = np.clip(truth + rng.normal(0, 0.1, (n, 2)), 0, 1)
    ours = policy_walk(p, cost)
    walks = {
        "router": ours,
        "kNN": order_walk(truth[:, 1] - truth[:, 0] + rng.normal(0, 0.2, n)),
        "logistic regression": order_walk(truth[:, 1] - truth[:, 0] + rng.normal(0, 0.3, n)),
        "prompt length": order_walk(np.round(rng.random(n) * 500)),
        "oracle": oracle_walk(quality, cost),
    }
    chosen = ours.tiers_at(n // 2)
    estimators = {name: curve_metrics(walk, quality, cost) for name, walk in walks.items()}
    estimators["random"] = random_metrics(quality, cost)
    estimators["chosen policy"] = policy_metrics(chosen, quality, cost)
    for tier in range(2):
        estimators[f"tier {tier}"] = reliability_metrics(p[:, tier], quality[:, tier])
    values = {"source": 57, "hour (UTC)": 24, "length": 7, "language": 8, "turns": 5, "tag": 17}
    slices = tuple(
        Slice(kind, str(name), np.flatnonzero(of == name))
        for kind, count in values.items()
        for of in [rng.integers(count, size=n)]
        for name in range(count)
    )
    rows = Rows(
        names=("small", "large"),
        p=p,
        usd=cost,
        score=quality,
        paid=cost,
        sufficed=quality >= 0.5,
        session=np.arange(n),
        characters=np.ones(n),
        baselines={},
        slices=slices,
    )
    estimators["slices"] = slice_metrics(rows, chosen)
    estimators["dial"] = states(ours, quality, cost, positions(ours, None))
    started = process_time()
    drawn = bootstrap(estimators, n, resamples=resamples)
    seconds = process_time() - started
    metrics = sum(len(found) for found in drawn.value.values())
    told = f"{metrics} metrics of {len(estimators)} methods, {n:,} requests"
    print(f"\n{told} × {resamples:,} resamples")
    print(f"{seconds:.1f} s of one core (limit 10 s)")
    gap = drawn.difference("apgr", "router", "kNN")
    assert gap.low < gap.value < gap.high
