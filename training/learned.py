"""What a job learns from the fit rows: heads, token models, and the predictor that is exported."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from router.head import Head
from router.policy import Policy
from router.predictor import Predictor, Second
from router.prompt import Prompt
from router.tier import Tier
from router.vectorizer import SURFACE, Vectorizer
from training.decide.evidence import Basis
from training.decide.operating import Course, plan_course
from training.learn.costs import expected_tokens, fit_tokens, priced
from training.learn.heads import FittedHeads, fit_heads, probabilities
from training.learn.members import STANDARD, Matrix, Recipe
from training.learn.pooling import kinds
from training.learn.reference import Reference, references_of
from training.learn.stages import Stages, fit_gate, read_stages, with_floors
from training.learn.weak import firm_only, matched_labels, weak_labels
from training.log.requests import Requests
from training.measure.members import Worth


@dataclass(frozen=True, slots=True)
class Learned:
    """The fitted parts, still together with what only training needs.

    Attributes:
        predictor: what `router` serves.
        heads: with the cross-fitted probabilities of the fit rows.
        basis: what the fit rows say of the order in which to try operating points.
        references: what explanations compare with, one per learned head.
        notes: what the log does not tell, in words.
        members: what each member adds; empty where fitting did not have to know.
        second: of two stages the second; the other attributes are the first's then.
    """

    predictor: Predictor
    heads: FittedHeads
    basis: Basis
    references: tuple[Reference, ...]
    notes: tuple[str, ...]
    members: tuple[Worth, ...] = ()
    second: "Learned | None" = None

    @property
    def tiers(self) -> tuple[Tier, ...]:
        """Cheapest first."""
        return self.predictor.tiers

    @property
    def usd(self) -> NDArray[np.float64]:
        """Expected costs of the fit rows with whole estimates, float64[m, k], as `basis`."""
        return priced(self.basis.tokens, self.tiers)

    @property
    def crossfit(self) -> NDArray[np.float64]:
        """Cross-fitted P of the fit rows, float64[m, k]; of two stages as served at a middle μ."""
        stages = self.basis.stages
        if stages is None:
            return self.basis.p
        return stages.mixed(self.basis.p, self.usd, float(np.median(stages.dials)))

    @property
    def course(self) -> Course:
        """The order in which operating points are tried, fixed on the fit rows."""
        stages = self.basis.stages
        return plan_course(self.basis.p if stages is None else stages.p, self.usd)

    def stages(self, x: Matrix, second: Matrix | None, prompts: Sequence[Prompt]) -> Stages | None:
        """What two stages say of prompts, whose vectors are x by the first, `second` by the second.

        None where there is one stage only.
        """
        if self.second is None or second is None or self.predictor.second is None:
            return None
        p = (probabilities(self.heads, x), probabilities(self.second.heads, second))
        return read_stages(self.predictor.second.gate, x.dense, *p, prompts, x.tokens)

    def served(self, policy: Policy) -> "Learned":
        """The same, its second stage (if any) asked as a policy needs it."""
        if self.predictor.second is None:
            return self
        dial = None if policy.constant is not None else policy.mu
        second = replace(self.predictor.second, dial=dial)
        return replace(self, predictor=replace(self.predictor, second=second))


def learn(
    x: Matrix,
    requests: Requests,
    group: NDArray[np.int64],
    tiers: tuple[Tier, ...],
    vectorizer: Vectorizer,
    seed: int,
    recipe: Recipe = STANDARD,
) -> Learned:
    """Fit heads and token models on the fit rows; twice, where labels are weak (`learn.weak`).

    Args:
        x: vectors of the fit rows.
        requests: the fit rows.
        group: int64[m], rows that must stay in one fold.
        tiers: cheapest first.
        vectorizer: what made `x`.
        seed: of folds, trees and clusters.
        recipe: the members' parameters.

    Raises:
        BadInput: there is nothing to learn (see `training.learn.heads.fit_heads`).
    """
    names = tuple(tier.name for tier in tiers)

    def fit(score: NDArray[np.float64], weight: NDArray[np.float64]) -> FittedHeads:
        return fit_heads(
            x,
            score,
            weight,
            group,
            sessions=requests.sessions,
            names=names,
            surface=SURFACE,
            seed=seed,
            recipe=recipe,
            firm=requests.trusted,
            kind=kinds(requests.source, requests.tags),
        )

    if recipe.firm_only:
        requests = firm_only(requests)
    heads = fit(requests.score, requests.weight)
    weak = weak_labels(requests)
    if weak.any():
        heads = fit(*matched_labels(requests, heads.p, weak))
    tokens, notes = fit_tokens(x, requests, names)
    predictor = Predictor(tiers, vectorizer, heads.neighbours, heads.heads, heads.blend, tokens)
    basis = Basis(
        heads.p[heads.whole], expected_tokens(x.take(np.flatnonzero(heads.whole)), tokens)
    )
    learned = [head for head in heads.heads if isinstance(head, Head)]
    references = references_of(learned, heads.neighbours, x, heads.growths)
    return Learned(predictor, heads, basis, references, notes)


def join(first: Learned, second: Learned, x: Matrix, requests: Requests) -> Learned:
    """Two stages from what each learned of the same fit rows, and a gate between them.

    Args:
        first: whose token models stay.
        second: whose embedder is a transformer.
        x: vectors of the fit rows by the first.
        requests: the fit rows.
    """
    p, prompts = (first.heads.p, second.heads.p), list(requests.prompts)
    limit = float(second.predictor.vectorizer.embedder.entry["max_tokens"])
    gate = fit_gate(*p, requests.score, requests.weight, x.dense, limit)
    stages = read_stages(gate, x.dense, *p, prompts, x.tokens)
    dials = plan_course(stages.p, first.usd).dials
    gate = with_floors(gate, first.heads.p, first.usd, stages.spread, stages.tokens, dials)
    notes = (
        *(f"second stage, {note}" for note in second.heads.notes),
        f"where the second stage is asked, it counts {gate.share:.0%} and the first the rest",
    )
    return replace(
        first,
        predictor=replace(first.predictor, second=Second(second.predictor, gate, None)),
        basis=replace(first.basis, stages=stages.at_floors(gate.dials, gate.floors)),
        notes=(*first.notes, *notes),
        second=second,
    )
