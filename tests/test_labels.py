"""The label rule: what counts as "this tier sufficed", and what is refused."""

import numpy as np
import pytest

from tests.traffic_makers import TIERS, make_rows, requests_of, write_log
from training.errors import BadInput
from training.label.rule import LabelRule, firm_requests, load_requests
from training.learn.splits import split


def test_an_absolute_limit_includes_itself():
    score = np.array([[0.49, 0.5], [0.5, 1.0]])
    assert LabelRule().sufficed(score).tolist() == [[False, True], [True, True]]
    assert LabelRule(sufficed_at=1.0).sufficed(score).tolist() == [[False, False], [False, True]]


def test_a_margin_of_a_tenth_is_a_tenth_at_every_score():
    """As judges score: 0.8 − 0.1 is a bit more than 0.7 in floats, 0.9 − 0.1 is 0.8."""
    top = np.arange(2, 11) / 10
    assert LabelRule(margin=0.1).sufficed(np.column_stack([top - 0.1, top])).all()
    assert LabelRule(margin=0.1).sufficed(np.column_stack([np.round(top - 0.1, 1), top])).all()
    assert not LabelRule(margin=0.1).sufficed(np.column_stack([top - 0.11, top]))[:, 0].any()


def test_a_margin_compares_with_the_top_tier():
    score = np.array([[0.2, 0.3], [0.7, 1.0], [0.9, 1.0]])
    rule = LabelRule(margin=0.125)
    assert rule.sufficed(score).tolist() == [[True, True], [False, True], [True, True]]


@pytest.mark.parametrize(
    ("values", "word"),
    [
        ({"sufficed_at": 0.0}, "sufficed_at"),
        ({"sufficed_at": 1.1}, "sufficed_at"),
        ({"sufficed_at": float("nan")}, "sufficed_at"),
        ({"margin": -0.1}, "margin"),
        ({"margin": 1.0}, "margin"),
        ({"margin": 0.1, "assume_top_suffices": True}, "never observed"),
    ],
)
def test_refused_rules(values, word):
    with pytest.raises(BadInput, match=word):
        LabelRule(**values)


def test_assume_top_suffices_fills_the_top_tier_only(tmp_path):
    rows = [row for row in make_rows(20) if row["tier"] == "small"]
    requests = requests_of(rows, tmp_path)
    filled = LabelRule(assume_top_suffices=True).apply(requests)
    assert (filled.score[:, 1] == 1.0).all()
    np.testing.assert_array_equal(filled.score[:, 0], requests.score[:, 0])
    assert np.isnan(requests.score[:, 1]).all()  # the input is not changed
    assert filled.paired.all()


def test_assume_top_suffices_is_refused_beside_observed_top_scores(tmp_path):
    requests = requests_of(make_rows(20), tmp_path)
    said = "20 rows hold a score of the top tier; train without the assumption"
    with pytest.raises(BadInput, match=said):  # also where an artifact brings the rule
        LabelRule(assume_top_suffices=True).apply(requests)


def test_the_assumption_leads_every_report():
    assert any("ASSUMED" in line for line in LabelRule(assume_top_suffices=True).warnings())
    assert LabelRule().warnings() == ()


def test_unlabelled_rows_are_not_failures(tmp_path):
    rows = make_rows(20)
    for row in rows[:6]:
        row["score"] = None
    requests, notes = load_requests(write_log(tmp_path / "log.parquet", rows), TIERS, LabelRule())
    assert len(requests) == 17
    assert any("3 requests carry no score" in note for note in notes)


def test_no_score_at_all_names_the_column(tmp_path):
    rows = [row | {"score": None} for row in make_rows(5)]
    with pytest.raises(BadInput, match="column score"):
        load_requests(write_log(tmp_path / "log.parquet", rows), TIERS, LabelRule())


def test_weak_labels_are_fitted_on_and_measure_nothing(tmp_path):
    rows = make_rows(200, session=1, timed=False)
    for row in rows[:200]:  # two a request
        row["label_weight"] = 0.6
    requests = requests_of(rows, tmp_path)
    splits = split(requests, (0.4, 0.3, 0.3), 0)
    assert not requests.firm[splits.fit].all()
    for part in (splits.choose, splits.test):
        assert requests.firm[part].all()
        assert len(part)
    assert "weakly labelled requests left out of choose and test" in splits.leakage
    firm, notes = firm_requests(requests)
    assert firm.ids.tolist() == [f"r{i}" for i in range(100, 200)]
    assert "100 requests" in notes[0]
    assert firm_requests(firm)[1] == ()


def test_a_table_of_weak_labels_alone_measures_nothing(tmp_path):
    rows = [row | {"label_weight": 0.6} for row in make_rows(20)]
    with pytest.raises(BadInput, match="label_weight"):
        firm_requests(requests_of(rows, tmp_path))
