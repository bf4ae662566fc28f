"""Which tier stands above which, by tiers file, price or name, and what stays unordered."""

import numpy as np
import pytest

from router.tier import Tier
from training.errors import BadInput
from training.label.ladder import Answerer, build_ladder


def above(names, usd=None, tiers=()):
    answerers = [Answerer(None, name) for name in names]
    return build_ladder(answerers, usd or [0.0] * len(names), tiers).above.tolist()


@pytest.mark.parametrize(
    ("low", "high"),
    [
        ("gpt-4o-mini", "gpt-4o"),
        ("openai/gpt-4o-mini-2024-07-18", "gpt-4o-2024-08-06"),
        ("gemini-1.5-flash", "gemini-1.5-pro"),
        ("claude-3-5-haiku-20241022", "claude-3-5-sonnet-20241022"),
        ("llama-3.1-8b-instruct", "llama-3.1-70b-instruct"),
        ("qwen2.5-1.5b", "qwen2.5-14b"),
        ("mistral-small", "mistral-large"),
    ],
)
def test_names_of_one_family_say_which_is_larger(low, high):
    assert above([low, high]) == [[False, True], [False, False]]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("o4-mini", "gpt-4o"),
        ("gpt-4o-mini", "claude-3-5-haiku"),
        ("gpt-4o", "openai/gpt-4o-2024-08-06"),
        ("llama-3.1-8b", "llama-3.1-large"),
        ("mixtral", "gpt-4"),
    ],
)
def test_names_that_say_nothing_are_not_ordered(one, other):
    assert not np.any(above([one, other]))


def test_a_price_counts_where_it_is_clear():
    assert above(["a", "b", "c"], [1.0, 1.2, 2.0]) == [
        [False, False, True],
        [False, False, True],
        [False, False, False],
    ]
    assert above(["gpt-4o-mini", "gpt-4o"], [9.0, 1.0]) == [[False, False], [True, False]]


def test_the_tiers_file_has_the_last_word_and_names_of_tiers_count_first():
    tiers = (Tier("low", "gpt-4o", 1, 1), Tier("high", "gpt-4o-mini", 2, 2))
    assert above(["gpt-4o-mini", "gpt-4o"], [1.0, 9.0], tiers) == [[False, False], [True, False]]
    named = [Answerer("high", "x"), Answerer("low", "y")]
    assert build_ladder(named, [1.0, 9.0], tiers).above.tolist() == [[False, False], [True, False]]


def test_two_snapshots_of_one_model_may_be_two_tiers():
    tiers = (Tier("old", "gpt-4o-2024-05-13", 1, 1), Tier("new", "gpt-4o-2024-08-06", 2, 2))
    assert above(["gpt-4o-2024-05-13", "gpt-4o-2024-08-06"], tiers=tiers)[0] == [False, True]


def test_a_model_that_may_be_either_of_two_tiers_is_refused_unless_the_tier_is_named():
    tiers = (Tier("old", "gpt-4o-2024-05-13", 1, 1), Tier("new", "gpt-4o-2024-08-06", 2, 2))
    with pytest.raises(BadInput, match="'gpt-4o' may be tier 'old' or 'new'"):
        above(["gpt-4o"], tiers=tiers)
    named = [Answerer("old", "gpt-4o"), Answerer("new", "gpt-4o")]
    assert build_ladder(named, [0.0, 0.0], tiers).above.tolist() == [[False, True], [False, False]]


def test_what_decided_is_told():
    ladder = build_ladder([Answerer(None, "gpt-4o-mini"), Answerer(None, "gpt-4o")], [0.0, 0.0])
    assert ladder.how == "gpt-4o-mini < gpt-4o (by name)"
    assert "--tiers" in build_ladder([Answerer("a", None)], [0.0]).how
