"""How much of a paired router's lift a one-sided log keeps, printed.

The log: nine requests in ten went to one tier, one in ten explored the other, and only the answer
that was served has a score. Lift is APGR over the 0.5 of a random order, on rows that were not
trained on and on which both outcomes are known. Run with:
pytest tests/benchmarks/bench_onesided.py -m benchmark -s
"""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from router.vectorizer import SURFACE, Vectorizer
from tests.benchmarks import outcomes
from training.config import read_tiers
from training.label.rule import LabelRule, load_requests
from training.learn.embedders import resolve_embedder
from training.learn.heads import fit_heads, probabilities
from training.learn.members import Matrix
from training.learn.vectorize import fit_ngrams, vectorize
from training.measure.curve import order_walk
from training.measure.intervals import values
from training.measure.metrics import curve_metrics

pytestmark = pytest.mark.benchmark
SEEDS = range(5)
EXPLORED = 0.1
FIT = 0.6  # of the requests: the fit part of the job's split of 70 % training rows


def apgr(p: NDArray[np.float64], score: NDArray[np.float64]) -> float:
    """APGR of the order by expected gain."""
    found = curve_metrics(order_walk(p[:, 1] - p[:, 0]), score, np.ones_like(score))
    return float(values(found, len(p))["apgr"])


def one_sided(
    score: NDArray[np.float64], usual: int, seed: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Scores of what was served, and weights 1/propensity: `usual` but for the explored."""
    explored = np.random.default_rng(1000 + seed).random(len(score)) < EXPLORED
    served = np.where(explored, 1 - usual, usual)
    seen, weight = np.full_like(score, np.nan), np.ones_like(score)
    rows = np.arange(len(score))
    seen[rows, served] = score[rows, served]
    weight[rows, served] = np.where(explored, 1 / EXPLORED, 1 / (1 - EXPLORED))
    return seen, weight


def lifts(
    x: Matrix, score: NDArray[np.float64], new: Matrix, truth: NDArray[np.float64], seed: int
) -> list[float]:
    """Lift of the paired router, and of those whose log usually asked the top or the small tier."""
    rows = np.arange(len(score))
    found = []
    for seen, weight in [
        (score, np.ones_like(score)),
        one_sided(score, 1, seed),
        one_sided(score, 0, seed),
    ]:
        heads = fit_heads(x, seen, weight, rows, rows, ("small", "large"), SURFACE, seed)
        found.append(apgr(probabilities(heads, new), truth) - 0.5)
    return found


@pytest.mark.parametrize(("name", "asked"), [("MMLU", 0.65), ("MMLU-Pro", 0.45)])
def test_share_of_the_lift(name: str, asked: float, shared_data: Path, tmp_path: Path) -> None:
    if name == "MMLU":
        names: tuple[str, ...] = ("small", "large")
        frame = outcomes.routellm(shared_data / "routellm" / "mmlu", tmp_path / "t.parquet")
    else:
        names = ("flash", "pro")
        frame = outcomes.mmlu_pro(shared_data / "mmlu_pro", names)
    tiers = read_tiers(outcomes.write_tiers(names, tmp_path / "tiers.toml"))
    embedder = resolve_embedder("static")
    found = []
    for seed in SEEDS:
        parts = []
        for part in outcomes.split_requests(frame, FIT, seed):
            part.to_parquet(tmp_path / "part.parquet", index=False)
            parts.append(load_requests(tmp_path / "part.parquet", tiers, LabelRule())[0])
        fit, test = parts
        vectorizer = Vectorizer(embedder, fit_ngrams(embedder, list(fit.prompts), seed))
        x, new = (vectorize(vectorizer, list(part.prompts)) for part in parts)
        found.append(lifts(x, fit.score, new, test.score, seed))
        print(f"{name}, seed {seed}: " + ", ".join(f"{lift:.3f}" for lift in found[-1]), flush=True)
    lift = np.array(found)
    print(f"{name}, lift of the paired router: {lift[:, 0].mean():.3f}")
    for column, usual in ((1, "top"), (2, "small")):
        kept = lift[:, column] / lift[:, 0]
        error = 2.78 * kept.std(ddof=1) / np.sqrt(len(kept))  # Student's t, 4 degrees of freedom
        each = ", ".join(f"{one:.2f}" for one in kept)
        print(f"  90 % to the {usual} tier keeps {kept.mean():.2f} ± {error:.2f} ({each})")
    assert lift[:, 1].mean() >= asked * lift[:, 0].mean()
