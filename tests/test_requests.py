"""One row per request, one column per tier."""

import json
from dataclasses import fields
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.tier import Tier
from tests.traffic_makers import TIERS, make_rows, requests_of, write_log
from training.errors import BadInput
from training.label.rule import LabelRule, labelled_requests
from training.log.models import plain_model
from training.log.requests import propensity_notes
from training.log.traffic import read_traffic


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
        ("bedrock/us.anthropic.claude-3-haiku-20240307-v1:0", "claude-3-haiku"),
        ("meta.llama3-70b-instruct-v1:0", "llama3-70b-instruct"),
        ("openrouter/openai/gpt-4o-mini:free", "gpt-4o-mini"),
        ("claude-3-5-haiku-latest", "claude-3-5-haiku"),
        ("models/gemini-1.5-flash-002", "gemini-1.5-flash"),
        ("gpt-4.1-mini", "gpt-4.1-mini"),
        ("qwen2.5-72b", "qwen2.5-72b"),
        ("mixtral-8x7b-instruct-v0.1", "mixtral-8x7b-instruct-v0.1"),
        ("llama3:8b", "llama3:8b"),
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


@given(order=st.permutations(range(12)), untimed=st.sets(st.integers(0, 11)))
def test_the_order_of_the_rows_says_nothing(order, untimed):
    """Nor does it where the calls of one request were sent something else, or have no time."""
    rows = make_rows(6)
    for number, row in enumerate(rows):
        row["messages"] = json.dumps([{"role": "user", "content": f"call {number}"}])
        row["at"] = None if number in untimed else row["at"]
    with TemporaryDirectory() as folder:
        tables = [
            read_traffic(write_log(Path(folder) / "log.parquet", log))
            for log in (rows, [rows[i] for i in order])
        ]
    one, two = (labelled_requests(table, TIERS, LabelRule())[0] for table in tables)
    for part in fields(one):
        values = (getattr(one, part.name), getattr(two, part.name))
        np.testing.assert_array_equal(*values, err_msg=part.name)
    known = one.at[~np.isnat(one.at)]
    assert (np.diff(known) >= np.timedelta64(0)).all()


def test_two_snapshots_of_one_model_may_be_two_tiers(tmp_path):
    tiers = (Tier("old", "gpt-4o-2024-05-13", 1, 1), Tier("new", "gpt-4o-2024-08-06", 2, 2))
    rows = [row | {"tier": None} for row in make_rows(6, tiers=tiers)]
    requests = requests_of(rows, tmp_path, tiers)
    assert requests.paired.all()
    assert requests.score[:, 0].tolist() == [r["score"] for r in rows[::2]]


@pytest.mark.parametrize("models", [("gpt-4o-2024-05-13", "gpt-4o-2024-08-06"), ("gpt-4o",) * 2])
def test_a_model_that_may_be_two_tiers_is_refused_unless_the_tier_is_named(tmp_path, models):
    tiers = tuple(Tier(name, model, 1, 1) for name, model in zip("ab", models, strict=True))
    rows = [row | {"model": "openai/gpt-4o"} for row in make_rows(6, tiers=tiers)]
    assert requests_of(rows, tmp_path, tiers).paired.all()
    with pytest.raises(BadInput, match=r"'openai/gpt-4o' may be tier 'a' or 'b'.*column tier"):
        requests_of([row | {"tier": None} for row in rows], tmp_path, tiers)


def test_an_unknown_tier_is_named_with_what_was_seen(tmp_path):
    rows = make_rows(6)
    rows[3] |= {"tier": "huge", "model": "vendor/huge-9"}
    with pytest.raises(BadInput, match=r"(?s)1 rows.*small, large.*huge / vendor/huge-9.*\[\[tier"):
        requests_of(rows, tmp_path)


def test_rows_of_a_tier_that_is_not_routed_to_are_left_out(tmp_path):
    rows = make_rows(100)
    rare = [{**row, "tier": "rare", "model": "vendor/rare"} for row in rows[:20:2]]
    log = read_traffic(write_log(tmp_path / "log.parquet", [*rows, *rare]))
    requests, notes = labelled_requests(log, TIERS, LabelRule())
    assert (len(requests), requests.score.shape[1]) == (100, 2)
    assert any("10 rows are of no tier" in note and "vendor/rare" in note for note in notes)
    for one in rare:
        one["propensity"] = 0.1  # a chance in a choice among three tiers
    log = read_traffic(write_log(tmp_path / "log.parquet", [*rows, *rare]))
    with pytest.raises(BadInput, match="of no tier"):
        labelled_requests(log, TIERS, LabelRule())


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
    rows = make_rows(6)
    for row, propensity in zip(rows[::2], (0.5, None, 0.01, 0.9, 0.05, 0.2), strict=True):
        row["propensity"] = propensity
    requests = requests_of(rows[::2], tmp_path)
    np.testing.assert_allclose(requests.weight[:, 0], [2.0, 1.0, 20.0, 1 / 0.9, 20.0, 5.0])
    np.testing.assert_allclose(requests.weight[:, 1], 1.0)
    np.testing.assert_allclose(requests.propensity[:, 0], [0.5, np.nan, 0.01, 0.9, 0.05, 0.2])


def test_what_every_tier_answered_counts_once_whoever_was_chosen(tmp_path):
    """Weighed by its propensity, one request in ten would count as ten beside its own shadow."""
    rows = make_rows(3)
    for row, propensity in zip(rows, (0.1, None, None, 0.9, 0.01, None), strict=True):
        row |= {"propensity": propensity, "label_weight": 0.8}
    del rows[3]  # so that of r1 one tier's answer alone is known
    rows[2]["propensity"] = 0.1
    requests = requests_of(rows, tmp_path)
    np.testing.assert_allclose(requests.weight, [[0.8, 0.8], [8.0, 1.0], [0.8, 0.8]])
    np.testing.assert_allclose(requests.propensity[:, 0], [0.1, 0.1, 0.01])
    assert propensity_notes(requests) == ()


def test_a_label_counts_by_its_weight(tmp_path):
    rows = make_rows(3)
    for row, trusted in zip(rows, (0.5, None, 0.25, 1.0, None, None), strict=True):
        row["label_weight"] = trusted
    rows[0]["propensity"] = 0.5
    del rows[1]
    weight = requests_of(rows, tmp_path).weight
    np.testing.assert_allclose(weight, [[1.0, 1.0], [0.25, 1.0], [1.0, 1.0]])


@pytest.mark.parametrize("propensity", [0.0, -0.1, 1.2])
def test_a_propensity_is_a_chance(propensity, tmp_path):
    rows = [row | {"propensity": 0.4} for row in make_rows(6)]
    rows[5]["propensity"] = propensity
    with pytest.raises(BadInput, match=r"column propensity, row 6 \(request_id 'r2'\).*\(0, 1\]"):
        requests_of(rows, tmp_path)


def test_propensities_of_one_request_add_up_to_one_at_most(tmp_path):
    rows = [row | {"propensity": 0.5} for row in make_rows(6)]
    requests_of(rows, tmp_path)
    rows[4]["propensity"] = rows[5]["propensity"] = 0.7
    with pytest.raises(BadInput, match=r"column propensity: request 'r2'.*1\.4.*shadow"):
        requests_of(rows, tmp_path)


def test_notes_count_what_is_clipped_and_what_is_missing(tmp_path):
    rows = make_rows(4)[::2]
    assert propensity_notes(requests_of(rows, tmp_path)) == ()
    for row, propensity in zip(rows, (0.5, None, 0.01, 0.05), strict=True):
        row["propensity"] = propensity
    clipped, missing = propensity_notes(requests_of(rows, tmp_path))
    assert clipped.startswith("1 answers had propensities below 0.05, the least 0.01")
    assert "65.6% of all weight" in clipped  # 20 + 20 + 2 of 100 + 20 + 2
    assert missing.startswith("1 answers carry no propensity beside 3")


def test_weak_labels_are_not_firm_whatever_the_propensity(tmp_path):
    rows = make_rows(4)
    for row, trusted in zip(rows, (0.7, 1.0, 0.6, None, None, None, 0.3, None), strict=True):
        row |= {"label_weight": trusted, "propensity": 0.2}
    rows[6] |= {"score": None}
    assert requests_of(rows, tmp_path).firm.tolist() == [True, False, True, True]


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


def test_a_session_is_not_a_request_of_the_same_name(tmp_path):
    rows = make_rows(4, session=2)
    for row in rows[:4]:
        row["session_id"] = "r2"
    rows[4]["session_id"] = rows[5]["session_id"] = None  # request r2 is of no session
    assert requests_of(rows, tmp_path).sessions.tolist() == [0, 0, 1, 2]


def test_the_order_of_rows_does_not_matter_to_what_is_known(tmp_path):
    rows = make_rows(20)
    one, other = requests_of(rows, tmp_path), requests_of(rows[::-1], tmp_path)
    assert one.ids.tolist() == other.ids.tolist()[::-1]
    np.testing.assert_array_equal(one.score, other.score[::-1])


def test_bills_of_nothing_beside_a_price_are_told(tmp_path):
    rows = make_rows(40)
    for row in rows:
        row["cost_usd"] = 0.0 if row["tier"] == "large" else 1e-5
    table = read_traffic(write_log(tmp_path / "log.parquet", rows))
    _, notes = labelled_requests(table, TIERS, LabelRule())
    [told] = [note for note in notes if "cost_usd" in note]
    assert "all 40 answers of large cost 0" in told
    free = (TIERS[0], Tier("large", "vendor/large-1", 0.0, 0.0))
    assert not any("cost_usd" in note for note in labelled_requests(table, free, LabelRule())[1])
