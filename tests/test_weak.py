"""Weak labels: read in the light of the prompt, and never the level that heads are held to."""

import numpy as np
import pandas as pd
import pytest

from tests.traffic_makers import TIERS
from training.learn.heads import FIRM_ROWS, _level_rows
from training.learn.weak import expected_scores, weak_labels
from training.log.requests import gather
from training.log.traffic import normalise

NAN = float("nan")


def requests(*rows):
    """One request a row: tier, score, label weight, propensity."""
    columns = {
        "request_id": [f"r{i}" for i in range(len(rows))],
        "messages": ["hi"] * len(rows),
        "tier": [row[0] for row in rows],
        "score": [row[1] for row in rows],
        "label_weight": [row[2] for row in rows],
        "propensity": [row[3] for row in rows],
    }
    frame, problems = normalise(columns, len(rows))
    assert not problems
    return gather(pd.DataFrame(frame), TIERS)


def test_a_weak_label_moves_the_prior_and_a_firm_one_replaces_it():
    given = requests(
        ("small", 0.0, 0.6, 0.5), ("small", 1.0, 0.6, None), ("small", 0.0, 0.98, 0.25)
    )
    weak = np.array([[True, False], [True, False], [False, False]])
    score, weight = expected_scores(given, np.full((3, 2), 0.8), weak)
    odds = (1 + 0.6) / (1 - 0.6)
    assert score[0, 0] == pytest.approx(4 / odds / (1 + 4 / odds))
    assert score[1, 0] == pytest.approx(4 * odds / (1 + 4 * odds))
    assert score[2, 0] == 0.0
    assert np.isnan(score[:, 1]).all()
    assert weight[:, 0] == pytest.approx([2.0, 1.0, 0.98 * 4])


def test_one_step_finds_the_rate_that_weak_labels_hide():
    """Users question 60 % of wrong answers and 5 % of right ones; the rest they leave alone."""
    rng = np.random.default_rng(0)
    right = rng.random(20_000) < 0.3
    asked_again = rng.random(20_000) < np.where(right, 0.05, 0.6)
    sure = (12 - 1) / (12 + 1), (0.95 / 0.4 - 1) / (0.95 / 0.4 + 1)
    said = requests(
        *[("small", float(not again), min(sure[not again], 0.64), None) for again in asked_again]
    )
    naive = 1.0 - asked_again.mean()
    p = np.full((20_000, 2), 0.3)
    expected = expected_scores(said, p, ~np.isnan(said.score))[0][:, 0].mean()
    assert abs(expected - 0.3) < 0.25 * abs(naive - 0.3)


def test_firm_rows_set_the_level_where_there_are_enough():
    score = np.tile([0.0, 1.0], 200)
    firm = np.arange(400) < 150
    assert _level_rows(score, firm).tolist() == list(range(150))
    assert len(_level_rows(score, np.arange(400) < 50)) == 400
    assert len(_level_rows(np.where(firm, 1.0, score), firm)) == 400  # they do not vary
    assert len(_level_rows(score, None)) == 400


def test_weak_labels_without_firm_ones_are_left_as_they_are():
    weak = [("small", 0.0, 0.5, None)] * 5
    firm = [("small", float(n % 2), 0.98, None) for n in range(FIRM_ROWS)]
    large = [("large", 0.0, 0.5, None)] * 3
    assert not weak_labels(requests(*weak, *large)).any()
    found = weak_labels(requests(*weak, *large, *firm))
    assert np.flatnonzero(found.any(axis=1)).tolist() == [0, 1, 2, 3, 4]
    assert not found[:, 1].any()
