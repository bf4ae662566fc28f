"""One row per request, one column per tier."""

import numpy as np
import pytest

from router.tier import Tier
from tests.traffic_makers import make_rows, requests_of
from training.errors import BadInput
from training.requests import plain_model


@pytest.mark.parametrize(
    ("model", "plain"),
    [
        ("gpt-4o", "gpt-4o"),
        ("openai/gpt-4o-2024-08-06", "gpt-4o"),
        ("azure/openai/GPT-4o-20240806", "gpt-4o"),
        ("claude-3-5-sonnet@2024-10-22", "claude-3-5-sonnet"),
        ("gpt-4-0613", "gpt-4"),
        ("llama-3-70b", "llama-3-70b"),
        (" vendor/small-1 ", "small-1"),
    ],
)
def test_names_without_provider_and_snapshot(model, plain):
    assert plain_model(model) == plain


def test_models_stand_for_tiers(tmp_path):
    rows = make_rows(6)
    for row in rows:
        row["model"] = f"openai/{row['model'].split('/')[1]}-2026-01-31"
        row["tier"] = None
    requests = requests_of(rows, tmp_path)
    assert requests.paired.all()
    assert requests.score[:, 0].tolist() == [r["score"] for r in rows[::2]]


def test_two_snapshots_of_one_model_may_be_two_tiers(tmp_path):
    tiers = (Tier("old", "gpt-4o-2024-05-13", 1, 1), Tier("new", "gpt-4o-2024-08-06", 2, 2))
    rows = [row | {"tier": None} for row in make_rows(6, tiers=tiers)]
    requests = requests_of(rows, tmp_path, tiers)
    assert requests.paired.all()
    assert requests.score[:, 0].tolist() == [r["score"] for r in rows[::2]]


def test_an_unknown_tier_is_named_with_what_was_seen(tmp_path):
    rows = make_rows(6)
    rows[3] |= {"tier": "huge", "model": "vendor/huge-9"}
    with pytest.raises(BadInput, match=r"(?s)1 rows.*small, large.*huge / vendor/huge-9.*\[\[tier"):
        requests_of(rows, tmp_path)


def test_failed_calls_are_left_out(tmp_path):
    rows = make_rows(6)
    rows[0] |= {"status": "error", "score": 0.0}
    for row in rows[1:]:
        row["status"] = "ok"
    requests = requests_of(rows, tmp_path)
    assert len(requests) == 6
    assert np.isnan(requests.score[requests.ids == "r0", 0]).all()
    with pytest.raises(BadInput, match="every row is an error"):
        requests_of([row | {"status": "error"} for row in rows], tmp_path)


def test_one_sided_and_paired_requests(tmp_path):
    rows = make_rows(6)
    del rows[5], rows[0]
    requests = requests_of(rows, tmp_path)
    by_id = dict(zip(requests.ids, requests.score, strict=True))
    assert np.isnan(by_id["r0"]).tolist() == [True, False]
    assert np.isnan(by_id["r2"]).tolist() == [False, True]
    assert sorted(requests.ids[~requests.paired]) == ["r0", "r2"]


def test_weights_are_clipped_inverse_propensities(tmp_path):
    rows = make_rows(3)
    for row, propensity in zip(rows, (0.5, None, 0.01, 1.0, 0.05, 0.2), strict=True):
        row["propensity"] = propensity
    weight = requests_of(rows, tmp_path).weight
    np.testing.assert_allclose(weight, [[2.0, 1.0], [20.0, 1.0], [20.0, 5.0]])


def test_a_label_counts_by_its_weight(tmp_path):
    rows = make_rows(3)
    for row, trusted in zip(rows, (0.5, None, 0.25, 1.0, None, None), strict=True):
        row["label_weight"] = trusted
    rows[0]["propensity"] = 0.5
    weight = requests_of(rows, tmp_path).weight
    np.testing.assert_allclose(weight, [[1.0, 1.0], [0.25, 1.0], [1.0, 1.0]])


def test_answer_length_stands_for_missing_tokens(tmp_path):
    rows = make_rows(2)
    for row in rows:
        row["response"] = "x" * 40
    rows[0]["output_tokens"] = None
    tokens = requests_of(rows, tmp_path).output_tokens
    assert tokens[0, 0] == 10.0
    assert tokens[0, 1] == rows[1]["output_tokens"]


def test_sessions_and_requests_without_one(tmp_path):
    rows = make_rows(4, session=2)
    rows[6]["session_id"] = rows[7]["session_id"] = None
    sessions = requests_of(rows, tmp_path).sessions
    assert sessions[0] == sessions[1]
    assert len(set(sessions.tolist())) == 3


def test_the_order_of_rows_does_not_matter_to_what_is_known(tmp_path):
    rows = make_rows(20)
    one, other = requests_of(rows, tmp_path), requests_of(rows[::-1], tmp_path)
    assert one.ids.tolist() == other.ids.tolist()[::-1]
    np.testing.assert_array_equal(one.score, other.score[::-1])
