"""How often the gate errs: equal or worse challengers promoted, better ones let through.

Two policies choose by noisy views of the same prompts; the truth of every figure is computed on a
million prompts. Run with: pytest tests/benchmarks/bench_gate.py -m benchmark -s
"""

from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray

from training.retrain.gate import Entrant, Holdout, Limits, judge

pytestmark = pytest.mark.benchmark
DRAWS, ROWS, TOP = 200, 5000, 0.4


@dataclass(frozen=True)
class World:
    """n prompts: two tiers' chances and scores, and what two routers see of the gain."""

    score: NDArray[np.float64]
    paid: NDArray[np.float64]
    champion: NDArray[np.int64]
    challenger: NDArray[np.int64]


def draw(n: int, seed: int, noise: float, shared: float, top: float = TOP) -> World:
    """A champion with noise 1, a challenger with `noise`, a share of it the champion's own."""
    rng = np.random.default_rng(seed)
    gain = rng.normal(0.0, 1.0, n)
    small = 1 / (1 + np.exp(-(0.9 - 1.1 * gain)))
    large = np.clip(small + 0.5 / (1 + np.exp(-2 * gain)), 0, 0.97)
    score = (rng.random((n, 2)) < np.column_stack([small, large])).astype(float)
    paid = rng.gamma(2.0, 0.5, (n, 1)) * np.array([0.06, 1.0])
    ours = rng.normal(size=n)
    theirs = np.sqrt(shared) * ours + np.sqrt(1 - shared) * rng.normal(size=n)

    def send(seen: NDArray[np.float64]) -> NDArray[np.int64]:
        return (seen > np.quantile(seen, 1 - TOP)).astype(np.int64)

    champion = send(gain + ours)
    seen = gain + noise * theirs
    return World(score, paid, champion, (seen > np.quantile(seen, 1 - top)).astype(np.int64))


def promoted(noise: float, shared: float, top: float = TOP) -> tuple[int, float]:
    """How many of the draws the gate lets through; the challenger's true gain in quality."""
    truth = draw(1_000_000, 99, noise, shared, top)
    rows = np.arange(1_000_000)
    gain = truth.score[rows, truth.challenger] - truth.score[rows, truth.champion]
    count = 0
    for seed in range(DRAWS):
        world = draw(ROWS, seed, noise, shared, top)
        p = np.broadcast_to(world.score.mean(axis=0), world.score.shape)
        entrant = Entrant(world.challenger, p, None, None, 0.0, np.full(20, 0.3))
        holdout = Holdout(
            ("small", "large"),
            world.score,
            world.paid,
            np.arange(ROWS),
            world.score,
            world.score >= 0.5,
        )
        standing = {"champion": world.champion, "anchor": world.champion}
        count += judge(holdout, entrant, standing, Limits()).passed
    return count, float(gain.mean())


def test_the_gate() -> None:
    print(f"\n{DRAWS} challengers each, {ROWS} test rows; share promoted")
    total = 0
    for name, noise, shared, top in (
        ("equal, other mistakes", 1.0, 0.0, TOP),
        ("equal, mostly the same", 1.0, 0.8, TOP),
        ("worse", 1.4, 0.5, TOP),
        ("equal, but dearer", noise_for(0.0, 0.5, TOP + 0.03), 0.5, TOP + 0.03),
    ):
        count, gain = promoted(noise, shared, top)
        total += count
        print(f"  {name:24s} true gain {100 * gain:+.2f} points: {count / DRAWS:.1%}")
        assert count / DRAWS <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / DRAWS)
    print(f"  all of these: {total / (4 * DRAWS):.1%} (asked: at most 5 %)")
    for shared in (0.0, 0.5, 0.9):
        noise = noise_for(0.02, shared)
        count, gain = promoted(noise, shared)
        print(
            f"  better, {shared:.0%} of the noise shared: true gain {100 * gain:+.2f} points:"
            f" {count / DRAWS:.1%} (asked: at least 85 %)"
        )


def noise_for(points: float, shared: float, top: float = TOP) -> float:
    """The noise at which the challenger's quality is higher by `points`: bisection on the truth."""
    low, high = 0.0, 2.0
    for _ in range(12):
        middle = (low + high) / 2
        truth = draw(400_000, 7, middle, shared, top)
        rows = np.arange(len(truth.score))
        gain = (truth.score[rows, truth.challenger] - truth.score[rows, truth.champion]).mean()
        low, high = (middle, high) if gain > points else (low, middle)
    return (low + high) / 2
