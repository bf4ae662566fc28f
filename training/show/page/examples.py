"""Single prompts for a reader: nearest the threshold, worst mistakes, and their logged neighbours.

Everything here holds users' text. It goes into the page as data, never as markup.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from router.policy import Policy
from router.vectorizer import SURFACE
from training.learn.vectorize import vectorize
from training.measure.evaluate import Measured
from training.show.page.words import NONE, dollars, percent, plain

LISTED = 12  # prompts in each list
NEIGHBOURS = 6
POOL = 20_000  # logged prompts among which neighbours are looked for
SHOWN_CHARS = 1_200


@dataclass(frozen=True, slots=True)
class Listing:
    """Prompts of one kind, int64[m] rows of the report, and what they have in common."""

    title: str
    words: str
    rows: NDArray[np.int64]


def listings(measured: Measured, tier: NDArray[np.int64]) -> tuple[Listing, ...]:
    """Choose what to show; tier: int64[n], the policy's choice."""
    rows, policy = measured.rows, measured.artifact.policy
    own = np.arange(len(tier))
    score, top = rows.score, rows.score[:, -1]
    lost = top - score[own, tier]
    bad = np.flatnonzero(~rows.sufficed[own, tier] & rows.sufficed[:, -1])
    sure = rows.p[own, tier]
    wasted = np.where(rows.sufficed, rows.paid[own, tier][:, None] - rows.paid, -np.inf).max(axis=1)
    needless = np.flatnonzero(wasted > 0)
    found = [
        Listing(
            "Worst mistakes: bad downgrades",
            "sent to a cheaper tier that failed, where the top tier would have sufficed; "
            "the largest losses first, then the surest",
            bad[np.lexsort((-sure[bad], -lost[bad]))][:LISTED],
        ),
        Listing(
            "Worst mistakes: money for nothing",
            "a cheaper tier would have sufficed; the most dollars first",
            needless[np.argsort(-wasted[needless], kind="stable")][:LISTED],
        ),
    ]
    if policy.constant is None:
        near = np.argsort(_margin(policy, rows.p, rows.usd), kind="stable")[:LISTED]
        words = "a hair more or less, and another tier would have been chosen"
        found.insert(0, Listing("Nearest the threshold", words, near))
    return tuple(listing for listing in found if len(listing.rows))


def examples(measured: Measured, tier: NDArray[np.int64]) -> dict[str, Any]:
    """The listings and their prompts as JSON values for the page."""
    chosen = listings(measured, tier)
    listed = list(dict.fromkeys(int(row) for listing in chosen for row in listing.rows))
    neighbours = _neighbours(measured, listed)
    return {
        "tiers": list(measured.rows.names),
        "lists": [
            {"title": one.title, "words": one.words, "rows": [listed.index(r) for r in one.rows]}
            for one in chosen
        ],
        "prompts": [
            _prompt(measured, row, int(tier[row])) | {"near": near}
            for row, near in zip(listed, neighbours, strict=True)
        ],
    }


def _margin(
    policy: Policy, p: NDArray[np.float64], usd: NDArray[np.float64]
) -> NDArray[np.float64]:
    """How far the best tier is ahead of the second, in quality: float64[n]."""
    worth = np.sort(p - policy.mu * usd, axis=1)
    return np.asarray(worth[:, -1] - worth[:, -2])


def _prompt(measured: Measured, row: int, tier: int) -> dict[str, Any]:
    rows = measured.rows
    request = int(measured.usable[row])
    return {
        "text": _cut(measured.requests.prompts[request].text),
        "id": str(measured.requests.ids[request]),
        "source": measured.requests.source[request] or "",
        "tier": tier,
        "p": [percent(v, 0) for v in rows.p[row]],
        "usd": [dollars(1000 * v) for v in rows.usd[row]],
        "score": [plain(v, 2) for v in rows.score[row]],
        "good": [int(v) for v in rows.sufficed[row]],
    }


def _neighbours(measured: Measured, listed: list[int]) -> Iterator[list[dict[str, Any]]]:
    """Of each listed row, the logged prompts nearest to it by the cosine of their embeddings."""
    requests = measured.requests
    vectorizer = measured.artifact.predictor.vectorizer
    columns = slice(SURFACE, SURFACE + vectorizer.embedder.dim)
    count = min(POOL, len(requests))
    pool = np.unique(np.linspace(0, len(requests) - 1, count).astype(np.int64))
    known = _unit(vectorize(vectorizer, list(requests.prompts[pool])).dense[:, columns])
    asked = _unit(measured.x.dense[np.array(listed, dtype=np.int64)][:, columns])
    for row, vector in zip(listed, asked, strict=True):
        near = known @ vector
        near[pool == measured.usable[row]] = -np.inf
        best = np.argsort(-near, kind="stable")[:NEIGHBOURS]
        yield [
            {
                "text": _cut(requests.prompts[pool[i]].text),
                "near": plain(float(near[i]), 2),
                "score": [NONE if np.isnan(v) else plain(v, 2) for v in requests.score[pool[i]]],
            }
            for i in best
            if np.isfinite(near[i])
        ]


def _unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.maximum(length, 1e-9), dtype=np.float32)


def _cut(text: str) -> str:
    return text if len(text) <= SHOWN_CHARS else f"{text[:SHOWN_CHARS]} …"
