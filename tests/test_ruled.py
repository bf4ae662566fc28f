"""Rules in the figures: what evaluate says of them is what the router does."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from router import Policy, Router
from router.artifact import Artifact
from router.predictor import Estimates
from router.rules_file import parse_rules
from router.tier import Tier
from tests.builders import TIERS
from tests.traffic_makers import make_rows, requests_of
from training.config import Config, effective_rules, read_config, unknown_capabilities
from training.learn.vectorize import estimate
from training.log.requests import Requests
from training.measure.ruled import Ruled, ruled

RULES = {"pin": {"tag": {"legal": "large"}}, "deny": {"tag": {"batch": ["small"]}}}
PICTURE = {"type": "image_url", "image_url": {"url": "https://x.example/a.png"}}


@pytest.fixture(scope="module")
def artifact(artifact: Artifact) -> Artifact:
    return replace(artifact, rules=parse_rules(RULES, TIERS))


def logged(requests: int) -> list[dict[str, Any]]:
    chances = (0.5, 0.6, 0.9)
    return make_rows(requests, tiers=TIERS, easy=chances, hard=chances)


def held(artifact: Artifact, requests: Requests, estimates: Estimates) -> Ruled | None:
    return ruled(artifact.rules, artifact.predictor, artifact.policy, requests, estimates)


@pytest.mark.parametrize("policy", [Policy(1e9), Policy(5.0), Policy(0.0, constant=0)])
def test_choices_are_the_routers(artifact: Artifact, policy: Policy, tmp_path: Path) -> None:
    artifact = replace(artifact, policy=policy)
    rows = logged(60)
    for row in rows:
        number = int(row["request_id"][1:])
        text = row["messages"] + " word" * (4_000 if number % 7 == 0 else 0)
        parts = [{"type": "text", "text": text}, *([PICTURE] if number % 5 == 0 else [])]
        row["messages"] = json.dumps([{"role": "user", "content": parts}])
        row["tags"] = [["legal"], ["batch"], [], []][number % 4]
    requests = requests_of(rows, tmp_path, TIERS)
    estimates = estimate(artifact.predictor, list(requests.prompts))
    free = artifact.policy.choose(estimates.p, estimates.usd)
    found = held(artifact, requests, estimates)
    assert found is not None
    first = {row["request_id"]: row for row in rows}
    router = Router(artifact)
    decisions = [
        router.route(json.loads(first[one]["messages"]), tags=first[one]["tags"])
        for one in requests.ids
    ]
    assert [TIERS[k].name for k in found.tier] == [decision.tier for decision in decisions]
    assert sum(found.moved.values()) == (found.tier != free).sum()
    assert found.down == (found.tier < free).sum()
    assert "pin" in found.moved or policy.mu == 5.0
    assert f"send {sum(found.moved.values())} of 60 requests elsewhere" in found.describe()


def test_what_the_rules_come_to(artifact: Artifact, tmp_path: Path) -> None:
    rows = logged(40)
    for row in rows:
        row["tags"] = ["legal"] if int(row["request_id"][1:]) < 10 else []
    requests = requests_of(rows, tmp_path, TIERS)
    estimates = estimate(artifact.predictor, list(requests.prompts))
    always = replace(artifact, policy=Policy(0.0, constant=0))
    found = held(always, requests, estimates)
    assert found is not None and found.moved == {"pin": 10}
    paid = np.tile([0.001, 0.002, 0.005], (40, 1))
    told = found.compare(paid, np.tile([0.5, 0.6, 0.9], (40, 1)))
    assert "$2 per 1,000 requests at a mean score of 0.6000 (25.0% to the top tier)" in told
    assert told.endswith("always top $5 at 0.9000")


def test_without_rules_there_is_nothing_to_say(artifact: Artifact, tmp_path: Path) -> None:
    requests = requests_of(logged(20), tmp_path, TIERS)
    estimates = estimate(artifact.predictor, list(requests.prompts))
    assert held(replace(artifact, rules=None), requests, estimates) is None


def test_what_a_tier_states_holds_unless_the_configuration_says_otherwise(tmp_path: Path) -> None:
    silent = tuple(Tier(tier.name, tier.model, 1, 1) for tier in TIERS)
    assert effective_rules(Config().rules, silent) is None
    assert effective_rules(Config().rules, TIERS) == {}
    file = tmp_path / "train.toml"
    file.write_text("[rules]\ncontext_window = false\n")
    assert effective_rules(read_config(file, {}).rules, TIERS) == {"context_window": False}


def test_a_capability_that_no_rule_reads_is_told() -> None:
    odd = (Tier("a", "a", 1, 1, capabilities=frozenset({"json", "tool", "music"})), *TIERS)
    music, tool = unknown_capabilities(odd)
    assert music == "tier 'a': no rule reads the capability 'music' (but tools, vision, json)"
    assert tool.endswith("did you mean 'tools'?")
    assert unknown_capabilities(TIERS) == ()
