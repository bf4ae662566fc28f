"""Single prompts for a reader: nearest the threshold, worst mistakes, and their logged neighbours.

Everything here holds users' text. It goes into the page as data, never as markup.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from router.artifact import Artifact
from router.policy import Policy
from router.prompt import Prompt
from router.vectorizer import SURFACE
from training.learn.vectorize import vectorize
from training.log.imprint import Imprint
from training.log.requests import Requests
from training.measure.subject import Measured, Valued
from training.show.words import NONE, dollars, percent, plain

LISTED = 12  # prompts in each list
NEIGHBOURS = 6
POOL = 20_000  # logged prompts among which neighbours are looked for
SHOWN_CHARS = 1_200


@dataclass(frozen=True, slots=True)
class Decided:
    """The m requests of a page as an artifact decides them, in either world; k tiers.

    Attributes:
        artifact: whose decisions they are.
        requests: all labelled requests of the log.
        usable: int64[m], those of them that the page is about.
        dense: float32[m, dim], their vectors.
        p, usd: float64[m, k], what the router expects.
        score: float64[m, k], NaN where not observed.
        sufficed: bool[m, k], false where not observed.
    """

    artifact: Artifact
    requests: Requests
    usable: NDArray[np.int64]
    dense: NDArray[np.float32]
    p: NDArray[np.float64]
    usd: NDArray[np.float64]
    score: NDArray[np.float64]
    sufficed: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Listing:
    """Prompts of one kind, int64[m] rows of the report, and what they have in common."""

    title: str
    words: str
    rows: NDArray[np.int64]


def paired_examples(measured: Measured) -> dict[str, Any]:
    """Prompts nearest the threshold and worst mistakes, as JSON values for the page."""
    rows, subject = measured.rows, measured.subject
    tier = subject.artifact.policy.choose(rows.p, rows.usd)
    decided = Decided(
        subject.artifact,
        subject.requests,
        subject.world.rows,
        measured.x.dense,
        rows.p,
        rows.usd,
        rows.score,
        rows.sufficed,
    )
    return _examples(decided, tier, [*_nearest(decided), *_mistakes(measured, tier)])


def one_sided_examples(valued: Valued) -> dict[str, Any]:
    """Prompts nearest the threshold: a mistake takes two outcomes to see."""
    subject, p, usd = valued.subject, valued.estimates.p, valued.estimates.usd
    score = subject.used.score
    decided = Decided(
        subject.artifact,
        subject.requests,
        subject.world.rows,
        valued.x.dense,
        p,
        usd,
        score,
        subject.rule.sufficed(score),
    )
    return _examples(decided, subject.artifact.policy.choose(p, usd), _nearest(decided))


def _nearest(decided: Decided) -> list[Listing]:
    if decided.artifact.policy.constant is not None:
        return []
    margin = _margin(decided.artifact.policy, decided.p, decided.usd)
    words = "a hair more or less, and another tier would have been chosen"
    return [Listing("Nearest the threshold", words, np.argsort(margin, kind="stable")[:LISTED])]


def _mistakes(measured: Measured, tier: NDArray[np.int64]) -> list[Listing]:
    """What went wrong on paired rows; tier: int64[n], the policy's choice."""
    rows = measured.rows
    own = np.arange(len(tier))
    lost = rows.score[:, -1] - rows.score[own, tier]
    bad = np.flatnonzero(~rows.sufficed[own, tier] & rows.sufficed[:, -1])
    sure = rows.p[own, tier]
    wasted = np.where(rows.sufficed, rows.paid[own, tier][:, None] - rows.paid, -np.inf).max(axis=1)
    needless = np.flatnonzero(wasted > 0)
    return [
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


def _examples(decided: Decided, tier: NDArray[np.int64], chosen: list[Listing]) -> dict[str, Any]:
    """The listings that are not empty and their prompts; tier: int64[m], the policy's choice."""
    chosen = [listing for listing in chosen if len(listing.rows)]
    listed = list(dict.fromkeys(int(row) for listing in chosen for row in listing.rows))
    pool = _pool(decided.requests)
    neighbours = _neighbours(decided, pool, listed)
    return {
        "tiers": [one.name for one in decided.artifact.predictor.tiers],
        "pool": _told(len(pool), len(decided.requests)),
        "lists": [
            {"title": one.title, "words": one.words, "rows": [listed.index(r) for r in one.rows]}
            for one in chosen
        ],
        "prompts": [
            _prompt(decided, row, int(tier[row])) | {"near": near}
            for row, near in zip(listed, neighbours, strict=True)
        ],
    }


def _margin(
    policy: Policy, p: NDArray[np.float64], usd: NDArray[np.float64]
) -> NDArray[np.float64]:
    """How far the best tier is ahead of the second, in quality: float64[n]."""
    worth = np.sort(p - policy.mu * usd, axis=1)
    return np.asarray(worth[:, -1] - worth[:, -2])


def _prompt(decided: Decided, row: int, tier: int) -> dict[str, Any]:
    request = int(decided.usable[row])
    seen = ~np.isnan(decided.score[row])
    return {
        "text": _text(decided.requests.prompts[request]),
        "id": str(decided.requests.ids[request]),
        "source": decided.requests.source[request] or "",
        "tier": tier,
        "p": [percent(v, 0) for v in decided.p[row]],
        "usd": [dollars(1000 * v) for v in decided.usd[row]],
        "score": _scores(decided.score[row]),
        "good": [int(v) if s else None for v, s in zip(decided.sufficed[row], seen, strict=True)],
    }


def _scores(scores: NDArray[np.float64]) -> list[str]:
    return [NONE if np.isnan(score) else plain(score, 2) for score in scores]


def _pool(requests: Requests) -> NDArray[np.int64]:
    """Requests among which neighbours are looked for, spread evenly over the log."""
    count = min(POOL, len(requests))
    return np.unique(np.linspace(0, len(requests) - 1, count).astype(np.int64))


def _told(pool: int, logged: int) -> str:
    among = f"all {logged:,}" if pool == logged else f"{pool:,} of {logged:,}"
    spread = "" if pool == logged else ", spread evenly over the log"
    return f"Neighbours are looked for among {among} labelled prompts{spread}."


def _neighbours(
    decided: Decided, pool: NDArray[np.int64], listed: list[int]
) -> Iterator[list[dict[str, Any]]]:
    """Of each listed row, the requests of the pool nearest to it by their embeddings' cosine."""
    if not listed:
        return
    requests, vectorizer = decided.requests, decided.artifact.predictor.vectorizer
    columns = slice(SURFACE, SURFACE + vectorizer.embedder.dim)
    logged = _unit(vectorize(vectorizer, list(requests.prompts[pool])).dense[:, columns])
    asked = _unit(decided.dense[np.array(listed, dtype=np.int64)][:, columns])
    for row, vector in zip(listed, asked, strict=True):
        near = logged @ vector
        near[pool == decided.usable[row]] = -np.inf
        best = np.argsort(-near, kind="stable")[:NEIGHBOURS]
        yield [
            {
                "text": _text(requests.prompts[pool[i]]),
                "near": plain(float(near[i]), 2),
                "score": _scores(requests.score[pool[i]]),
            }
            for i in best
            if np.isfinite(near[i])
        ]


def _unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.maximum(length, 1e-9), dtype=np.float32)


def _text(prompt: Prompt | Imprint) -> str:
    if isinstance(prompt, Imprint):
        return f"(not kept: the table holds features only; {prompt.chars:,} characters)"
    text = prompt.text
    return text if len(text) <= SHOWN_CHARS else f"{text[:SHOWN_CHARS]} …"
