"""Prompts as matrices: the same numbers as serving, whatever the prompts are."""

import numpy as np
import pytest

from router.ngrams import BUCKETS
from router.prompt import Prompt
from router.vectorizer import SURFACE, Vectorizer
from tests.traffic_makers import prompt_texts
from training.learn.embedders import resolve_embedder
from training.learn.vectorize import MIN_PROMPTS, NGRAM_DIM, fit_ngrams, imprinted, vectorize
from training.log.imprint import Imprint

ODD = ["", " ", "\0", "a\0b", "\ud83d alone", "🎉" * 50, "שלום עולם", "x" * 300_000, "\n" * 5000]


@pytest.fixture(scope="module")
def embedder():
    return resolve_embedder("static")


def texts(n, seed=0):
    rng = np.random.default_rng(seed)
    return prompt_texts(rng.random(n) < 0.5, rng)


def test_rows_are_what_serving_computes(embedder):
    prompts = [Prompt.of(text) for text in [*texts(150), *ODD]]
    vectorizer = Vectorizer(embedder, fit_ngrams(embedder, prompts, 0))
    x = vectorize(vectorizer, prompts)
    assert x.dense.shape == (len(prompts), vectorizer.dim)
    assert x.dense.dtype == np.float32
    assert np.isfinite(x.dense).all()
    for prompt, row in zip(prompts, x.vectors(), strict=True):
        alone = vectorizer.vector(prompt)
        np.testing.assert_array_equal(alone.dense, row.dense)
        np.testing.assert_array_equal(alone.terms, row.terms)
        np.testing.assert_array_equal(alone.weights, row.weights)
        assert alone.tokens == row.tokens


def test_prompts_read_once_have_the_same_vectors(embedder):
    prompts = np.array([Prompt.of(text) for text in [*texts(150), *ODD]], dtype=object)
    read = imprinted(embedder, prompts)
    assert all(isinstance(one, Imprint) for one in read)
    assert imprinted(embedder, read).tolist() == read.tolist()
    vectorizer = Vectorizer(embedder, fit_ngrams(embedder, list(prompts), 0))
    again = fit_ngrams(embedder, list(read), 0)
    np.testing.assert_array_equal(vectorizer.ngrams.projection, again.projection)
    one, other = (vectorize(vectorizer, list(some)) for some in (prompts, read))
    np.testing.assert_array_equal(one.dense, other.dense)
    np.testing.assert_array_equal(one.tokens, other.tokens)
    assert abs(one.terms - other.terms).nnz == 0


def test_a_term_of_one_prompt_alone_leaves_no_trace(embedder):
    common = texts(60)
    secret = "xylophonist quixotically " * 3
    vectorizer = Vectorizer(
        embedder, fit_ngrams(embedder, [Prompt.of(t) for t in [*common, secret]], 0)
    )
    without = Vectorizer(embedder, fit_ngrams(embedder, [Prompt.of(t) for t in common], 0))
    known = vectorizer.ngrams.idf > 0
    assert known.sum() > 20
    assert (known == (without.ngrams.idf > 0)).all()
    assert len(vectorizer.vector(Prompt.of(secret)).terms) == len(
        without.vector(Prompt.of(secret)).terms
    )
    assert MIN_PROMPTS == 2


def test_the_projection_keeps_what_is_alike_together(embedder):
    prompts = [Prompt.of(text) for text in texts(300)]
    ngrams = fit_ngrams(embedder, prompts, 0)
    assert ngrams.projection.shape == (BUCKETS, NGRAM_DIM)
    assert ngrams.projection.dtype == np.int8
    x = vectorize(Vectorizer(embedder, ngrams), prompts)
    small = x.dense[:, -NGRAM_DIM:].astype(np.float64)
    wide = (x.terms @ x.terms.T).toarray()
    near = small @ small.T
    upper = np.triu_indices(len(prompts), 1)
    assert np.corrcoef(wide[upper], near[upper])[0, 1] > 0.8


@pytest.mark.filterwarnings("error")
def test_fewer_prompts_than_dimensions(embedder):
    for prompts in ([Prompt.of("hi there")] * 3, [Prompt.of("")] * 5):
        vectorizer = Vectorizer(embedder, fit_ngrams(embedder, prompts, 0))
        x = vectorize(vectorizer, prompts)
        assert np.isfinite(x.dense).all()
        assert x.dense.shape[1] > SURFACE


def test_no_prompts(embedder):
    vectorizer = Vectorizer(embedder, fit_ngrams(embedder, [Prompt.of(t) for t in texts(50)], 0))
    x = vectorize(vectorizer, [])
    assert x.dense.shape == (0, vectorizer.dim)
    assert x.terms.shape == (0, BUCKETS)


def test_the_same_seed_gives_the_same_arrays(embedder):
    prompts = [Prompt.of(text) for text in texts(80)]
    one, two = (fit_ngrams(embedder, prompts, 7) for _ in range(2))
    np.testing.assert_array_equal(one.projection, two.projection)
    np.testing.assert_array_equal(one.scale, two.scale)
