"""Several sources as one label, and what one source says of another."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.label.agreement import compare
from training.label.combine import combine
from training.label.plan import WEIGHTS, LabelPlan
from training.label.trust import OVERLAP, trust
from training.log.requests import FIRM

PLAN = LabelPlan()
GRADED = 400
NAN = float("nan")


def together(scores, plan=PLAN, who=None):
    """The labels that `suffice label` makes of the sources' scores."""
    scores = {name: np.array(given, dtype=float) for name, given in scores.items()}
    if who is None:
        who = np.zeros(len(next(iter(scores.values()))), np.int32)
    return combine(scores, trust(scores, who, plan, 0.5), who, plan, 0.5)


def one(plan=PLAN, **scores):
    """Score, weight and sources of a single row."""
    labels = together({name: [s] for name, s in scores.items()}, plan)
    return float(labels.score[0]), float(labels.weight[0]), labels.names(0, 1)[0]


@pytest.mark.parametrize("source", [name for name, weight in WEIGHTS.items() if weight])
def test_a_source_alone_keeps_its_score_and_its_weight(source):
    score, weight, names = one(**{source: 0.7})
    assert (score, names) == (0.7, source)
    assert weight == pytest.approx(WEIGHTS[source])


def test_weights_are_ordered_as_the_page_says():
    order = ("grader", "feedback", "judge", "escalation", "retry", "thanked", "abandoned")
    assert sorted(order, key=WEIGHTS.__getitem__, reverse=True) == list(order)


def test_agreement_adds_and_conflict_takes_away():
    alone, both = one(feedback=0.0)[1], one(feedback=0.0, escalation=0.0)
    assert both[0] == 0.0
    assert both[1] > alone
    assert both[2] == "feedback+escalation"
    score, weight, names = one(feedback=1.0, escalation=0.0)
    assert score == 1.0
    assert 0 < weight < alone
    assert names == "feedback+escalation"


def test_a_score_at_the_bar_stands_with_those_above_it():
    score, weight, names = one(feedback=0.5, judge=1.0)
    assert 0.5 < score < 1.0
    assert weight > one(feedback=0.5)[1] and weight > one(judge=1.0)[1]
    assert names == "feedback+judge"


def test_many_weak_sources_outvote_one_that_is_stronger():
    assert one(feedback=1.0, escalation=0.0, complaint=0.0, retry=0.0)[0] == 0.0
    assert one(grader=1.0, escalation=0.0, complaint=0.0, retry=0.0)[0] == 1.0


def test_evidence_that_cancels_out_is_no_label():
    plan = LabelPlan({**WEIGHTS, "a": 0.5, "b": 0.5})
    labels = together({"a": [1.0, NAN], "b": [0.0, NAN]}, plan)
    assert np.isnan(labels.score).all()
    assert labels.conflicts == 1
    assert labels.names(0, 2) == [None, None]


def test_a_source_without_weight_labels_nothing():
    assert one(abandoned=1.0)[2] is None
    assert one(abandoned=1.0, thanked=1.0)[2] == "thanked"


def test_an_unknown_source_counts_as_feedback():
    assert one(thumbs=1.0)[1] == pytest.approx(WEIGHTS["feedback"])


@given(
    st.dictionaries(st.sampled_from(sorted(WEIGHTS)), st.floats(0, 1) | st.just(NAN), min_size=1)
)
def test_labels_stay_in_range(scores):
    score, weight, names = one(**scores)
    assert np.isnan(score) == np.isnan(weight) == (names is None)
    if names:
        assert 0.0 <= score <= 1.0
        assert 0.0 < weight <= 1.0


def test_rates_of_the_weaker_by_the_stronger():
    strong = np.array([1, 1, 1, 1, 0, 0, 0, NAN])
    weak = np.array([1, 1, 0, NAN, 0, 1, NAN, 1])
    (pair,) = compare({"strong": strong, "weak": weak}, ("strong", "weak"), 0.5)
    assert (pair.stronger, pair.weaker) == ("strong", "weak")
    assert (pair.agree.n, pair.agree.value) == (5, 0.6)
    assert (pair.false_positive.n, pair.false_positive.value) == (3, pytest.approx(1 / 3))
    assert (pair.false_negative.n, pair.false_negative.value) == (4, 0.25)
    assert pair.agree.low < 0.6 < pair.agree.high


def test_sources_that_never_meet_are_not_compared():
    assert compare({"a": np.array([1, NAN]), "b": np.array([NAN, 1])}, ("a", "b"), 0.5) == []


def test_intervals_hold_the_true_rates():
    """Of 400 logs, about 5 % of the intervals miss the rate that the log was drawn with."""
    rng, missed = np.random.default_rng(0), 0
    for _ in range(400):
        truth = (rng.random(300) < 0.7).astype(float)
        wrong = rng.random(300) < np.where(truth > 0, 0.1, 0.3)
        (pair,) = compare({"a": truth, "b": np.where(wrong, 1 - truth, truth)}, ("a", "b"), 0.5)
        missed += not pair.false_negative.low <= 0.1 <= pair.false_negative.high
        missed += not pair.false_positive.low <= 0.3 <= pair.false_positive.high
    assert missed < 0.09 * 800


def graded(rng, said):
    """Grades of GRADED answers, half of them right, and what another source says: NaN, 0 or 1."""
    truth = (np.arange(GRADED) % 2).astype(float)
    return {"grader": truth, "signal": np.array([said(t, rng.random()) for t in truth])}


def weight_of(scores, name, plan=PLAN, who=None):
    labels = together(scores, plan, who)
    return dict(zip(labels.sources, labels.trusted, strict=True))[name]


def test_a_source_is_trusted_as_far_as_graded_answers_show():
    """It says 0 of 60 % of wrong answers and of 5 % of right ones: 12 times likelier of a wrong."""
    found = []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        said = graded(rng, lambda t, u: 0.0 if u < (0.05 if t else 0.6) else NAN)
        found.append(weight_of(said, "signal"))
    assert np.mean(found) == pytest.approx((12 - 1) / (12 + 1), abs=0.03)


def test_what_speaks_of_right_and_wrong_alike_is_not_heard():
    scores = graded(np.random.default_rng(0), lambda t, u: 1.0)
    scores = {"grader": np.append(scores["grader"], NAN), "thanked": np.ones(GRADED + 1)}
    labels = together(scores)
    assert labels.trusted[1] == pytest.approx(0.0, abs=0.02)
    assert np.isnan(labels.weight[-1]) or labels.weight[-1] < 0.02


def test_evidence_against_what_a_source_says_is_none():
    said = graded(np.random.default_rng(0), lambda t, u: 1.0 if u < (0.1 if t else 0.9) else NAN)
    assert weight_of(said, "signal") == 0.0


def test_a_weight_that_the_user_set_is_never_measured():
    said = graded(np.random.default_rng(0), lambda t, u: 1.0 if u < 0.5 else NAN)
    assert weight_of(said, "signal", LabelPlan({"signal": 0.3})) == pytest.approx(0.3)


def test_few_graded_answers_measure_nothing():
    scores = {"grader": np.full(OVERLAP - 1, 1.0), "thanked": np.ones(OVERLAP - 1)}
    assert weight_of(scores, "thanked") == pytest.approx(WEIGHTS["thanked"])


def test_what_silence_means_depends_on_who_answered():
    """Nobody escalates from the top tier: there, silence follows right and wrong answers alike."""
    rng = np.random.default_rng(0)
    who = np.repeat([0, 1], 1000).astype(np.int32)
    truth = (rng.random(2000) < 0.7).astype(float)
    silent = np.where((who == 0) & (truth == 0) & (rng.random(2000) < 0.6), NAN, 1.0)
    grader = np.where(rng.random(2000) < 0.5, truth, NAN)
    labels = together({"grader": grader, "abandoned": silent}, who=who)
    alone = np.isnan(grader) & ~np.isnan(silent)
    assert labels.weight[alone & (who == 0)].mean() == pytest.approx((1 - 0.4) / (1 + 0.4), abs=0.1)
    top = np.nan_to_num(labels.weight[alone & (who == 1)])
    assert top.mean() == pytest.approx(0.0, abs=0.02)


def test_sources_that_are_not_firm_never_add_up_to_a_firm_label():
    mine = {"survey": 0.5, "poll": 0.5}
    assert one(LabelPlan(mine), survey=0.0, poll=0.0, escalation=0.0)[1] < FIRM
    assert one(feedback=0.0, escalation=0.0)[1] >= FIRM


def test_signals_that_agree_weigh_what_they_say():
    evidence = sum(2 * np.arctanh(WEIGHTS[name]) for name in ("escalation", "complaint"))
    assert one(escalation=0.0, complaint=0.0)[1] == pytest.approx(np.tanh(evidence / 2))
