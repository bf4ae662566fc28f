"""Graders: what they compare, that they never raise, and that no text keeps them busy."""

import json
import time

import pytest
import regex
from hypothesis import given
from hypothesis import strategies as st

from training.label.graders import (
    NO_REFERENCE,
    Contains,
    Exact,
    Grader,
    Matches,
    Numeric,
    Schema,
    last_number,
)

PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string", "pattern": "^[a-z]+$"}, "age": {"type": "integer"}},
    "required": ["name"],
    "additionalProperties": False,
}
CHECKS = {
    "exact": Exact(),
    "numeric": Numeric(),
    "near": Numeric(1e-6),
    "regex": Matches(regex.compile(r"answer is \(?([A-D])")),
    "found": Matches(regex.compile("(?i)yes")),
    "contains": Contains(),
    "texts": Contains(("Paris", "4")),
    "schema": Schema.of(PERSON),
}


def grade(check, response, reference=None):
    return Grader("g", check).grade(response, reference).score


@pytest.mark.parametrize(
    ("check", "response", "reference", "score"),
    [
        ("exact", "  Paris\n", "paris", 1.0),
        ("exact", "Paris!", "paris", 0.0),
        ("exact", "ﬁne", "fine", 1.0),
        ("numeric", "She pays 3 × $6 = $18.", "Some steps\n#### 18", 1.0),
        ("numeric", "1,234.50 in all", "1234.5", 1.0),
        ("numeric", "12,345,678", "12345678", 1.0),
        ("numeric", "3,14", "3.14", 1.0),
        ("numeric", "−5", "-5", 1.0),
        ("numeric", "from 10-5", "5", 1.0),
        ("numeric", "it is 3/4", "0.75", 1.0),
        ("numeric", "1/4", "3/4", 0.0),
        ("numeric", "no idea", "5", 0.0),
        ("numeric", "1/0", "5", 0.0),
        ("numeric", "5", "five", None),
        ("numeric", "0.0000001", "0", 1.0),
        ("numeric", "100.00001", "100", 1.0),
        ("numeric", "100.1", "100", 0.0),
        ("numeric", "48,261,337", "48261338", 0.0),
        ("numeric", "12345678901234567891", "12345678901234567890", 0.0),
        ("numeric", "4.8261337e7", "48261338", 1.0),
        ("near", "48,261,337", "48261338", 1.0),
        ("numeric", "7" * 5000, "7", 0.0),
        ("regex", "The answer is (B). No: the answer is C", "C", 1.0),
        ("regex", "It is B", "B", 0.0),
        ("found", "Oh YES", None, 1.0),
        ("found", "no", None, 0.0),
        ("contains", "The capital is  PARIS.", "Paris", 1.0),
        ("contains", "comparison", "paris", 0.0),
        ("contains", "14", "4", 0.0),
        ("contains", "法国的首都是巴黎。", "巴黎", 1.0),
        ("contains", "anything", " ", None),
        ("texts", "Paris has 40", None, 0.5),
        ("schema", '{"name": "ann", "age": 3}', None, 1.0),
        ("schema", 'Here:\n```json\n{"name": "ann"}\n```\nDone.', None, 1.0),
        ("schema", '{"name": "Ann"}', None, 0.0),
        ("schema", '{"name": "ann", "x": 1}', None, 0.0),
        ("schema", '{"name": "ann", "age": NaN}', None, 0.0),
        ("schema", "{", None, 0.0),
        ("schema", "[" * 100_000, None, 0.0),
    ],
)
def test_each_criterion_grades_as_it_says(check, response, reference, score):
    assert grade(CHECKS[check], response, reference) == score


@pytest.mark.parametrize("name", ["exact", "numeric", "regex", "contains"])
def test_without_the_reference_that_it_needs_there_is_no_score(name):
    found = Grader("g", CHECKS[name]).grade("an answer", None)
    assert (found.score, found.why) == (None, NO_REFERENCE)


@given(st.sampled_from(sorted(CHECKS)), st.text(), st.one_of(st.none(), st.text()))
def test_graders_never_raise_and_stay_in_range(name, response, reference):
    score = grade(CHECKS[name], response, reference)
    assert score is None or 0.0 <= score <= 1.0


@given(st.floats(allow_nan=False, allow_infinity=False, width=32))
def test_a_number_written_by_python_is_read_again(number):
    assert last_number(f"it is {number!r}.") == number


@given(st.text(alphabet="0123456789.,/eE-+ −\u202f%", max_size=60))
def test_digits_in_any_order_are_no_trap(text):
    found = last_number(text)
    assert found is None or abs(found) < float("inf")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@given(JSON)
def test_any_json_is_graded(value):
    multiple = Schema.of({"additionalProperties": {"multipleOf": 0.1}, "multipleOf": 0.1})
    assert grade(CHECKS["schema"], json.dumps({"name": value})) in (0.0, 1.0)
    assert grade(multiple, json.dumps(value)) in (0.0, 1.0, None)


@pytest.mark.parametrize(
    "check",
    [
        Matches(regex.compile(r"^(a|aa)+$")),
        Schema.of({"type": "string", "pattern": "^(a|aa)+$"}),
        Schema.of({"patternProperties": {"^(a|aa)+$": {}}, "additionalProperties": False}),
    ],
)
def test_hostile_text_is_given_up(check):
    hostile = "a" * 60 + "!"
    wrapped = json.dumps({hostile: 1} if "Properties" in str(check) else hostile)
    started = time.perf_counter()
    found = Grader("g", check).grade(hostile if isinstance(check, Matches) else wrapped, "x")
    assert time.perf_counter() - started < 5.0
    assert found.score is None
    assert "longer than" in found.why


@pytest.mark.parametrize("check", ["numeric", "exact", "contains", "schema"])
def test_long_text_is_graded_in_time_that_grows_with_it(check):
    for text in ("9" * 200_000, "1," * 100_000, "```\n" * 50_000, "a " * 100_000):
        started = time.perf_counter()
        grade(CHECKS[check], text, "9" * 50)
        assert time.perf_counter() - started < 3.0


def test_schemas_that_are_none_are_refused():
    for schema in ({"type": "nothing"}, {"pattern": "("}, {"properties": {"a": {"pattern": "["}}}):
        with pytest.raises(ValueError, match="no JSON schema"):
            Schema.of(schema)


def test_a_schema_never_fetches_another():
    found = Grader("g", Schema.of({"$ref": "http://127.0.0.1:9/schema.json"})).grade("{}", None)
    assert found.score is None
    assert "could not be applied" in found.why


def test_rows_are_chosen_by_where():
    grader = Grader("g", Exact(), {"source": ("maths*", "sums"), "tag": ("graded",)})
    row = {"source": "maths-7", "tags": ["new", "graded"], "tier": None, "model": "m"}
    assert grader.takes(row)
    assert not grader.takes(row | {"tags": ["new"]})
    assert not grader.takes(row | {"source": None})
    assert not grader.takes(row | {"source": "history"})
    assert Grader("g", Exact()).takes(row)
