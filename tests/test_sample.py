"""The bundled sample: a well-formed traffic log in which there is something to learn."""

import datetime as dt
import json
import tomllib
from collections import Counter, defaultdict
from pathlib import Path

import pytest

SAMPLE = Path(__file__).parents[1] / "data" / "sample"
COLUMNS = {
    "request_id": str,
    "at": str,
    "session_id": str,
    "user_id": str,
    "messages": list,
    "tier": str,
    "model": str,
    "input_tokens": int,
    "output_tokens": int,
    "latency_ms": float,
    "response": str,
    "reference": str,
    "source": str,
    "tags": list,
    "finish_reason": str,
    "score": int,
    "score_source": str,
    "status": str,
}


@pytest.fixture(scope="module")
def rows() -> list[dict]:
    lines = (SAMPLE / "log.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def test_every_row_has_the_columns_of_the_traffic_table(rows):
    assert {frozenset(row) for row in rows} == {frozenset(COLUMNS)}
    wrong = [
        (row["request_id"], name)
        for row in rows
        for name, kind in COLUMNS.items()
        if type(row[name]) is not kind
    ]
    assert wrong == []


def test_size_keys_and_sessions(rows):
    assert 2000 <= len(rows) <= 4000
    assert (SAMPLE / "log.jsonl").stat().st_size < 2_500_000
    assert len({(row["request_id"], row["tier"]) for row in rows}) == len(rows)
    assert len({row["session_id"] for row in rows}) >= 400


def test_times_are_utc_in_order_and_span_weeks(rows):
    times = [dt.datetime.fromisoformat(row["at"]) for row in rows]
    assert all(time.utcoffset() == dt.timedelta(0) for time in times)
    assert times == sorted(times)
    assert dt.timedelta(days=24) < times[-1] - times[0] < dt.timedelta(days=31)


def test_a_session_is_one_user_in_one_application(rows):
    owners = defaultdict(set)
    for row in rows:
        owners[row["session_id"]].add((row["user_id"], row["source"]))
    assert {len(owner) for owner in owners.values()} == {1}


def test_messages_end_with_the_person(rows):
    for row in rows:
        roles = [message["role"] for message in row["messages"]]
        assert roles[-1] == "user"
        assert set(roles) <= {"system", "user", "assistant"}
        assert all(
            message["content"].strip()
            for message in row["messages"]
            if message["role"] != "assistant"
        )
    assert any(len(row["messages"]) > 2 for row in rows)


def test_both_outcomes_in_most_tasks(rows):
    outcomes = defaultdict(set)
    for row in rows:
        assert row["score"] in (0, 1)
        outcomes[row["tags"][0]].add(row["score"])
    assert len(outcomes) >= 12
    assert sum(len(seen) == 2 for seen in outcomes.values()) >= 0.7 * len(outcomes)
    assert 0.45 <= sum(row["score"] for row in rows) / len(rows) <= 0.70


def test_hardly_any_prompt_is_repeated(rows):
    def key(row: dict) -> str:
        return " ".join(" ".join(m["content"] for m in row["messages"]).casefold().split())

    counts = Counter(map(key, rows))
    assert len(rows) - len(counts) <= 0.02 * len(rows)


def test_tiers_and_label_rule_fit_the_log(rows):
    tiers = tomllib.loads((SAMPLE / "tiers.toml").read_text(encoding="utf-8"))["tier"]
    assert [tier["name"] for tier in tiers] == ["small", "large"]
    prices = [(tier["input_usd_per_mtok"], tier["output_usd_per_mtok"]) for tier in tiers]
    assert prices[0] < prices[1]
    assert {(row["tier"], row["model"]) for row in rows} == {("small", tiers[0]["model"])}
    rule = tomllib.loads((SAMPLE / "train.toml").read_text(encoding="utf-8"))
    assert rule["label"]["assume_top_suffices"] is True
