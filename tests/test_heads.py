"""Members, cross-fitting, blend: near the best single choice, and no label helps itself."""

from dataclasses import dataclass

import numpy as np
import pytest
from scipy import sparse
from scipy.special import logit
from sklearn.linear_model import LogisticRegression

from router.head import Blend, Constant, blended
from router.neighbours import Neighbours
from router.predictor import Predictor
from router.vectorizer import SURFACE, Vectorizer
from tests.traffic_makers import TIERS, make_rows, requests_of
from training.errors import BadInput
from training.learn.blending import GAP_SHARES, blend_members, fit_blend
from training.learn.calibrate import log_loss
from training.learn.costs import fit_tokens
from training.learn.crossfit import (
    Lessons,
    LinearBlend,
    all_linears,
    best_linear,
    cross_fit,
    divide,
    fit_fold,
)
from training.learn.embedders import resolve_embedder
from training.learn.heads import (
    FittedHeads,
    fit_heads,
    member_margins,
    probabilities,
)
from training.learn.linear import fit_ridges, linear_margins, standardise
from training.learn.members import STANDARD, Matrix
from training.learn.prototypes import fit_geometry
from training.learn.trees import Bins
from training.learn.vectorize import fit_ngrams, vectorize

FIT = 300
NAMES = ("small", "large")
NONE = np.zeros(0)


@dataclass(frozen=True, slots=True)
class Log:
    x: Matrix
    vectorizer: Vectorizer
    requests: object
    hard: np.ndarray

    def fit(self, score=None, weight=None, names=NAMES, seed=0, rows=None) -> FittedHeads:
        rows = np.arange(FIT) if rows is None else rows
        score = self.requests.score[rows] if score is None else score
        weight = np.ones_like(score) if weight is None else weight
        sessions = self.requests.sessions[rows]
        return fit_heads(self.x.take(rows), score, weight, sessions, sessions, names, SURFACE, seed)


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    """900 requests, 300 of them to fit on; whether the small tier suffices turns on one word."""
    requests = requests_of(make_rows(900, seed=5), tmp_path_factory.mktemp("heads"))
    embedder = resolve_embedder("static")
    prompts = list(requests.prompts)
    vectorizer = Vectorizer(embedder, fit_ngrams(embedder, prompts[:FIT], 0))
    hard = requests.output_tokens[:, 0] >= 100
    return Log(vectorize(vectorizer, prompts), vectorizer, requests, hard)


@pytest.fixture(scope="module")
def fitted(log):
    return log.fit()


def rate(p, score):
    margin = logit(np.clip(p, 1e-9, 1 - 1e-9)).ravel()
    return log_loss(margin, score.ravel(), np.ones(score.size)) / score.size


def test_the_signal_is_found(log, fitted):
    p = probabilities(fitted, log.x)[FIT:]
    hard = log.hard[FIT:]
    assert p[~hard, 0].mean() > p[hard, 0].mean() + 0.4
    assert rate(p, log.requests.score[FIT:]) < 0.75 * rate(
        np.tile(log.requests.score[:FIT].mean(axis=0), (len(hard), 1)), log.requests.score[FIT:]
    )


def test_near_the_best_single_member_on_little_data(log):
    """On rows unseen, over several draws of labels: mean loss within 0.02 nats of the best's."""
    chance = np.where(log.hard[:, None], (0.15, 0.9), (0.95, 0.97))
    together, alone = [], []
    for seed in range(3):
        rng = np.random.default_rng(seed)
        score = (rng.random(chance.shape) < chance) * 1.0
        fitted = log.fit(score[:FIT], seed=seed)
        new = log.x.take(np.arange(FIT, 900))
        together.append(rate(probabilities(fitted, new), score[FIT:]))
        margins = member_margins(fitted, new)
        alone.append([rate(1 / (1 + np.exp(-m)), score[FIT:]) for m in margins])
    assert np.mean(together) < np.mean(alone, axis=0).min() + 0.02


def test_cross_fitted_probabilities_are_honest(log, fitted):
    """The loss of the fit rows, cross-fitted, is about that of new rows; not that of memory."""
    seen = rate(fitted.p, log.requests.score[:FIT])
    new = rate(probabilities(fitted, log.x)[FIT:], log.requests.score[FIT:])
    assert abs(seen - new) < 0.06
    assert abs(fitted.p.mean() - log.requests.score[:FIT].mean()) < 0.02


def test_noise_is_not_learned(log):
    """Labels without any signal: cross-fitted p stays near the mean and does not see its label."""
    rng = np.random.default_rng(0)
    score = (rng.random((FIT, 2)) < 0.6) * 1.0
    p = log.fit(score).p
    assert p.std(axis=0).max() < 0.12
    assert abs(np.corrcoef(p[:, 0], score[:, 0])[0, 1]) < 0.2


def test_a_label_has_no_part_in_its_own_margin(log):
    """Exactly: flip every label of a fold, and that fold's linear margins are what they were."""
    rows = np.arange(FIT)
    x, score, weight = log.x.take(rows), log.requests.score[:FIT, 0], np.ones((FIT, 1))
    folds = divide(log.requests.sessions[:FIT], 0)
    flipped = np.where(folds == 1, 1 - score, score)
    one, other = (
        fit_fold(Lessons(x, Bins.of(x), s[:, None], weight, folds * 0, folds, 300, 0, STANDARD), 1)[
            0
        ]
        for s in (score, flipped)
    )
    np.testing.assert_array_equal(one.linear, other.linear)
    # The held-out rows only say when the forest stops: up to there, its trees are the same.
    assert one.forest.shape == other.forest.shape


def test_flipping_one_label_hardly_moves_its_own_probability(log, fitted):
    for row in (3, 77):
        score = log.requests.score[:FIT].copy()
        score[row, 0] = 1 - score[row, 0]
        assert abs(log.fit(score).p[row, 0] - fitted.p[row, 0]) < 0.1


def test_a_fold_never_divides_a_group():
    rng = np.random.default_rng(1)
    group = rng.integers(0, 60, 400)
    folds = divide(group, 3)
    assert all(len(set(folds[group == g])) == 1 for g in group)
    assert len(set(folds)) == 4
    np.testing.assert_array_equal(folds, divide(group, 3))


def test_the_predictor_repeats_the_originals(log, fitted):
    rows = np.arange(FIT, FIT + 60)
    tokens, _ = fit_tokens(log.x, log.requests)
    served = Predictor(TIERS, log.vectorizer, fitted.neighbours, fitted.heads, fitted.blend, tokens)
    p = served.estimate(list(log.requests.prompts[rows])).p
    np.testing.assert_allclose(p, probabilities(fitted, log.x.take(rows)), atol=1e-9)


def test_a_tier_that_never_varies_is_a_constant_and_is_flagged(log):
    score = log.requests.score[:FIT].copy()
    score[:, 1] = 0.0
    fitted = log.fit(score)
    assert fitted.heads[1] == Constant(0.5 / 301)
    assert any("large: every score is 0; its head is a constant" in n for n in fitted.notes)
    np.testing.assert_allclose(probabilities(fitted, log.x)[:, 1], 0.5 / 301)
    assert np.ptp(fitted.p[:, 0]) > 0.1


def test_an_assumed_top_tier_suffices_with_certainty(log):
    score = log.requests.score[:FIT].copy()
    score[:, 1] = 1.0
    assert log.fit(score).heads[1] == Constant(1.0)


def test_no_tier_that_varies(log):
    with pytest.raises(BadInput, match="column score: no tier's scores vary"):
        log.fit(np.tile([0.0, 1.0], (FIT, 1)))


def test_a_tier_without_rows_is_named(log):
    score = log.requests.score[:FIT].copy()
    score[:, 1] = np.nan
    with pytest.raises(BadInput, match="tier 'large': no labelled row"):
        log.fit(score)


def test_a_tier_with_few_rows_is_named(log):
    score = log.requests.score[:FIT].copy()
    score[29:, 1] = np.nan
    score[:2, 1] = (0.0, 1.0)
    with pytest.raises(BadInput, match="tier 'large': 29 labelled fit rows; at least 30"):
        log.fit(score)


def test_a_tier_all_of_one_session_is_named(log):
    score = log.requests.score[:FIT].copy()
    score[40:, 1] = np.nan
    score[:2, 1] = (0.0, 1.0)
    group = np.concatenate([np.zeros(40), np.arange(1, FIT - 39)]).astype(np.int64)
    with pytest.raises(BadInput, match="tier 'large': all its labelled fit rows are of one"):
        fit_heads(
            log.x.take(np.arange(FIT)), score, np.ones_like(score), group, group, NAMES, SURFACE, 0
        )


def test_one_session_only(log):
    group = np.zeros(FIT, dtype=np.int64)
    score = log.requests.score[:FIT]
    with pytest.raises(BadInput, match="one session"):
        fit_heads(
            log.x.take(np.arange(FIT)), score, np.ones_like(score), group, group, NAMES, SURFACE, 0
        )


@pytest.mark.parametrize("rare", [0.0, 1.0])
def test_one_exception_among_many_rows_is_no_failure(log, rare):
    """In the fold that holds it, the fitting rows are of one class."""
    score = log.requests.score[:FIT].copy()
    score[:, 1] = 1.0 - rare
    score[17, 1] = rare
    p = probabilities(log.fit(score), log.x)[:, 1]
    assert np.isfinite(p).all()
    assert abs(p.mean() - (1.0 - rare)) < 0.05


def test_graded_scores_are_learned_as_expectations(log):
    rng = np.random.default_rng(2)
    mean = np.where(log.hard, 0.3, 0.8)
    graded = np.stack([rng.beta(8 * mean, 8 * (1 - mean)), rng.beta(8, 2, 900)], axis=1)
    p = probabilities(log.fit(graded[:FIT]), log.x)[FIT:]
    hard = log.hard[FIT:]
    assert p[hard, 0].mean() == pytest.approx(0.3, abs=0.06)
    assert p[~hard, 0].mean() == pytest.approx(0.8, abs=0.06)
    assert p[:, 1].mean() == pytest.approx(0.8, abs=0.04)


def test_one_sided_rows_are_enough(log):
    """Each request answered by one tier only, hard ones mostly by the large: weights undo that."""
    rng = np.random.default_rng(3)
    to_large = np.where(log.hard[:FIT], 0.8, 0.3)
    large = rng.random(FIT) < to_large
    score = log.requests.score[:FIT].copy()
    score[large, 0] = score[~large, 1] = np.nan
    weight = np.stack([1 / (1 - to_large), 1 / to_large], axis=1)
    p = probabilities(log.fit(score, weight), log.x)[FIT:]
    hard = log.hard[FIT:]
    assert p[~hard, 0].mean() > p[hard, 0].mean() + 0.3
    assert abs(p[:, 0].mean() - log.requests.score[FIT:, 0].mean()) < 0.12


def test_a_tier_that_answered_one_request_in_ten_still_shapes_the_gain(log):
    rows, weight, hard = np.arange(700), np.tile([10.0, 1 / 0.9], (700, 1)), log.hard[700:]
    won = []
    for seed in range(4):  # with 70 answers one draw tells little
        explored = np.random.default_rng(seed).random(len(rows)) < 0.1
        score = log.requests.score[rows].copy()
        score[explored, 1] = score[~explored, 0] = np.nan
        p = probabilities(log.fit(score, weight, rows=rows), log.x)[700:]
        gain = p[:, 1] - p[:, 0]
        won.append((gain[hard][:, None] > gain[~hard]).mean())
    assert np.mean(won) > 0.8  # of the pairs of a hard and an easy request; by chance 0.5


def test_more_tiers_than_two(log):
    rng = np.random.default_rng(4)
    easy, hard = np.array([0.9, 0.95, 0.5, 0.97]), np.array([0.1, 0.8, 0.4, 0.97])
    chance = np.where(log.hard[:, None], hard, easy)
    score = (rng.random(chance.shape) < chance) * 1.0
    fitted = log.fit(score[:FIT], names=("a", "b", "c", "d"))
    p = probabilities(fitted, log.x)[FIT:]
    assert np.abs(p - chance[FIT:]).mean() < 0.15
    assert fitted.p.shape == (FIT, 4)


def test_the_same_seed_gives_the_same_heads(log, fitted):
    again = log.fit()
    np.testing.assert_array_equal(again.p, fitted.p)
    np.testing.assert_array_equal(probabilities(again, log.x), probabilities(fitted, log.x))


def test_the_blend_finds_the_member_that_knows():
    rng = np.random.default_rng(5)
    truth = rng.normal(0, 2, (4000, 2))
    score = (rng.random(truth.shape) < 1 / (1 + np.exp(-truth))) * 1.0
    margins = np.stack([rng.normal(size=truth.shape), truth, rng.normal(size=truth.shape)])
    blend = fit_blend(margins, score, np.ones_like(score), GAP_SHARES)
    assert blend.level[1] == pytest.approx(1.0, abs=0.1)
    assert blend.gap[1] == pytest.approx(1.0, abs=0.1)
    assert blend.level[[0, 2]].max() < 0.15


def taught(score):
    """Score, weights of 1, trusted throughout."""
    return score, np.ones_like(score), np.ones_like(score, dtype=bool)


def test_the_blend_stays_near_equal_on_little_data():
    rng = np.random.default_rng(6)
    margins = rng.normal(size=(3, 12, 2))
    blend, _, _ = blend_members(margins, *taught((rng.random((12, 2)) < 0.5) * 1.0))
    assert isinstance(blend, Blend)
    assert np.abs(blend.level - 1 / 3).max() < 0.15
    assert np.abs(blend.gap - [0.75, 0.125, 0.125]).max() < 0.15


def test_a_member_left_out_leaves_the_others_their_shares():
    margins, score = np.zeros((2, 12, 2)), np.full((12, 2), 0.5)
    blend, _, _ = blend_members(margins, *taught(score), [0, 2])
    np.testing.assert_allclose(blend.gap, (6 / 7, 1 / 7))


def test_the_encoder_is_weighed_beside_the_others_together():
    """It speaks of a fifth of the rows: the others are weighed against each other on all."""
    rng = np.random.default_rng(7)
    truth = rng.normal(0, 2, (2000, 2))
    score = (rng.random(truth.shape) < 1 / (1 + np.exp(-truth))) * 1.0
    margins = truth + rng.normal(size=(4, 2000, 2)) * np.array([1, 3, 2, 1])[:, None, None]
    margins[3, 400:] = np.nan
    alone, without, _ = blend_members(margins[:3], *taught(score))
    blend, combined, whole = blend_members(margins, *taught(score))
    assert whole.sum() == 400 and whole[:400].all()
    np.testing.assert_array_equal(combined[400:], without[400:])
    np.testing.assert_allclose(combined[:400], blend.combine(margins[:, :400]))
    for ours, theirs in ((blend.level, alone.level), (blend.gap, alone.gap)):
        np.testing.assert_allclose(ours[:3] / ours[:3].sum(), theirs / theirs.sum())
        assert 0.2 < ours[3] < 0.6


def lessons_of(log, score, recipe=STANDARD):
    x, folds = log.x.take(np.arange(len(score))), divide(np.arange(len(score)), 0)
    return Lessons(x, Bins.of(x), score, np.ones_like(score), folds * 0, folds, 5, 0, recipe)


def test_what_tiers_differ_by_has_penalties_of_its_own(log):
    """Tiers that fail on the same requests: hard ones are told from easy ones, tiers are not."""
    chance = np.where(log.hard, 0.15, 0.95)[:, None]
    spread = []
    for seed in range(3):
        score = (np.random.default_rng(seed).random((900, 2)) < chance) * 1.0
        lessons = lessons_of(log, score)
        line = best_linear(cross_fit(lessons), lessons)
        strengths = np.array([ridge.c for ridge in line.way.ridges])
        assert line.gap @ np.log(strengths) < np.log(line.penalty.c) - 0.5
        alone = line.way.linear(int(line.level.argmax()))
        np.testing.assert_allclose(line.margins().mean(axis=1), alone.mean(axis=1))
        spread.append(np.ptp(line.margins(), axis=1).mean() / np.ptp(alone, axis=1).mean())
    assert np.mean(spread) < 0.8


def test_the_linear_member_served_is_the_mean_of_its_penalties(log):
    lessons = lessons_of(log, log.requests.score)
    [way] = cross_fit(lessons)
    line = LinearBlend(way, np.array([0.0, 0.0, 1.0, 0.0]), np.array([0.3, 0.0, 0.2, 0.5]))
    under = fit_ridges(*lessons.labelled(lessons.taught()), line.way.ridges)
    margins = [[linear_margins(one, log.x) for one in of_tier] for of_tier in under]
    wanted = blended(line.level, line.gap, np.moveaxis(np.array(margins), 0, -1))
    served = [linear_margins(one, log.x) for one in all_linears(lessons, line)]
    np.testing.assert_allclose(np.stack(served, axis=1), wanted, atol=1e-4)


def test_prototypes_stand_for_ten_sessions_or_more(log):
    rows = np.arange(900)
    sessions = log.requests.sessions
    geometry = fit_geometry(log.x.dense, SURFACE, sessions, 0)
    for j in range(len(geometry.centroids)):
        assert len(set(sessions[rows[geometry.nearest == j]])) >= 10
    assert len(geometry.centroids) > 5
    np.testing.assert_allclose(np.linalg.norm(geometry.centroids, axis=1), 1.0, atol=1e-5)


def test_neighbours_count_every_row_once(fitted, log):
    near = fitted.neighbours
    assert isinstance(near, Neighbours)
    np.testing.assert_allclose(near.rows.sum(axis=1), [FIT, FIT])
    np.testing.assert_allclose(near.successes.sum(axis=1), log.requests.score[:FIT].sum(axis=0))


def fit_one(x, score, weight):
    """The linear member of one tier with one penalty."""
    return fit_ridges(x, score[:, None], weight[:, None], STANDARD.ridges[1:2])[0][0]


def test_the_linear_member_takes_a_score_as_a_share_of_a_success(log):
    """A score of 0.25 is one success in four rows alike."""
    x = log.x.take(np.repeat(np.arange(60), 4))
    rng = np.random.default_rng(7)
    share = rng.integers(0, 5, 60)
    rows = np.concatenate([np.arange(4) < s for s in share]) * 1.0
    four = linear_margins(fit_one(x, rows, np.ones(240)), log.x)
    graded = fit_one(log.x.take(np.arange(60)), share / 4, np.full(60, 4.0))
    np.testing.assert_allclose(four, linear_margins(graded, log.x), atol=0.02)


@pytest.mark.parametrize("ridge", STANDARD.ridges)
def test_the_linear_member_is_scikit_learn_s(log, ridge):
    """Graded and weighted rows, of which some are unlabelled, as a success and a failure each."""
    rng = np.random.default_rng(3)
    score, weight = rng.random(900), rng.uniform(0.2, 3.0, 900)
    score[:300] = log.requests.score[:300, 0]
    score[rng.random(900) < 0.2] = np.nan
    seen = np.flatnonzero(~np.isnan(score))
    dense, _ = standardise(log.x.dense, ridge.dense)
    known = np.unique(log.x.terms.indices)
    features = sparse.hstack([dense, log.x.terms[:, known]]).tocsr()
    theirs = LogisticRegression(C=ridge.c, max_iter=400).fit(
        features[np.tile(seen, 2)],
        np.repeat([1, 0], len(seen)),
        np.concatenate([weight[seen] * score[seen], weight[seen] * (1 - score[seen])]),
    )
    ours = fit_ridges(log.x, score[:, None], weight[:, None], [ridge])[0][0]
    np.testing.assert_allclose(
        linear_margins(ours, log.x), theirs.decision_function(features), atol=2e-3
    )


def test_the_linear_member_does_not_run_away(log):
    linear = fit_one(log.x, log.requests.score[:, 0], np.ones(900))
    far = Matrix(log.x.dense[:5] * 1e6, log.x.terms[:5], log.x.tokens[:5], log.x.read[:5])
    assert np.abs(linear_margins(linear, far)).max() < 30
