"""What training computed with LightGBM is what a service computes from the exported folder."""

from dataclasses import dataclass

import joblib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from router import Policy, Router
from router.predictor import Predictor
from router.prompt import Prompt
from router.vectorizer import SURFACE, Vectorizer
from tests.builders import TIERS, make_embedder, make_tokens
from training.export import export
from training.golden import golden_lines, golden_prompts
from training.learn.heads import FittedHeads, fit_heads, probabilities
from training.learn.vectorize import fit_ngrams, vectorize

TOLERANCE = 1e-6
TEXT = st.text(st.characters(exclude_categories=()))
MUS = (0.0, 1.0, 10.0, 100.0, 1e3, 1e4)


@dataclass(frozen=True, slots=True)
class Trained:
    heads: FittedHeads
    vectorizer: Vectorizer
    router: Router


def easy_and_hard(count: int, seed: int) -> tuple[list[str], NDArray[np.float64]]:
    """Prompts of two kinds, and how well three tiers did; one outcome in five is not known."""
    rng = np.random.default_rng(seed)
    hard = rng.random(count) < 0.5
    nouns = "france list prime code sum river cat house train letter".split()
    texts = []
    for is_hard in hard:
        a, b = rng.integers(2, 999, 2)
        words = " ".join(rng.choice(nouns, rng.integers(2, 12)))
        texts.append(f"solve {a} * {b} + {words} = ?" if is_hard else f"what is the {words} {a}?")
    chance = rng.random((count, 3))
    small = np.where(hard, chance[:, 0] < 0.2, chance[:, 0] < 0.9).astype(float)
    middle = np.where(hard, 0.5 * chance[:, 1], 0.5 + 0.5 * chance[:, 1])  # graded
    large = (chance[:, 2] < 0.95).astype(float)
    score = np.stack([small, middle, large], axis=1)
    score[rng.random(score.shape) < 0.2] = np.nan
    return texts, score


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    texts, score = easy_and_hard(400, 0)
    embedder = make_embedder(16)
    prompts = [Prompt.of(text) for text in texts]
    vectorizer = Vectorizer(embedder, fit_ngrams(embedder, prompts, 0))
    names = tuple(tier.name for tier in TIERS)
    rows = np.arange(len(texts))
    with joblib.parallel_config(backend="sequential"):
        heads = fit_heads(
            vectorize(vectorizer, prompts),
            score,
            np.ones_like(score),
            rows,
            rows,
            names,
            SURFACE,
            0,
        )
    tokens = tuple(make_tokens(vectorizer.dim, k) for k in range(len(TIERS)))
    predictor = Predictor(TIERS, vectorizer, heads.neighbours, heads.heads, heads.blend, tokens)
    golden = golden_lines(probabilities(heads, vectorize(vectorizer, golden_prompts())), names)
    out = tmp_path_factory.mktemp("parity") / "artifact"
    export(out, predictor, Policy(1.0), golden, "card", np.zeros(0, np.uint64), {})
    return Trained(heads, vectorizer, Router.load(out))


def assert_parity(trained: Trained, prompts: list[Prompt]) -> None:
    served = trained.router.artifact.predictor.estimate(prompts)
    original = probabilities(trained.heads, vectorize(trained.vectorizer, prompts))
    assert np.abs(served.p - original).max() <= TOLERANCE
    for mu in MUS:
        policy = Policy(mu)
        flipped = policy.choose(served.p, served.usd) != policy.choose(original, served.usd)
        assert not flipped.any()


def test_the_heads_learned_something(trained: Trained) -> None:
    """Else parity would compare constants."""
    texts, _ = easy_and_hard(200, 1)
    p = trained.router.artifact.predictor.estimate([Prompt.of(text) for text in texts]).p
    hard = np.array([text.startswith("solve") for text in texts])
    assert p[~hard, 0].mean() - p[hard, 0].mean() > 0.3
    assert len(trained.heads.boosters) == 3
    assert all(booster.num_trees() >= 5 for booster in trained.heads.boosters)


def test_unseen_prompts_are_served_as_training_scores_them(trained: Trained) -> None:
    texts, _ = easy_and_hard(600, 2)
    assert_parity(trained, [Prompt.of(text) for text in texts])


def test_golden_prompts_are_served_as_training_scores_them(trained: Trained) -> None:
    assert_parity(trained, golden_prompts())


@settings(max_examples=50)
@given(texts=st.lists(TEXT, min_size=1, max_size=6))
def test_any_text_is_served_as_training_scores_it(trained: Trained, texts: list[str]) -> None:
    assert_parity(trained, [Prompt.of(text) for text in texts])


def test_routes_agree_with_training(trained: Trained) -> None:
    texts, _ = easy_and_hard(100, 3)
    original = probabilities(
        trained.heads, vectorize(trained.vectorizer, [Prompt.of(text) for text in texts])
    )
    for text, row in zip(texts, original, strict=True):
        decision = trained.router.route(text)
        assert list(decision.p_suffices.values()) == pytest.approx(row.tolist(), abs=TOLERANCE)
