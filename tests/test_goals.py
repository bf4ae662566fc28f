"""Goals: exactly one, each checked, and read back from the manifest as they were."""

import pytest

from training.config import parse_values, read_config
from training.decide.goals import (
    MaxBadDowngrade,
    MaxCost,
    MinQuality,
    TopShare,
    Value,
    goal_as_dict,
    parse_goal,
)
from training.errors import BadInput

GOALS = [
    MinQuality(0.97, 0.9),
    MaxBadDowngrade(0.02),
    MaxBadDowngrade(0.02, 0.99, or_constant=True),
    MaxCost(1.5),
    TopShare(0.2),
    Value(0.001),
]


@pytest.mark.parametrize("goal", GOALS)
def test_there_and_back(goal):
    assert parse_goal(goal_as_dict(goal), "manifest") == goal


def test_none_is_the_default():
    assert parse_goal({}, "x") == MinQuality(0.99, 0.95)
    assert parse_goal({"confidence": 0.8}, "x") == MinQuality(0.99, 0.8)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"min_quality": 0.9, "top_share": 0.2}, "min_quality and top_share: choose one goal"),
        ({"max_bad_downgrad": 0.9}, "x: unknown key .*did you mean 'max_bad_downgrade'"),
        ({"top_share": 0.2, "confidence": 0.9}, "top_share takes no confidence"),
        ({"min_quality": 0.9, "or_constant": True}, "min_quality takes no or_constant"),
        ({"max_bad_downgrade": 0.1, "or_constant": 1.0}, "or_constant must be true or false"),
        ({"top_share": True}, "top_share must be a number"),
        ({"top_share": "much"}, "top_share must be a number"),
        ({"top_share": -0.1}, r"top_share must be in \[0, 1\], got -0.1"),
        ({"max_bad_downgrade": 0.0}, r"max_bad_downgrade must be in \(0, 1\)"),
        ({"max_bad_downgrade": 0.1, "confidence": 0.3}, r"confidence must be in \[0.5, 1\)"),
        ({"max_cost_usd_per_1k": 0}, "max_cost_usd_per_1k must be in"),
        ({"max_cost_usd_per_1k": float("inf")}, "max_cost_usd_per_1k must be in"),
        ({"value_usd_per_point": -1}, "value_usd_per_point must be in"),
        ({"value_usd_per_point": float("nan")}, "value_usd_per_point must be in"),
    ],
)
def test_goals_that_mean_nothing(values, words):
    with pytest.raises(BadInput, match=words):
        parse_goal(values, "x")


def test_the_command_line_changes_the_files_goal_or_replaces_it(tmp_path):
    path = tmp_path / "c.toml"
    path.write_text("[policy]\nmin_quality = 0.9\nconfidence = 0.8\n", encoding="utf-8")
    assert read_config(path, {"min_quality": "0.95"}).policy == MinQuality(0.95, 0.8)
    assert read_config(path, {"top_share": "0.2"}).policy == TopShare(0.2)
    asked = {"max_bad_downgrade": "0.02", "or_constant": "true"}
    assert read_config(path, asked).policy == MaxBadDowngrade(0.02, or_constant=True)
    with pytest.raises(BadInput, match="choose one goal"):
        read_config(None, {"min_quality": "0.95", "top_share": "0.2"})


def test_values_of_the_command_line():
    assert parse_values({"or_constant": "False"}, "--set") == {"or_constant": False}
    with pytest.raises(BadInput, match="--set top_share=a: not a number"):
        parse_values({"top_share": "a"}, "--set")


def test_a_point_of_value():
    """A score of 1 instead of 0 is a hundred points: at 0.001 USD a point it is worth 0.10 USD."""
    assert 1 / Value(0.001).mu == pytest.approx(0.10)
