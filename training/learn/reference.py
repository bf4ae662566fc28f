"""What an explanation compares with: the average fit row, as a learned tier's members see it.

Training keeps it in the artifact's heads.npz, beside the arrays that serving reads. It holds means
over many rows and counts of rows, no text.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from router.head import Head
from router.neighbours import Neighbours
from router.predictor import Predictor
from training.golden import golden_prompts
from training.learn.flatten import Growth
from training.learn.members import Matrix
from training.learn.prototypes import neighbour_margins
from training.learn.vectorize import vectorize

MOST_ROWS = 2000  # a mean over more is no better, and the neighbours take their time


@dataclass(frozen=True, slots=True)
class Reference:
    """The average row of one learned tier.

    Attributes:
        dense: float64[dim], mean dense vector, each value held inside the linear member's range.
        terms: mean log-odds of all n-grams together, in the linear member.
        near: mean log-odds of the neighbours.
        read: mean log-odds of the fine-tuned encoder, 0 where there is none.
        growth: how many fitting rows took each branch of the forest.
    """

    dense: NDArray[np.float64]
    terms: float
    near: float
    read: float
    growth: Growth


def references_of(
    heads: Sequence[Head], neighbours: Neighbours, x: Matrix, growths: Sequence[Growth]
) -> tuple[Reference, ...]:
    """The averages over (some of) the rows x, one Reference per learned head."""
    rows = np.unique(np.linspace(0, len(x.dense) - 1, MOST_ROWS).astype(np.int64))
    some = x.take(rows)
    near = neighbour_margins(neighbours, some.dense).mean(axis=0)
    return tuple(
        Reference(
            dense=np.clip(some.dense, head.linear.low, head.linear.high).mean(axis=0, dtype="f8"),
            terms=float((some.terms @ head.linear.terms.astype(np.float64)).mean()),
            near=float(near[j]),
            read=float(np.nanmean(x.read[:, j])) if x.read.shape[1] else 0.0,
            growth=growth,
        )
        for j, (head, growth) in enumerate(zip(heads, growths, strict=True))
    )


def reference_arrays(
    references: Sequence[Reference], learned: Sequence[int]
) -> dict[str, NDArray[Any]]:
    """The references of the tiers with the indices `learned`, as arrays of heads.npz."""
    return {
        f"{k}.reference.{name}": np.asarray(value)
        for k, reference in zip(learned, references, strict=True)
        for name, value in {
            "dense": reference.dense,
            "terms": reference.terms,
            "near": reference.near,
            "read": reference.read,
            "rows": reference.growth.rows,
            "gain": reference.growth.gain,
        }.items()
    }


def read_references(
    arrays: Mapping[str, NDArray[Any]], predictor: Predictor
) -> tuple[tuple[Reference, ...], str]:
    """What to compare with, one Reference per learned head, and what that is, in words.

    An artifact of a version that kept no averages is compared with its golden prompts.
    """
    heads = [head for head in predictor.heads if isinstance(head, Head)]
    if all(f"{k}.reference.dense" in arrays for k in predictor.learned):
        kept = tuple(_read(arrays, f"{k}.reference.") for k in predictor.learned)
        return kept, "the average request that the router was trained on"
    growths = [Growth.unknown(head.forest) for head in heads]
    x = vectorize(predictor.vectorizer, golden_prompts())
    return references_of(heads, predictor.neighbours, x, growths), (
        f"the average of {len(x.dense)} prompts written for this project: this artifact, made by "
        "an older version, keeps no averages of its traffic"
    )


def _read(arrays: Mapping[str, NDArray[Any]], prefix: str) -> Reference:
    dense, terms, near, rows, gain = (
        arrays[prefix + name] for name in ("dense", "terms", "near", "rows", "gain")
    )
    read = float(arrays.get(f"{prefix}read", 0.0))
    return Reference(dense, float(terms), float(near), read, Growth(rows, gain))
