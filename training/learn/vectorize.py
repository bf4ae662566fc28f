"""Prompts as matrices, by the very code that serves them."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.utils.extmath import randomized_svd, svd_flip

from router.embedder import Embedder, cut_tokens
from router.ngrams import BUCKETS, NGrams, terms
from router.predictor import Estimates, Predictor
from router.prompt import Prompt
from router.vectorizer import Reading, Vectorizer
from training.errors import BadInput
from training.learn.members import Matrix
from training.learn.memory import recalling
from training.log.imprint import Imprint, embedder_fingerprint

NGRAM_DIM = 64
MIN_PROMPTS = 2  # a term of one prompt only is noise, and could give it away


def fit_ngrams(embedder: Embedder, prompts: Sequence[Prompt | Imprint], seed: int) -> NGrams:
    """Learn document frequencies and the projection from the fit rows; labels play no part."""
    check_embedder(embedder, prompts)
    found = [terms_of(embedder, prompt) for prompt in prompts]
    counts = _sparse([row[0] for row in found], [row[1] for row in found])
    frequency = np.bincount(counts.indices, minlength=BUCKETS)
    idf = np.log((1 + len(found)) / (1 + frequency)) + 1.0
    kept: NDArray[np.float32] = np.where(frequency >= MIN_PROMPTS, idf, 0.0).astype(np.float32)
    blank = NGrams(kept, np.zeros((BUCKETS, 1), np.int8), np.ones(1, np.float32))
    weighed = [blank.weigh(*row) for row in found]
    matrix = _sparse([row[0] for row in weighed], [row[1] for row in weighed])
    known = np.flatnonzero(kept) if kept.any() else np.zeros(1, dtype=np.int64)
    dim = min(NGRAM_DIM, max(len(found) - 1, 1), len(known))
    # As TruncatedSVD, without the share of variance, which is 0/0 where all prompts are alike.
    parts = randomized_svd(matrix[:, known], dim, n_iter=4, random_state=seed, flip_sign=False)
    columns = svd_flip(parts[0], parts[2], u_based_decision=False)[1].T
    scale = np.maximum(np.abs(columns).max(axis=0), 1e-12) / 127.0
    projection = np.zeros((BUCKETS, dim), dtype=np.int8)
    projection[known] = np.rint(columns / scale)
    return NGrams(kept, projection, scale.astype(np.float32))


def vectorize(vectorizer: Vectorizer, prompts: Sequence[Prompt | Imprint]) -> Matrix:
    """Vectors of n prompts.

    Raises:
        BadInput: prompts are kept without their texts, by another embedder or where there is an
            encoder, which reads texts.
    """
    read = _read(vectorizer, prompts)
    vectors = [vectorizer.weigh(reading) for reading in readings(vectorizer.embedder, prompts)]
    dense = np.array([vector.dense for vector in vectors], dtype=np.float32)
    return Matrix(
        dense=dense.reshape(len(vectors), vectorizer.dim),
        terms=_sparse([vector.terms for vector in vectors], [vector.weights for vector in vectors]),
        tokens=np.array([vector.tokens for vector in vectors], dtype=np.float64),
        read=read,
    )


def _read(vectorizer: Vectorizer, prompts: Sequence[Prompt | Imprint]) -> NDArray[np.float32]:
    """What a fine-tuned encoder says of prompts, float32[n, learned tiers], or float32[n, 0]."""
    encoder = vectorizer.encoder
    if encoder is None:
        return np.zeros((len(prompts), 0), dtype=np.float32)
    texts = texts_of(prompts, "a fine-tuned encoder")
    vectorizer = replace(vectorizer, encoder=recalling(encoder, texts))
    said = [vectorizer.read(prompt) for prompt in texts]
    return np.array(said, dtype=np.float32).reshape(len(texts), encoder.dim)


def texts_of(prompts: Sequence[Prompt | Imprint], reader: str) -> list[Prompt]:
    """The prompts with their texts; BadInput where a table keeps features in their place."""
    texts = [prompt for prompt in prompts if isinstance(prompt, Prompt)]
    if len(texts) < len(prompts):
        raise BadInput(
            f"{reader} reads texts, and the traffic table holds features only: ingest the log "
            "without --features-only, or train with the static embedder alone"
        )
    return texts


def readings(embedder: Embedder, prompts: Sequence[Prompt | Imprint]) -> Iterator[Reading]:
    """What is read of prompts before anything is learned: from their text, or as it was kept.

    Raises:
        BadInput: another embedder made what was kept.
    """
    check_embedder(embedder, prompts)
    embedder = recalling(embedder, [prompt for prompt in prompts if isinstance(prompt, Prompt)])
    for prompt in prompts:
        yield prompt.reading if isinstance(prompt, Imprint) else Reading.of(embedder, prompt)


def imprinted(embedder: Embedder, prompts: NDArray[np.object_]) -> NDArray[np.object_]:
    """Prompts, object[n], as `Imprint`s: what is read of each is read once for all uses."""
    found = prompts.copy()
    for row, reading in enumerate(readings(embedder, list(prompts))):
        if isinstance(prompts[row], Prompt):
            found[row] = Imprint.of(prompts[row], reading)
    return found


def estimate(predictor: Predictor, prompts: Sequence[Prompt | Imprint]) -> Estimates:
    """What `router` computes for each prompt; a second stage is asked as in serving.

    Raises:
        BadInput: there is a second stage, which reads texts, and a prompt is kept without its own.
    """
    if predictor.second is None:
        return estimates_of(predictor, vectorize(predictor.vectorizer, prompts), prompts)
    texts = texts_of(prompts, "a second stage")
    return _recalling(predictor, texts).estimate(texts)


def _recalling(predictor: Predictor, prompts: Sequence[Prompt]) -> Predictor:
    first = predictor.vectorizer
    predictor = replace(
        predictor, vectorizer=replace(first, embedder=recalling(first.embedder, prompts))
    )
    if predictor.second is None:
        return predictor
    reader = predictor.second.predictor  # reads few of the prompts: none is embedded beforehand
    own = replace(reader.vectorizer, embedder=recalling(reader.vectorizer.embedder, ()))
    reader = replace(reader, vectorizer=own)
    return replace(predictor, second=replace(predictor.second, predictor=reader))


def estimates_of(predictor: Predictor, x: Matrix, prompts: Sequence[Prompt | Imprint]) -> Estimates:
    """As `estimate`, of prompts whose vectors by the first stage are x."""
    if predictor.second is not None:
        return estimate(predictor, prompts)
    vectors, shape = list(x.vectors()), (-1, len(predictor.tiers))
    p = [predictor.probabilities(vector) for vector in vectors]
    usd = [predictor.costs(vector) for vector in vectors]
    return Estimates(np.array(p).reshape(shape), np.array(usd).reshape(shape))


def check_embedder(embedder: Embedder, prompts: Sequence[Prompt | Imprint]) -> None:
    """BadInput where another embedder made the prompts of a features-only table."""
    imprints = [prompt for prompt in prompts if isinstance(prompt, Imprint)]
    made_by = {imprint.embedder for imprint in imprints if imprint.embedder is not None}
    if made_by and made_by != {own := embedder_fingerprint(embedder)}:
        raise BadInput(
            f"the traffic table holds features only, by another embedder ({min(made_by)}) than "
            f"this one ({own}): use the embedder that made it, or ingest the log again with "
            "--features-only and the --embedder wanted"
        )


def terms_of(
    embedder: Embedder, prompt: Prompt | Imprint
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Buckets, int64[m], and frequencies, float64[m], of a prompt (see `router.ngrams.terms`)."""
    if isinstance(prompt, Prompt):
        return terms(cut_tokens(embedder.tokenize(prompt.text)))
    return prompt.reading.buckets, prompt.reading.frequency


def _sparse(
    columns: Sequence[NDArray[np.int64]], values: Sequence[NDArray[np.float64]]
) -> sparse.csr_matrix:
    starts = np.concatenate([[0], np.cumsum([len(row) for row in columns])])
    none = np.zeros(0)
    data = np.concatenate([*values, none])
    indices = np.concatenate([*columns, none]).astype(np.int32)
    return sparse.csr_matrix((data, indices, starts), shape=(len(columns), BUCKETS))
