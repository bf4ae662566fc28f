"""Weak labels: read in the light of the prompt, and never the level that heads are held to."""

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit, logit

from tests.traffic_makers import TIERS
from training.learn.calibrate import FIRM_ROWS, calibrate, level_rows
from training.learn.weak import matched_labels, weak_labels
from training.log.normalise import normalise
from training.log.requests import gather

NAN = float("nan")


def requests(*rows):
    """One request a row: tier, score, label weight, propensity; of signals where it is below 1."""
    columns = {
        "request_id": [f"r{i}" for i in range(len(rows))],
        "messages": ["hi"] * len(rows),
        "tier": [row[0] for row in rows],
        "score": [row[1] for row in rows],
        "label_weight": [row[2] for row in rows],
        "propensity": [row[3] for row in rows],
        "score_source": ["escalation+went_on" if row[2] < 0.97 else "grader" for row in rows],
    }
    frame, problems = normalise(columns, len(rows))
    assert not problems
    return gather(pd.DataFrame(frame), TIERS)


def test_a_weak_label_pulls_as_its_likelihood_does_and_a_firm_one_stays():
    given = requests(
        ("small", 0.0, 0.8, 0.5), ("small", 1.0, 0.8, None), ("small", 0.0, 0.98, 0.25)
    )
    weak = weak_labels(given) | np.array([[True, False], [True, False], [False, False]])
    p, ratio, step = 0.7, 9.0, 1e-6
    score, weight = matched_labels(given, np.full((3, 2), p), weak)
    assert score[:, 0].tolist() == [0.0, 1.0, 0.0]
    assert np.isnan(score[:, 1]).all()
    assert weight[2, 0] == pytest.approx(0.98 * 4)
    for row, (one, other) in enumerate([(1.0, ratio), (ratio, 1.0)]):  # likelihood if right, wrong

        def nats(z, one=one, other=other):
            return np.log(expit(z) * one + expit(-z) * other)

        slope = (nats(logit(p) + step) - nats(logit(p) - step)) / (2 * step)
        copies = 1 / given.propensity[row, 0] if row == 0 else 1.0
        assert weight[row, 0] * (score[row, 0] - p) == pytest.approx(copies * slope, rel=1e-4)


def test_at_even_odds_a_label_counts_as_its_weight():
    given = requests(("small", 0.0, 0.3, None), ("small", 1.0, 0.9, None))
    _, weight = matched_labels(given, np.full((2, 2), 0.5), ~np.isnan(given.score))
    assert weight[:, 0] == pytest.approx([0.3, 0.9])


def test_signals_are_weak_whatever_they_weigh():
    given = requests(("small", 0.0, 0.9, None), ("small", 0.0, 0.98, None))
    assert given.trusted[:, 0].tolist() == [False, True]
    assert given.firm.tolist() == [False, True]


def test_the_likeliest_rate_is_found_where_most_say_little():
    """Users question 60 % of wrong answers and 5 % of right ones; the rest they leave alone."""
    rng = np.random.default_rng(0)
    right = rng.random(20_000) < 0.3
    asked_again = rng.random(20_000) < np.where(right, 0.05, 0.6)
    sure = (12 - 1) / (12 + 1), (0.95 / 0.4 - 1) / (0.95 / 0.4 + 1)
    said = requests(*[("small", float(not a), sure[not a], None) for a in asked_again])
    p, naive = 0.5, np.average(said.score[:, 0], weights=said.weight[:, 0])
    for _ in range(3):
        score, weight = matched_labels(said, np.full((20_000, 2), p), ~np.isnan(said.score))
        p = np.average(score[:, 0], weights=weight[:, 0])
    assert abs(p - 0.3) < 0.02 < abs(naive - 0.3)


def test_firm_rows_set_the_level_where_there_are_enough():
    score = np.tile([0.0, 1.0], 200)
    firm = np.arange(400) < 150
    assert level_rows(score, firm).tolist() == list(range(150))
    assert len(level_rows(score, np.arange(400) < 50)) == 400
    assert len(level_rows(np.where(firm, 1.0, score), firm)) == 400  # they do not vary
    assert len(level_rows(score, np.ones(400, bool))) == 400


def test_weak_rows_tell_the_slope_and_firm_ones_the_level():
    """Over draws: closer to the truth than 150 firm rows alone, and not biased as the weak are."""
    ours, firm_alone, level = [], [], []
    for seed in range(10):
        rng = np.random.default_rng(seed)
        margin = rng.normal(0, 1.5, 4000)
        firm = np.arange(4000) < 150
        lower = np.where(firm, 0.0, 1.0)  # users complain of what is right, too
        score = (rng.random(4000) < expit(1.5 * margin - lower)) * 1.0
        truth = expit(1.5 * margin)
        columns = [values[:, None] for values in (margin, score, np.ones(4000), firm)]
        [both], [firm_only] = calibrate(*columns), calibrate(*(c[firm] for c in columns))
        found, alone = both.probability(margin), firm_only.probability(margin)
        ours.append(np.mean((found - truth) ** 2))
        firm_alone.append(np.mean((alone - truth) ** 2))
        level.append(found.mean() - truth.mean())
    assert np.mean(ours) < 0.7 * np.mean(firm_alone)
    assert abs(np.mean(level)) < 0.02


def test_weak_labels_without_firm_ones_are_left_as_they_are():
    weak = [("small", 0.0, 0.5, None)] * 5
    firm = [("small", float(n % 2), 0.98, None) for n in range(FIRM_ROWS)]
    large = [("large", 0.0, 0.5, None)] * 3
    assert not weak_labels(requests(*weak, *large)).any()
    found = weak_labels(requests(*weak, *large, *firm))
    assert np.flatnonzero(found.any(axis=1)).tolist() == [0, 1, 2, 3, 4]
    assert not found[:, 1].any()
