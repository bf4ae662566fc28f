"""Replies of judges: what is read, and what must not be."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.ask.verdict import CHOICES, read_choice, read_grade


@pytest.mark.parametrize(
    ("reply", "verdict"),
    [
        ('{"verdict": "A"}', "A"),
        ('A is longer, B is right.\n{"verdict": "B"}\n', "B"),
        ('```json\n{"verdict": "tie"}\n```', "tie"),
        ('{"reason": "same", "verdict": "tie"}', "tie"),
        ("A", None),
        ("The verdict is A.", None),
        ('{"verdict": "A"} is what I would say if B were shorter', None),
        ('{"verdict": "A"}\nOn reflection, B.', None),
        ('{"verdict": "a"}', None),
        ('{"verdict": "A", "verdict": "B"}', None),
        ('{"verdict": ["A"]}', None),
        ('{"verdict": true}', None),
        ('"A"', None),
        ("[" * 5000, None),
        ("", None),
    ],
)
def test_only_a_reply_that_ends_with_a_verdict_is_one(reply, verdict):
    assert read_choice(reply) == verdict


@pytest.mark.parametrize(
    ("reply", "score"),
    [
        ('{"grade": 1}', 0.0),
        ('Good.\n{"grade": 4}', 0.75),
        ('{"grade": 5}', 1.0),
        ('{"grade": 0}', None),
        ('{"grade": 6}', None),
        ('{"grade": 4.5}', None),
        ('{"grade": "5"}', None),
        ('{"grade": true}', None),
        ("5/5", None),
    ],
)
def test_a_grade_is_a_whole_number_from_one_to_five(reply, score):
    assert read_grade(reply) == score


@given(st.text(), st.sampled_from(CHOICES))
def test_whatever_stands_before_it_the_last_line_is_read(prose, verdict):
    assert read_choice(f"{prose}\n{json.dumps({'verdict': verdict})}") == verdict


@given(st.text())
def test_no_text_raises(text):
    read_choice(text)
    read_grade(text)
