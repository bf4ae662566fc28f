"""Time of the paired bootstrap: 14,042 requests, all metrics, 1,000 resamples (limit: 10 s).

All metrics: of five curves, of the fixed choices, of both tiers' calibration, the dial's bands,
and 118 slices.

OMP_NUM_THREADS=1 python tests/benchmarks/bench_metrics.py
"""

from time import process_time

import numpy as np

from training.measure.curve import oracle_walk, order_walk, policy_walk
from training.measure.dial import positions
from training.measure.intervals import bootstrap
from training.measure.metrics import curve_metrics, policy_metrics, random_metrics, states
from training.measure.reliability import reliability_metrics
from training.measure.slice_report import slice_metrics
from training.measure.slices import Slice


def main(n: int = 14_042, resamples: int = 1_000) -> float:
    """Print and return the seconds of one core that one report's bootstrap takes."""
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
    slices = [
        Slice(kind, str(name), np.flatnonzero(of == name))
        for kind, count in values.items()
        for of in [rng.integers(count, size=n)]
        for name in range(count)
    ]
    estimators["slices"] = slice_metrics(slices, chosen, p, quality, cost, quality >= 0.5)
    estimators["dial"] = states(ours, quality, cost, positions(ours, None))
    started = process_time()
    drawn = bootstrap(estimators, n, resamples=resamples)
    seconds = process_time() - started
    metrics = sum(len(found) for found in drawn.value.values())
    print(
        f"{metrics} metrics of {len(estimators)} methods, {n:,} requests × {resamples:,} resamples"
    )
    print(f"{seconds:.1f} s of one core (limit 10 s)")
    print("APGR over kNN:", drawn.difference("apgr", "router", "kNN"))
    return seconds


if __name__ == "__main__":
    main()
