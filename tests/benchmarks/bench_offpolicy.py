"""Do one-sided values hold what they say? Draws from MMLU-Pro's outcomes, with known truth.

The population is the half of the questions that the heads were not fitted on. Each draw takes
2,000 of them anew, with replacement; a logging policy decides which tier is seen, and the value of
each target policy is estimated from that. The truth is the policy's mean score in the population.
Printed: how many of 500 intervals cover it, and root mean squared errors.

Run with: pytest tests/benchmarks/bench_offpolicy.py -m benchmark -s
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from router.artifact import load_artifact
from tests.benchmarks import outcomes
from training.config import Config, read_tiers
from training.decide.evidence import Evidence
from training.decide.goals import MinQuality
from training.decide.operating import choose, plan_course
from training.label.rule import LabelRule
from training.measure import offpolicy as op
from training.measure.offpolicy import Logged
from training.measure.overlap import certifiable
from training.train import train

pytestmark = pytest.mark.benchmark
DRAWS, ROWS = 500, 2000
NAMES = ("flash", "pro")
METHODS = ("IPS", "SNIPS", "DR", "DR − top")
Floats = NDArray[np.float64]
Chance = Callable[[Floats, Floats], Floats]  # gain and time in [0, 1] → P(flash)


def uniform(gain: Floats, time: Floats) -> Floats:
    """Ten per cent of requests are sent to either tier by a coin; else the top tier."""
    return np.full(len(gain), 0.05)


def by_score(gain: Floats, time: Floats) -> Floats:
    """An older router: the lower the predicted gain, the likelier the cheap tier; 5 to 95 %."""
    rank = gain.argsort().argsort() / len(gain)
    chance: Floats = np.clip(1.0 / (1.0 + np.exp(12.0 * (rank - 0.5))), 0.05, 0.95)
    return chance


def drifting(gain: Floats, time: Floats) -> Floats:
    """The same, ever bolder: from 5 % to 60 % of all, more where the gain is low."""
    rank = gain.argsort().argsort() / len(gain)
    chance: Floats = np.clip((0.05 + 0.55 * time) * (1.5 - rank), 0.05, 0.95)
    return chance


LOGGING: dict[str, Chance] = {
    "uniform 10 % exploration": uniform,
    "score-based": by_score,
    "drifting": drifting,
}


@dataclass(frozen=True)
class Population:
    """Questions that the heads were not fitted on: estimates, expected USD, both tiers' scores."""

    p: Floats
    usd: Floats
    score: Floats

    @property
    def gain(self) -> Floats:
        """Predicted gain of the top tier."""
        gain: Floats = self.p[:, 1] - self.p[:, 0]
        return gain

    def targets(self) -> dict[str, Floats]:
        """Policies to value, as probabilities of each tier."""
        n = len(self.p)
        per_dollar = self.gain / (self.usd[:, 1] - self.usd[:, 0])

        def top(order: Floats, share: float) -> Floats:
            return op.fixed((order > np.quantile(order, 1 - share)).astype(np.int64), 2)

        return {
            "router, 30 % to pro": top(per_dollar, 0.3),
            "router, 70 % to pro": top(per_dollar, 0.7),
            "always flash": op.always(0, n, 2),
            "always pro": op.always(1, n, 2),
        }


@pytest.fixture(scope="module")
def population(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Population:
    folder = tmp_path_factory.mktemp("population")
    frame = outcomes.mmlu_pro(shared_data / "mmlu_pro", NAMES)
    inside, outside = outcomes.split_requests(frame, 0.5, 0)
    for name, part in (("fit", inside), ("rest", outside)):
        part.to_parquet(folder / f"{name}.parquet", index=False)
    tiers = read_tiers(outcomes.write_tiers(NAMES, folder / "tiers.toml"))
    config = Config(LabelRule(), MinQuality())
    train(folder / "fit.parquet", tiers, folder / "a", config, (0.85, 0.15, 0.0), 0, "static")
    predictor = load_artifact(folder / "a").predictor
    table = outside.pivot(index="request_id", columns="tier", values="score")
    texts = outside.drop_duplicates("request_id").set_index("request_id")["messages"]
    found = predictor.estimate([outcomes.prompt_of(text) for text in texts.loc[table.index]])
    return Population(found.p, found.usd, table[list(NAMES)].to_numpy(float))


def draw(
    population: Population, chance: Chance, rng: np.random.Generator
) -> tuple[NDArray, Logged]:
    """The rows drawn, and what the logging policy lets see of them."""
    rows = rng.integers(len(population.p), size=ROWS)
    flash = chance(population.gain, rng.random(len(population.p)))[rows]
    tier = (rng.random(ROWS) >= flash).astype(np.int64)
    seen, asked = np.full((ROWS, 2), np.nan), np.full((ROWS, 2), np.nan)
    at = np.arange(ROWS)
    seen[at, tier] = population.score[rows, tier]
    asked[at, tier] = np.where(tier == 0, flash, 1 - flash)
    return rows, Logged(seen, asked, at)


@pytest.mark.parametrize("name", LOGGING)
def test_values(population: Population, name: str) -> None:
    targets = population.targets()
    truth = {target: (mix * population.score).sum(axis=1).mean() for target, mix in targets.items()}
    base = "always pro"
    held: dict[tuple[str, str], int] = {}
    errors: dict[tuple[str, str], list[float]] = {}
    rng = np.random.default_rng(1)
    for _ in range(DRAWS):
        rows, logged = draw(population, LOGGING[name], rng)
        against = op.doubly_robust_terms(logged, targets[base][rows], population.p[rows])
        for target, mix in targets.items():
            robust = op.doubly_robust_terms(logged, mix[rows], population.p[rows])
            terms = {
                "IPS": (op.ips_terms(logged, mix[rows]), truth[target]),
                "SNIPS": (op.snips_terms(logged, mix[rows]), truth[target]),
                "DR": (robust, truth[target]),
                "DR − top": (robust - against, truth[target] - truth[base]),
            }
            for method, (values, true) in terms.items():
                found = op.interval(values, logged.session)
                key = (target, method)
                held[key] = held.get(key, 0) + (found.low <= true <= found.high)
                errors.setdefault(key, []).append(found.value - true)
    print(f"\n{name}: {DRAWS} draws of {ROWS} rows; intervals that cover, and RMSE")
    rmse = {key: float(np.sqrt(np.mean(np.square(values)))) for key, values in errors.items()}
    for target in targets:
        shown = [f"{how} {held[target, how]:3d} {rmse[target, how]:.4f}" for how in METHODS]
        print(f"  {target:20s} {truth[target]:.4f}  " + "   ".join(shown))
    for target in targets:
        assert 0.92 * DRAWS <= held[target, "DR"] <= 0.98 * DRAWS, target
        assert rmse[target, "DR"] < min(rmse[target, "IPS"], rmse[target, "SNIPS"]), target


@pytest.mark.parametrize("name", LOGGING)
@pytest.mark.parametrize("share", [0.95, 0.97])
def test_promise(population: Population, name: str, share: float) -> None:
    """min_quality chosen on one-sided draws: how often it is broken, how cheap it is."""
    course = plan_course(population.p, population.usd)
    top = population.score[:, 1].mean()
    rng, broken, routed, quality = np.random.default_rng(2), 0, [], []
    for _ in range(DRAWS // 5):
        rows, logged = draw(population, LOGGING[name], rng)
        found = certifiable(logged, population.p[rows], NAMES)
        evidence = Evidence(
            p=population.p[rows],
            usd=population.usd[rows],
            paid=population.usd[rows],
            score=found.score,
            session=logged.session,
            low=found.low,
            high=found.high,
        )
        policy = choose(MinQuality(share), course, evidence, NAMES)
        tier = policy.choose(population.p, population.usd)
        mean = population.score[np.arange(len(tier)), tier].mean()
        broken += mean < share * top
        routed.append(np.mean(tier == 0))
        quality.append(mean / top)
    print(
        f"\n{name}, min_quality {share}: broken in {broken} of {DRAWS // 5} draws; to flash "
        f"{np.mean(routed):.0%} (some in {np.mean(np.array(routed) > 0):.0%} of draws), "
        f"quality of top {np.mean(quality):.4f}"
    )
    assert broken <= 0.05 * DRAWS // 5 + 2 * np.sqrt(0.05 * 0.95 * DRAWS // 5)
