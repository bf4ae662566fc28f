"""What a job learns from the fit rows: heads, token models, and the predictor that is exported."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from router.embedder import Embedder
from router.head import Head
from router.predictor import Predictor
from router.tier import Tier
from router.vectorizer import SURFACE, Vectorizer
from training.decide.evidence import Basis
from training.learn.costs import expected_tokens, fit_tokens, priced
from training.learn.flatten import flatten
from training.learn.heads import FittedHeads, fit_heads
from training.learn.members import STANDARD, Matrix, Recipe
from training.learn.reference import Reference, references_of
from training.learn.weak import firm_only, matched_labels, weak_labels
from training.log.requests import Requests


@dataclass(frozen=True, slots=True)
class Learned:
    """The fitted parts, still together with what only training needs.

    Attributes:
        predictor: what `router` serves.
        heads: with the cross-fitted probabilities of the fit rows.
        embedder: as exported.
        basis: what the fit rows say of the order in which to try operating points.
        references: what explanations compare with, one per learned head.
        notes: what the log does not tell, in words.
    """

    predictor: Predictor
    heads: FittedHeads
    embedder: Embedder
    basis: Basis
    references: tuple[Reference, ...]
    notes: tuple[str, ...]

    @property
    def tiers(self) -> tuple[Tier, ...]:
        """Cheapest first."""
        return self.predictor.tiers

    @property
    def usd(self) -> NDArray[np.float64]:
        """Expected costs of the fit rows, float64[m, k], beside `heads.p`."""
        return priced(self.basis.tokens, self.tiers)


def learn(
    x: Matrix,
    requests: Requests,
    group: NDArray[np.int64],
    tiers: tuple[Tier, ...],
    embedder: Embedder,
    vectorizer: Vectorizer,
    seed: int,
    recipe: Recipe = STANDARD,
) -> Learned:
    """Fit heads and token models on the fit rows; twice, where labels are weak (`learn.weak`).

    Args:
        x: vectors of the fit rows.
        requests: the fit rows.
        group: int64[m], rows that must stay in one fold.
        seed: of folds, trees and clusters.
        recipe: the members' parameters.

    Raises:
        BadInput: there is nothing to learn (see `training.learn.heads.fit_heads`).
    """
    names = tuple(tier.name for tier in tiers)

    def fit(score: NDArray[np.float64], weight: NDArray[np.float64]) -> FittedHeads:
        rows = (x, score, weight, group, requests.sessions)
        return fit_heads(*rows, names, SURFACE, seed, recipe, requests.trusted)

    if recipe.firm_only:
        requests = firm_only(requests)
    heads = fit(requests.score, requests.weight)
    weak = weak_labels(requests)
    if weak.any():
        heads = fit(*matched_labels(requests, heads.p, weak))
    tokens, notes = fit_tokens(x, requests, names)
    predictor = Predictor(tiers, vectorizer, heads.neighbours, heads.heads, heads.blend, tokens)
    basis = Basis(heads.p, expected_tokens(x, tokens))
    learned = [head for head in heads.heads if isinstance(head, Head)]
    growths = [flatten(booster)[1] for booster in heads.boosters]
    references = references_of(learned, heads.neighbours, x, growths)
    return Learned(predictor, heads, embedder, basis, references, notes)
