"""How many labelled rows are worth having: a learning curve on MMLU (Mixtral 8x7B, GPT-4).

Each size is a random part of 9,800 questions, labelled on both tiers; the command's own job trains
on it (`--split 85/15/0`) for a promise of 95 % of the large tier's quality, and the 4,242 other
questions measure it. Savings at 99 and 95 % are read off the test rows, as in the README; the
saving of the chosen point is what a user gets without knowing them.
Run with: pytest tests/benchmarks/bench_learning.py -m benchmark -s
"""

from pathlib import Path

import numpy as np
import pytest

from tests.benchmarks import outcomes
from tests.benchmarks.bench_quality import figures, job
from training.decide.goals import MinQuality

pytestmark = pytest.mark.benchmark
SIZES = (300, 600, 1_200, 2_500, 5_000, 9_800)
SEEDS = range(4)
NAMES = ("small", "large")
COLUMNS = ("APGR", "saving 99 %", "saving 95 %", "chosen: saving", "chosen: quality of top")
GOAL = MinQuality(0.95)


def test_learning_curve(shared_data: Path, tmp_path: Path) -> None:
    frame = outcomes.routellm(shared_data / "routellm" / "mmlu", tmp_path / "mmlu.parquet")
    print(f"\nmean ± standard deviation of {len(SEEDS)} seeds")
    print("| rows | " + " | ".join(COLUMNS) + " |")
    curve = []
    for size in SIZES:
        found = []
        for seed in SEEDS:
            others, test = outcomes.split_requests(frame, SIZES[-1], seed)
            chosen, _ = outcomes.split_requests(others, size, seed)
            scored = job(chosen, test, NAMES, seed, tmp_path / f"{size}", GOAL)
            found.append([figures(scored)[name] for name in COLUMNS])
        mean, spread = np.mean(found, axis=0), np.std(found, axis=0, ddof=1)
        cells = [f"{m:.3f} ± {s:.3f}" for m, s in zip(mean, spread, strict=True)]
        print(f"| {size:,} | {' | '.join(cells)} |", flush=True)
        curve.append(mean[0])
    assert curve[-1] > curve[0] + 0.05
