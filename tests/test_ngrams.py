"""N-grams against the definition of TF-IDF, computed with dictionaries."""

from collections import Counter
from dataclasses import replace
from itertools import pairwise
from math import log, sqrt
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.ngrams import BUCKETS, NGrams, terms
from tests.builders import make_ngrams

NGRAMS = make_ngrams(dim=3, known=BUCKETS // 2)
TOKENS = st.lists(st.integers(0, 40), max_size=60)
WORD = 1 << 64


def bucket(*tokens: int) -> int:
    """The bucket of a token or a pair, in Python's whole numbers."""
    value = tokens[0] * 0x9E3779B185EBCA87 % WORD
    if len(tokens) == 2:
        value ^= tokens[1] * 0xC2B2AE3D27D4EB4F % WORD
        value = value * 0x165667B19E3779F9 % WORD
    return value >> 48


def counted(ids: list[int]) -> Counter[int]:
    return Counter([bucket(i) for i in ids] + [bucket(a, b) for a, b in pairwise(ids)])


def tfidf(ids: list[int]) -> dict[int, float]:
    raw = {b: (1 + log(n)) * float(NGRAMS.idf[b]) for b, n in counted(ids).items()}
    length = sqrt(sum(weight * weight for weight in raw.values()))
    return {b: weight / length for b, weight in raw.items()} if length else {}


def array(ids: list[int]) -> np.ndarray:
    return np.array(ids, dtype=np.int64)


@given(TOKENS)
def test_terms_are_single_tokens_and_pairs(ids: list[int]) -> None:
    buckets, frequency = terms(array(ids))
    expected = {b: 1 + log(n) for b, n in counted(ids).items()}
    assert buckets.tolist() == sorted(expected)
    assert dict(zip(buckets.tolist(), frequency.tolist(), strict=True)) == pytest.approx(expected)


@given(TOKENS)
def test_weights_and_reduction_equal_the_definition(ids: list[int]) -> None:
    buckets, weights = NGRAMS.weigh(*terms(array(ids)))
    expected = tfidf(ids)
    assert dict(zip(buckets.tolist(), weights.tolist(), strict=True)) == pytest.approx(expected)
    reduced = [
        sum(w * int(NGRAMS.projection[b, j]) for b, w in expected.items()) * float(NGRAMS.scale[j])
        for j in range(NGRAMS.dim)
    ]
    found = NGRAMS.reduce(buckets, weights)
    assert found.dtype == np.float32
    assert found.tolist() == pytest.approx(reduced, rel=1e-6, abs=1e-9)


@given(TOKENS, st.randoms())
def test_the_order_of_the_sum_does_not_reach_the_result(ids: list[int], random: Random) -> None:
    buckets, weights = NGRAMS.weigh(*terms(array(ids)))
    order = list(range(len(buckets)))
    random.shuffle(order)
    apart = np.abs(NGRAMS.reduce(buckets, weights) - NGRAMS.reduce(buckets[order], weights[order]))
    # float64 sums differ by 1e-16 of the terms' size, so at most the last float32 digit may
    assert apart.max() <= 1e-9


def test_unknown_terms_weigh_nothing() -> None:
    nothing = NGrams(np.zeros(BUCKETS, np.float32), NGRAMS.projection, NGRAMS.scale)
    buckets, weights = nothing.weigh(*terms(array([1, 2, 3])))
    assert len(buckets) == len(weights) == 0
    assert nothing.reduce(buckets, weights).tolist() == [0.0, 0.0, 0.0]
    idf = np.zeros(BUCKETS, np.float32)
    idf[bucket(2)] = 3.0
    one = NGrams(idf, NGRAMS.projection, NGRAMS.scale)
    found = dict(
        zip(*(part.tolist() for part in one.weigh(*terms(array([1, 2, 3, 2])))), strict=True)
    )
    assert {b: w for b, w in found.items() if w} == {bucket(2): 1.0}


def test_no_token_no_terms() -> None:
    buckets, weights = NGRAMS.weigh(*terms(array([])))
    assert len(buckets) == len(weights) == 0


@pytest.mark.parametrize(
    "change",
    [
        {"idf": NGRAMS.idf[:-1]},
        {"idf": NGRAMS.idf.astype(np.float64)},
        {"idf": -NGRAMS.idf},
        {"projection": NGRAMS.projection[:, :2]},
        {"projection": NGRAMS.projection.astype(np.int16)},
        {"scale": NGRAMS.scale * np.float32("nan")},
    ],
)
def test_arrays_that_do_not_fit_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="n-gram"):
        replace(NGRAMS, **change)
