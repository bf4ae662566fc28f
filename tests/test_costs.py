"""Token models and the account of what answers cost."""

import numpy as np
import pytest

from router.prompt import Prompt
from router.vectorizer import Vectorizer
from tests.traffic_makers import TIERS, call, make_rows, requests_of
from training.learn.costs import account, expected, expected_tokens, fit_tokens, length_notes
from training.learn.embedders import resolve_embedder
from training.learn.vectorize import fit_ngrams, vectorize


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    """400 requests, 300 of them to fit on: hard prompts get answers ten times as long."""
    requests = requests_of(make_rows(400, seed=2), tmp_path_factory.mktemp("costs"))
    embedder = resolve_embedder("static")
    prompts = list(requests.prompts)
    x = vectorize(Vectorizer(embedder, fit_ngrams(embedder, prompts[:300], 0)), prompts)
    return x, requests


def changed(requests, **parts):
    rows = requests.take(np.arange(len(requests)))
    for name, values in parts.items():
        object.__setattr__(rows, name, values)
    return rows


def test_predictable_lengths_are_predicted(log):
    x, requests = log
    fit, new = np.arange(300), np.arange(300, 400)
    models, notes = fit_tokens(x.take(fit), requests.take(fit))
    assert notes == ()
    for k, model in enumerate(models):
        actual = requests.output_tokens[new, k]
        guess = np.array([model.output_tokens(vector) for vector in x.take(new).vectors()])
        constant = requests.output_tokens[fit, k].mean()
        assert np.abs(guess - actual).mean() < 0.6 * np.abs(constant - actual).mean()
        assert guess.mean() == pytest.approx(actual.mean(), rel=0.15)
        assert guess.min() >= 10.0
        assert guess.max() <= 250.0


def test_the_error_is_told_tier_by_tier(log):
    x, requests = log
    fit, new = np.arange(300), np.arange(300, 400)
    names = ("small", "large")
    models, notes = fit_tokens(x.take(fit), requests.take(fit), names)
    held_out = length_notes(x.take(new), requests.take(new), models, names)
    for name, note in zip(names * 2, (*notes, *held_out), strict=True):
        assert note.startswith(f"tier {name}: expected output tokens are off by")
        explained = int(note.split("%")[0].split()[-1].removesuffix("%"))
        assert 50 < explained <= 100  # easy and hard prompts differ tenfold, and are told apart


def test_lengths_that_nothing_predicts_are_constant_and_it_is_said(log):
    x, requests = log
    noise = np.random.default_rng(0).lognormal(4.0, 1.0, (400, 2))
    models, notes = fit_tokens(x, changed(requests, output_tokens=noise), ("small", "large"))
    guess = expected_tokens(x, models)[:, :, 1]
    for k in (0, 1):
        assert "not predictable" in notes[k]
        np.testing.assert_allclose(guess[:, k], noise[:, k].mean())


def test_skewed_lengths_are_no_further_off_than_a_constant(log):
    """What is aimed at is the mean: a long tail must not draw the rest away from it."""
    x, requests = log
    rng = np.random.default_rng(1)
    tokens = requests.output_tokens * rng.lognormal(-0.5, 1.0, (400, 2))
    rows, fit, new = changed(requests, output_tokens=tokens), np.arange(300), np.arange(300, 400)
    models, _ = fit_tokens(x.take(fit), rows.take(fit))
    guess = expected_tokens(x.take(new), models)[:, :, 1]
    ours = ((guess - tokens[new]) ** 2).mean(axis=0)
    assert (ours < ((tokens[fit].mean(axis=0) - tokens[new]) ** 2).mean(axis=0)).all()


def test_evaluate_tells_how_far_lengths_were_off(job, capsys, workdir):
    done = call(capsys, "evaluate", job.artifact, "--traffic", job.fresh)
    assert done.code == 0, done
    assert "tier small: expected output tokens are off by" in done.out
    told = call(capsys, "inspect", job.artifact)
    assert "(cross-fitted)" in told.out


def test_the_mean_is_kept_on_the_fit_rows(log):
    x, requests = log
    models, _ = fit_tokens(x, requests)
    usd = expected(x, models, TIERS)
    paid = account(x, requests, models, TIERS)
    np.testing.assert_allclose(usd.mean(axis=0), paid.mean(axis=0), rtol=0.03)


def test_input_tokens_follow_the_bill(log):
    x, requests = log
    billed = np.stack([3 * x.tokens + 40, 2 * x.tokens], axis=1)
    models, _ = fit_tokens(x, changed(requests, input_tokens=billed))
    for k in (0, 1):
        told = [models[k].input_tokens(t) for t in x.tokens]
        np.testing.assert_allclose(told, billed[:, k], rtol=1e-6)


def test_absurd_bills_give_no_negative_tokens(log):
    x, requests = log
    falling = np.stack([1000 - 5 * x.tokens, 100 * x.tokens - 500], axis=1).clip(0)
    models, _ = fit_tokens(x, changed(requests, input_tokens=falling))
    for model in models:
        assert model.input_tokens(0.0) >= 0.0
        assert model.input_tokens(1e5) > model.input_tokens(10.0)


def test_without_answer_lengths_only_input_counts_and_it_is_said(log):
    x, requests = log
    unknown = np.full((400, 2), np.nan)
    rows = changed(requests, output_tokens=unknown, input_tokens=unknown)
    models, notes = fit_tokens(x, rows)
    assert any("input tokens only" in note for note in notes)
    usd = expected(x, models, TIERS)
    np.testing.assert_allclose(usd, np.outer(x.tokens, [0.1, 5.0]) / 1e6)
    np.testing.assert_allclose(account(x, rows, models, TIERS), usd)


def test_a_tier_with_few_answers_uses_all_tiers(log):
    x, requests = log
    tokens = requests.output_tokens.copy()
    tokens[5:, 1] = np.nan
    models, _ = fit_tokens(x, changed(requests, output_tokens=tokens))
    easy, hard = (requests.output_tokens[:, 0] < 100), (requests.output_tokens[:, 0] >= 100)
    guess = np.array([models[1].output_tokens(vector) for vector in x.vectors()])
    assert guess[hard].mean() > 3 * guess[easy].mean()


def test_a_handful_of_answers_gives_their_mean(log):
    x, requests = log
    tokens = np.full((400, 2), np.nan)
    tokens[:4, 0] = (10, 20, 30, 40)
    models, notes = fit_tokens(x, changed(requests, output_tokens=tokens))
    assert notes == ()
    vector = next(x.vectors())
    assert [model.output_tokens(vector) for model in models] == pytest.approx([25.0, 25.0])


def test_the_account_takes_the_bill_then_prices_then_the_model(log):
    x, requests = log
    models, _ = fit_tokens(x, requests)
    cost = np.full((400, 2), np.nan)
    cost[0, 0] = 0.5
    sent, got = requests.input_tokens.copy(), requests.output_tokens.copy()
    got[2, 1] = np.nan
    sent[3, 0] = np.nan
    rows = changed(requests, cost_usd=cost, input_tokens=sent, output_tokens=got)
    usd = account(x, rows, models, TIERS)
    vectors = list(x.vectors())
    assert usd[0, 0] == 0.5
    assert usd[1, 1] == pytest.approx((5 * sent[1, 1] + 15 * got[1, 1]) / 1e6)
    made = models[1].output_tokens(vectors[2])
    assert usd[2, 1] == pytest.approx((5 * sent[2, 1] + 15 * made) / 1e6)
    asked = models[0].input_tokens(x.tokens[3])
    assert usd[3, 0] == pytest.approx((0.1 * asked + 0.4 * got[3, 0]) / 1e6)
    assert np.isfinite(usd).all()


def test_expected_is_what_serving_computes(log):
    x, requests = log
    models, _ = fit_tokens(x, requests)
    usd = expected(x, models, TIERS)
    for row, vector in zip(usd[:20], x.vectors(), strict=False):
        told = [model.expected_usd(tier, vector) for model, tier in zip(models, TIERS, strict=True)]
        np.testing.assert_allclose(row, told, rtol=1e-12)


def test_an_empty_prompt_has_a_cost(log):
    x, requests = log
    models, _ = fit_tokens(x, requests)
    embedder = resolve_embedder("static")
    vectorizer = Vectorizer(embedder, fit_ngrams(embedder, list(requests.prompts), 0))
    usd = expected(vectorize(vectorizer, [Prompt.of("")]), models, TIERS)
    assert (usd >= 0).all() and np.isfinite(usd).all()
