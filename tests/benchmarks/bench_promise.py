"""How often a promise is broken, counted over draws of choose rows from populations that are known.

Each world is a population of sessions; choose rows are drawn from it with replacement, the
operating point is chosen, and its promise is judged by the population's own rate. Broken: certified
and wrong. Of use: something cheaper than always-top was certified. The bar for it: the walk's step
that an oracle would choose at half the limit downgrades a fifth of the traffic or more.
Run with: pytest tests/benchmarks/bench_promise.py -m benchmark -s
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from scipy.special import expit, logit

from router.policy import Policy
from router.vectorizer import Vectorizer
from tests.benchmarks import outcomes
from training.config import read_tiers
from training.decide import promises
from training.decide.evidence import Evidence
from training.decide.goals import MaxBadDowngrade, MinQuality
from training.decide.operating import Course, choose, plan_course
from training.decide.promises import Promised
from training.label.rule import LabelRule, load_requests
from training.learn.costs import account, expected
from training.learn.embedders import resolve_embedder
from training.learn.vectorize import fit_ngrams, vectorize
from training.learned import learn

pytestmark = pytest.mark.benchmark
RISK = 0.05
DRAWS, DRAWS_OF_DATA = 2000, 500
SESSIONS, FIT_ROWS = 60_000, 3000
COSTS = np.array([0.1, 0.4, 1.0, 8.0]) * 1e-3

Floats = NDArray[np.float64]


@pytest.fixture(autouse=True)
def _no_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken promises are counted without the bounds, whose search takes half the time."""
    monkeypatch.setattr(promises, "_strictest", lambda *_, otherwise: otherwise)


@dataclass(frozen=True)
class World:
    """How requests, what the router thinks of them, and outcomes come about."""

    tiers: int = 2
    graded: bool = False
    bend: Callable[[Floats], Floats] = lambda p: p  # the router's p from the true chance
    skill: tuple[float, ...] = (0.5, 1.5, 2.5, 4.5)  # log-odds of an average request, per tier
    spread: float = 2.5  # of a request's ease
    session: int = 1  # requests in a session, at most

    def draw(self, rng: np.random.Generator, sessions: int) -> Evidence:
        """A sample of sessions with every outcome."""
        size = rng.integers(1, self.session + 1, sessions)
        session = np.repeat(np.arange(sessions), size)
        skill = np.array(self.skill if self.tiers == 4 else (self.skill[0], self.skill[-1]))
        ease = rng.normal(size=sessions)[session] * 0.7 + rng.normal(size=len(session)) * 0.7
        own = rng.normal(0.0, 0.5, (len(session), len(skill)))
        chance = expit(skill + self.spread * ease[:, None] + own)
        if self.graded:
            score = np.round(rng.beta(3 * chance + 1e-3, 3 * (1 - chance) + 1e-3) * 10) / 10
        else:
            score = (rng.random(chance.shape) < chance).astype(np.float64)
        costs = COSTS if self.tiers == 4 else COSTS[[0, -1]]
        usd = costs * rng.uniform(0.5, 2.0, (len(session), 1))
        return Evidence(self.bend(chance), usd, usd, score, session, score >= 0.5)


@dataclass(frozen=True)
class Truth:
    """A population and, for any policy, its true rate and the share that it downgrades."""

    population: Evidence
    first: NDArray[np.int64]  # row of each session; its other rows follow
    size: NDArray[np.int64]  # rows of each session

    @classmethod
    def of(cls, population: Evidence) -> "Truth":
        first, size = np.unique(population.session, return_index=True, return_counts=True)[1:]
        return cls(population, first, size)

    def sample(self, rng: np.random.Generator, sessions: int) -> Evidence:
        """Sessions with replacement."""
        drawn = rng.integers(len(self.first), size=sessions)
        size, one = self.size[drawn], self.population
        number = np.repeat(np.arange(sessions), size)
        at = np.arange(len(number)) + (self.first[drawn] - np.cumsum(size) + size)[number]
        assert one.sufficed is not None
        return Evidence(
            one.p[at], one.usd[at], one.paid[at], one.score[at], number, one.sufficed[at]
        )

    def rate(self, goal: Promised, policy: Policy) -> tuple[float, float]:
        """The goal's rate over all sessions, each counting once; and the share downgraded."""
        one = self.population
        assert one.sufficed is not None
        tier, at = policy.choose(one.p, one.usd), np.arange(len(one.p))
        top = one.p.shape[1] - 1
        weight = 1.0 / np.bincount(one.session)[one.session]
        down = float(np.average(tier != top, weights=weight))
        if isinstance(goal, MinQuality):
            means = [
                np.average(s, weights=weight) for s in (one.score[at, tier], one.score[:, top])
            ]
            return float(means[0] / means[1]), down
        bad = one.sufficed[:, top] & ~one.sufficed[at, tier]
        return float(np.average(bad, weights=weight)), down


def kept(goal: Promised, rate: float, part: float = 1.0) -> bool:
    """Whether a rate is within the goal's limit, or within a part of what it allows."""
    if isinstance(goal, MinQuality):
        return rate >= 1.0 - part * (1.0 - goal.share)
    return rate <= part * goal.rate


def count(
    name: str, truth: Truth, course: Course, goal: Promised, n: int, draws: int
) -> tuple[int, float, bool]:
    """Choose `draws` times and print: broken promises, choices of use, shares downgraded."""
    rng = np.random.default_rng([n, draws])
    names = [str(k) for k in range(truth.population.p.shape[1])]
    known: dict[tuple[float, int | None], tuple[float, float]] = {}

    def true(policy: Policy) -> tuple[float, float]:
        key = (policy.mu, policy.constant)
        if key not in known:
            known[key] = truth.rate(goal, policy)
        return known[key]

    steps = [*(Policy(float(mu)) for mu in course.dials), Policy(0.0, constant=0)]
    oracle = [
        max((down for rate, down in map(true, steps) if kept(goal, rate, part)), default=0.0)
        for part in (0.5, 1.0)
    ]
    broken = used = constants = 0
    shares = []
    for _ in range(draws):
        policy = choose(goal, course, truth.sample(rng, n), names)
        rate, down = true(policy)
        assert policy.promise is not None
        broken += policy.promise.certified and not kept(goal, rate)
        used += policy.constant != len(names) - 1
        constants += policy.constant is not None and policy.constant < len(names) - 1
        shares.append(down)
    limit = RISK + 2 * np.sqrt(RISK * (1 - RISK) / draws)
    print(
        f"{name:52s} n={n:5d} broken {broken:4d}/{draws} ({broken / draws:.2%}, allowed "
        f"{limit:.2%}); of use {used / draws:6.1%}{'' if oracle[0] >= 0.2 else ' (no bar)'}; "
        f"constant {constants / draws:5.1%}; downgraded {np.mean(shares):.1%}, oracle "
        f"{oracle[1]:.1%}, at half the limit {oracle[0]:.1%}",
        flush=True,
    )
    return broken, used / draws, oracle[0] >= 0.2


def judge(results: list[tuple[int, float, bool]], draws: int) -> None:
    """The figures to reach."""
    for broken, used, bar in results:
        assert broken / draws <= RISK + 2 * np.sqrt(RISK * (1 - RISK) / draws)
        assert used >= 0.8 or not bar


def bent(p: Floats) -> Floats:
    """Too sure of the cheap tiers, too little of the top."""
    shift = np.linspace(1.5, -1.0, p.shape[1])
    return np.asarray(expit(0.5 * logit(np.clip(p, 1e-6, 1 - 1e-6)) + shift))


def blurred(p: Floats) -> Floats:
    """Right on average, with noise of its own on each row."""
    noise = np.random.default_rng(len(p)).normal(0, 1.5, p.shape)
    return np.asarray(expit(logit(np.clip(p, 1e-6, 1 - 1e-6)) + noise))


SIMPLE = [
    (f"{tiers} tiers, {'graded' if graded else '0/1'}, {view}", World(tiers, graded, bend))
    for tiers in (2, 4)
    for graded in (False, True)
    for view, bend in (("calibrated", lambda p: p), ("bent", bent), ("blurred", blurred))
]
RARE = World(skill=(4.0, 4.5, 5.0, 6.0), spread=1.5)
EQUAL = World(tiers=4, skill=(0.5, 1.5, 3.0, 3.02), bend=lambda p: np.clip(p, 0.3, 0.8))
IN_SESSIONS = World(session=6)
SPECIAL: list[tuple[str, World, Promised, int]] = [
    ("rare losses, bad ≤ 1 %", RARE, MaxBadDowngrade(0.01), 1000),
    ("rare losses, bad ≤ 0.5 %", RARE, MaxBadDowngrade(0.005), 2000),
    ("rare losses, quality ≥ 99 %", RARE, MinQuality(0.99), 1000),
    ("rare losses, quality ≥ 99.5 %", RARE, MinQuality(0.995), 2000),
    ("sessions of 1–6, bad ≤ 5 %", IN_SESSIONS, MaxBadDowngrade(0.05), 500),
    ("sessions of 1–6, bad ≤ 2 %", IN_SESSIONS, MaxBadDowngrade(0.02), 1000),
    ("sessions of 1–6, quality ≥ 95 %", IN_SESSIONS, MinQuality(0.95), 500),
    ("a middle tier as good as the top, bad ≤ 5 %", EQUAL, MaxBadDowngrade(0.05), 1000),
    ("a middle tier as good as the top, quality ≥ 99 %", EQUAL, MinQuality(0.99), 1000),
    ("a middle tier as good, quality ≥ 95 %", EQUAL, MinQuality(0.95), 1000),
    ("or_constant asked for, bad ≤ 5 %", EQUAL, MaxBadDowngrade(0.05, or_constant=True), 1000),
]


def prepare(world: World) -> tuple[Truth, Course]:
    """A population, and the course that independent fit rows fix."""
    fit = world.draw(np.random.default_rng(1), FIT_ROWS)
    return Truth.of(world.draw(np.random.default_rng(2), SESSIONS)), plan_course(fit.p, fit.usd)


@pytest.mark.parametrize(("name", "world"), SIMPLE, ids=[name for name, _ in SIMPLE])
def test_simulated_worlds(name: str, world: World) -> None:
    print()
    truth, course = prepare(world)
    goals: tuple[Promised, ...] = (MaxBadDowngrade(0.05), MinQuality(0.95))
    found = [
        count(f"{name}, {said}", truth, course, goal, 600, DRAWS)
        for said, goal in zip(("bad ≤ 5 %", "quality ≥ 95 %"), goals, strict=True)
    ]
    judge(found, DRAWS)


@pytest.mark.parametrize(("name", "world", "goal", "n"), SPECIAL, ids=[row[0] for row in SPECIAL])
def test_special_worlds(name: str, world: World, goal: Promised, n: int) -> None:
    print()
    truth, course = prepare(world)
    judge([count(name, truth, course, goal, n, DRAWS)], DRAWS)


@pytest.mark.parametrize(
    ("name", "tiers"),
    [
        ("MMLU", ("small", "large")),
        ("MMLU-Pro", ("flash", "pro")),
        ("MMLU-Pro", ("llama-8b", "flash", "llama-70b", "pro")),
    ],
    ids=["mmlu", "mmlu-pro-2", "mmlu-pro-4"],
)
def test_outcomes_as_the_population(
    name: str, tiers: tuple[str, ...], shared_data: Path, tmp_path: Path
) -> None:
    """A router fitted on 30 % of the requests; the others are the population."""
    if name == "MMLU":
        frame = outcomes.routellm(shared_data / "routellm" / "mmlu", tmp_path / "t.parquet")
    else:
        frame = outcomes.mmlu_pro(shared_data / "mmlu_pro", tiers)
    truth, course = learned_world(frame, tiers, tmp_path)
    print()
    found = []
    for limit in (0.01, 0.02, 0.05):
        for goal in (MaxBadDowngrade(limit), MinQuality(1 - limit)):
            said = "bad ≤" if isinstance(goal, MaxBadDowngrade) else "quality lost ≤"
            told = f"{name}, {len(tiers)} tiers, {said} {limit:.0%}"
            found.append(count(told, truth, course, goal, 1500, DRAWS_OF_DATA))
    judge(found, DRAWS_OF_DATA)


def learned_world(
    frame: pd.DataFrame, names: tuple[str, ...], folder: Path
) -> tuple[Truth, Course]:
    """A population that a router trained on other requests of the frame has estimated."""
    tiers = read_tiers(outcomes.write_tiers(names, folder / "tiers.toml"))
    parts = []
    for part in outcomes.split_requests(frame, 0.3, 0):
        part.to_parquet(folder / "part.parquet", index=False)
        parts.append(load_requests(folder / "part.parquet", tiers, LabelRule())[0])
    fit, rest = parts
    embedder = resolve_embedder("static")
    vectorizer = Vectorizer(embedder, fit_ngrams(embedder, list(fit.prompts), 0))
    x, y = (vectorize(vectorizer, list(part.prompts)) for part in parts)
    learned = learn(x, fit, np.arange(len(fit)), tiers, vectorizer, 0)
    models = learned.predictor.tokens
    population = Evidence(
        p=np.array([learned.predictor.probabilities(vector) for vector in y.vectors()]),
        usd=expected(y, models, tiers),
        paid=account(y, rest, models, tiers),
        score=rest.score,
        session=np.arange(len(rest)),
        sufficed=LabelRule().sufficed(rest.score),
    )
    return Truth.of(population), plan_course(learned.heads.p, learned.usd)
