"""Prompts as matrices, by the very code that serves them."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.utils.extmath import randomized_svd, svd_flip

from router.embedder import Embedder, cut_tokens
from router.ngrams import BUCKETS, NGrams, terms
from router.prompt import Prompt
from router.vectorizer import Vectorizer
from training.learn.members import Matrix
from training.learn.memory import recalling

NGRAM_DIM = 64
MIN_PROMPTS = 2  # a term of one prompt only is noise, and could give it away


def fit_ngrams(embedder: Embedder, prompts: Sequence[Prompt], seed: int) -> NGrams:
    """Learn document frequencies and the projection from the fit rows; labels play no part."""
    ids = [cut_tokens(embedder.tokenize(prompt.text)) for prompt in prompts]
    found = [terms(row) for row in ids]
    counts = _sparse([row[0] for row in found], [row[1] for row in found])
    frequency = np.bincount(counts.indices, minlength=BUCKETS)
    idf = np.log((1 + len(ids)) / (1 + frequency)) + 1.0
    kept: NDArray[np.float32] = np.where(frequency >= MIN_PROMPTS, idf, 0.0).astype(np.float32)
    blank = NGrams(kept, np.zeros((BUCKETS, 1), np.int8), np.ones(1, np.float32))
    weighed = [blank.weigh(row) for row in ids]
    matrix = _sparse([row[0] for row in weighed], [row[1] for row in weighed])
    dim = min(NGRAM_DIM, max(len(ids) - 1, 1))
    # As TruncatedSVD, without the share of variance, which is 0/0 where all prompts are alike.
    parts = randomized_svd(matrix, dim, n_iter=4, random_state=seed, flip_sign=False)
    columns = svd_flip(parts[0], parts[2], u_based_decision=False)[1].T
    scale = np.maximum(np.abs(columns).max(axis=0), 1e-12) / 127.0
    projection = np.rint(columns / scale).astype(np.int8)
    return NGrams(kept, projection, scale.astype(np.float32))


def vectorize(vectorizer: Vectorizer, prompts: Sequence[Prompt]) -> Matrix:
    """Vectors of n prompts."""
    vectorizer = recalling(vectorizer, prompts)
    vectors = [vectorizer.vector(prompt) for prompt in prompts]
    dense = np.array([vector.dense for vector in vectors], dtype=np.float32)
    return Matrix(
        dense=dense.reshape(len(vectors), vectorizer.dim),
        terms=_sparse([vector.terms for vector in vectors], [vector.weights for vector in vectors]),
        tokens=np.array([vector.tokens for vector in vectors], dtype=np.float64),
    )


def _sparse(
    columns: Sequence[NDArray[np.int64]], values: Sequence[NDArray[np.float64]]
) -> sparse.csr_matrix:
    starts = np.concatenate([[0], np.cumsum([len(row) for row in columns])])
    none = np.zeros(0)
    data = np.concatenate([*values, none])
    indices = np.concatenate([*columns, none]).astype(np.int32)
    return sparse.csr_matrix((data, indices, starts), shape=(len(columns), BUCKETS))
