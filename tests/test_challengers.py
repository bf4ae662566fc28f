"""Challengers: what they may learn from, and by what they are compared."""

from dataclasses import replace

import numpy as np
import pytest

from tests.traffic_makers import TIERS, make_rows, requests_of
from training.config import Config
from training.decide.goals import MinQuality
from training.errors import BadInput
from training.features import resolve_sources
from training.ground import lay_out
from training.label.rule import LabelRule
from training.learn import heads
from training.learn.weak import firm_only
from training.retrain.challengers import ALL, FIRM, SUFFICED, train_challengers

RULE = LabelRule(sufficed_at=0.6)


@pytest.fixture(autouse=True)
def _few_trees(monkeypatch):
    monkeypatch.setattr(heads, "MAX_ROUNDS", 20)


def ground_of(rows, folder):
    config = Config(policy=MinQuality(0.9))
    return lay_out(requests_of(rows, folder), (), TIERS, config, (0.8, 0.15, 0.05), 0)


def graded(n=500):
    """Scores of both tiers in fifths, high where the tier suffices."""
    rng, rows = np.random.default_rng(5), make_rows(n)
    for row in rows:
        row["score"] = float(rng.choice((0.6, 0.8, 1.0) if row["score"] else (0.0, 0.2, 0.4)))
    return rows


def challengers(ground, labels, count):
    return list(
        train_challengers(ground, {"static": resolve_sources("static")}, labels, RULE, count, 0)
    )


def test_a_head_estimates_the_score_whatever_its_members_learned(tmp_path):
    ground = ground_of(graded(), tmp_path)
    plain, sufficed, searched = challengers(ground, (ALL, SUFFICED), 3)
    assert plain.name == "static, all labels, standard"
    assert sufficed.name == "static, sufficed labels, standard"
    assert searched.name.endswith("labels, trial 1")
    score = ground.fit_rows.score
    for one in (plain, sufficed):
        np.testing.assert_allclose(
            one.fitted.learned.heads.p.mean(axis=0), score.mean(axis=0), atol=0.02
        )
    # The members learned other things: a score of 0.6 and one of 1.0 are the same to the second.
    bias = [one.fitted.learned.heads.heads[0].linear.bias for one in (plain, sufficed)]
    assert abs(bias[0] - bias[1]) > 0.05
    assert set(plain.merits) == set(sufficed.merits)


@pytest.mark.slow
def test_a_firm_challenger_knows_nothing_of_weak_labels(tmp_path):
    rows = make_rows(500)
    weak = [row for i, row in enumerate(rows) if i % 6 < 2]  # every third request
    for row in weak:
        row |= {"score": 1.0 - row["score"], "label_weight": 0.3}
    ground = ground_of(rows, tmp_path)
    everything, firm = challengers(ground, (ALL, FIRM), 2)
    blank = replace(ground, requests=firm_only(ground.requests))
    (without,) = challengers(blank, (ALL,), 1)
    ridges = [
        one.fitted.learned.heads.heads[0].linear.weights for one in (firm, without, everything)
    ]
    np.testing.assert_array_equal(ridges[0], ridges[1])
    assert not np.array_equal(ridges[0], ridges[2])
    assert firm.merits == without.merits  # compared on the trusted scores alone


def test_a_label_rule_that_changes_nothing_is_not_tried(tmp_path):
    ground = ground_of(make_rows(400), tmp_path)  # scores of 0 and 1, all of them trusted
    first, second = challengers(ground, (ALL, FIRM, SUFFICED), 2)
    assert [first.name, second.name] == ["static, standard", "static, trial 1"]
    with pytest.raises(BadInput, match=r"\[train\] labels.*add \"all\""):
        challengers(ground, (FIRM, SUFFICED), 2)


@pytest.mark.slow
def test_the_search_moves_both_learned_members(tmp_path):
    ground = ground_of(make_rows(400), tmp_path)
    standard, *trials = challengers(ground, (ALL,), 3)
    assert standard.parameters["ridge_strength"] == standard.parameters["ridge_dense"] == 1.0
    for trial in trials:
        told = trial.parameters
        assert 0.3 <= told["ridge_strength"] <= 3.0
        assert 0.5 <= told["ridge_dense"] <= 2.0
        assert 7 <= told["num_leaves"] <= 31
        chosen = trial.fitted.learned.heads.choices["ridge_c"] / told["ridge_strength"]
        assert np.isclose(chosen, (0.3, 1.0, 3.0)).any()
    again = challengers(ground, (ALL,), 2)[1]
    assert again.parameters == trials[0].parameters
    assert again.merits == trials[0].merits
    assert replace(again, name="x").merit == again.merit
