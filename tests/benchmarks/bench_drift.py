"""How often drift is cried falsely, and how often it is found.

Populations are MMLU outcomes drawn with replacement; probabilities come from one router. Run with:
pytest tests/benchmarks/bench_drift.py -m benchmark -s
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from router.artifact import load_artifact
from tests.benchmarks import outcomes
from training.config import Config, read_tiers
from training.label.rule import LabelRule
from training.learn.vectorize import vectorize
from training.log.requests import gather
from training.log.traffic import read_traffic
from training.train import train
from training.watch.baseline import FITTED, Sample, sample
from training.watch.two_sample import compare

pytestmark = pytest.mark.benchmark
DRAWS, REFERENCE, RECENT = 500, 10_000, 2_000
UNFITTED = REFERENCE // 4  # choose and test rows of a training; the others are FITTED


@pytest.fixture(scope="module")
def population(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Sample:
    """MMLU requests outside those that a router was fitted on, as it sees them."""
    folder = tmp_path_factory.mktemp("drift")
    frame = outcomes.routellm(shared_data / "routellm" / "mmlu", folder / "t.parquet")
    inside, _ = outcomes.split_requests(frame, 1500, 0)
    inside.to_parquet(folder / "train.parquet", index=False)
    tiers = read_tiers(outcomes.write_tiers(("small", "large"), folder / "tiers.toml"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder}/mlflow.db")
        config = Config(LabelRule())
        train(folder / "train.parquet", tiers, folder / "a", config, (0.7, 0.3, 0.0), 0, "static")
    predictor = load_artifact(folder / "a").predictor
    requests = gather(read_traffic(folder / "t.parquet").frame, tiers)
    fresh = ~np.isin(requests.ids, inside["request_id"].to_numpy())
    requests = requests.take(np.flatnonzero(fresh))
    x = vectorize(predictor.vectorizer, list(requests.prompts))
    estimates = predictor.estimate(list(requests.prompts))
    tier = np.argmax(estimates.p - 200.0 * estimates.usd, axis=1)
    return sample(requests, x, estimates.p, tier, predictor)


def draw(population: Sample, rows: np.ndarray) -> Sample:
    return Sample(*(getattr(population, name)[rows] for name in Sample.__dataclass_fields__))


def rate(
    population: Sample, change: Callable[[Sample, np.random.Generator], Sample], draws: int
) -> tuple[float, dict[str, int]]:
    """Share of draws in which retraining is due, and which kinds said so."""
    due, kinds = 0, {}
    for seed in range(draws):
        rng = np.random.default_rng(seed)
        old, new = (
            draw(population, rng.integers(len(population), size=n)) for n in (REFERENCE, RECENT)
        )
        old = replace(old, tier=np.where(np.arange(REFERENCE) < UNFITTED, old.tier, FITTED))
        found = [one for one in compare(old, change(new, rng), ("small", "large")) if one.due]
        due += bool(found)
        for one in found:
            kinds[one.kind] = kinds.get(one.kind, 0) + 1
    return due / draws, kinds


def test_drift(population: Sample) -> None:
    places = population.place
    # A new topic: a tight cloud in a direction that no other prompt has.
    away = -places.mean(axis=0) + np.random.default_rng(1).normal(0, 0.1, places.shape[1])
    topic = places[np.argsort(places @ away)[-300:]]

    def none(new: Sample, rng: np.random.Generator) -> Sample:
        return new

    def new_topic(new: Sample, rng: np.random.Generator) -> Sample:
        place = new.place.copy()
        place[: RECENT // 10] = topic[rng.integers(len(topic), size=RECENT // 10)]
        return replace(new, place=place)

    def worse(new: Sample, rng: np.random.Generator) -> Sample:
        score = new.score.copy()
        right = np.flatnonzero(score[:, 0] > 0)
        score[rng.permutation(right)[: RECENT // 20], 0] = 0.0
        return replace(new, score=score)

    print(
        f"\n{REFERENCE} rows of training, {UNFITTED} of them not fitted on, {RECENT} recent; share "
        "of draws that say «retrain»"
    )
    for name, change, draws in (
        ("no drift", none, DRAWS),
        ("a new topic at 10 %", new_topic, 100),
        ("small model 5 points worse", worse, 100),
    ):
        share, kinds = rate(population, change, draws)
        print(f"  {name:28s} {share:.1%} of {draws}  {kinds}")
