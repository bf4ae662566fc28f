"""How far each source is trusted: as stated, or as the log shows where a sure source speaks, too.

What a source says of an answer is evidence: the log of how many times likelier it says so of an
answer that sufficed than of one that did not. A stated weight w is worth 2·artanh(w), the log odds
of a voter who is right with probability (1 + w)/2 (Nitzan and Paroush 1982). Where a sure source
(a grader, as a rule) speaks of at least `OVERLAP` of the same answers, the ratio is counted there
(cf. Dawid and Skene 1979, with the truth known), for each side and for each who answers: nobody
escalates from the top tier, so silence about its answers says nothing. Counts are shrunk, on the
scale of evidence, with normal priors of unit variance: the whole log towards the stated weight, one
answerer towards the whole log. Evidence against what a source seems to say counts as none.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.label.plan import LabelPlan
from training.log.requests import FIRM

Floats = NDArray[np.float64]
OVERLAP = 30  # answers of which both speak
SURE = 0.9  # a source of this weight is taken for the truth about the others
MAX_WEIGHT = 0.999  # a weight of 1 would outvote everything for ever


@dataclass(frozen=True, slots=True)
class Trust:
    """Evidence of one source.

    Attributes:
        evidence: float64[2, m], against and for, by who answered; 0 or more.
        overlap: answers that it was measured on; 0 if its weight is as stated.
        firm: whether a promise or a report may rest on it.
    """

    evidence: Floats
    overlap: int
    firm: bool


def trust(
    scores: Mapping[str, Floats], who: NDArray[np.int32], plan: LabelPlan, sufficed_at: float
) -> dict[str, Trust]:
    """What each source's word is worth.

    Args:
        scores: float64[n] by source, NaN where it says nothing.
        who: int32[n], index of who answered, of m.
        plan: the stated weights; a weight that the user set is never measured.
        sufficed_at: from this score on an answer sufficed.
    """
    answerers = int(who.max(initial=0)) + 1
    truth = np.full(len(who), np.nan)
    for name in sorted(scores, key=lambda name: plan.weight(name)):
        if plan.weight(name) >= SURE:
            truth = np.where(np.isnan(scores[name]), truth, scores[name])
    graded = np.flatnonzero(~np.isnan(truth))
    sufficed = (truth[graded] >= sufficed_at).astype(np.int64)
    found = {}
    for name, said in scores.items():
        weight = plan.weight(name)
        stated = np.full((2, answerers), 2.0 * np.arctanh(min(weight, MAX_WEIGHT)))
        says = said[graded]
        overlap = int((~np.isnan(says)).sum())
        if weight >= SURE or plan.states(name) or overlap < OVERLAP:
            found[name] = Trust(stated, 0, weight >= FIRM)
            continue
        sides = np.where(np.isnan(says), -1, says >= sufficed_at).astype(np.int64)
        measured = _evidence(sides, sufficed, who[graded], stated)
        found[name] = Trust(measured, overlap, weight >= FIRM)
    return found


def _evidence(
    sides: NDArray[np.int64], sufficed: NDArray[np.int64], who: NDArray[np.int32], stated: Floats
) -> Floats:
    """Shrunk evidence float64[2, m] from what was said (0, 1, -1 nothing) of graded answers."""
    answerers = stated.shape[1]
    graded = np.zeros((2, answerers))
    np.add.at(graded, (sufficed, who), 1.0)
    evidence = np.empty_like(stated)
    for side in (0, 1):
        spoke = sides == side
        if not spoke.any():
            evidence[side] = stated[side]
            continue
        said = np.zeros((2, answerers))
        np.add.at(said, (sufficed[spoke], who[spoke]), 1.0)
        sign = 1.0 if side else -1.0
        value, variance = _log_ratio(said.sum(axis=1), graded.sum(axis=1), sign)
        whole = _towards(value, variance, stated[side, 0])
        each, variances = _log_ratio(said, graded, sign)
        evidence[side] = _towards(each, variances, whole)
    return np.clip(evidence, 0.0, 2.0 * np.arctanh(MAX_WEIGHT))


def _log_ratio(said: Floats, graded: Floats, sign: float) -> tuple[Floats, Floats]:
    """Log of the ratio of two shares, not sufficed first, and its variance (Katz et al. 1978)."""
    share = (said + 0.5) / (graded + 1.0)
    value = sign * (np.log(share[1]) - np.log(share[0]))
    variance = (1.0 / (said + 0.5) - 1.0 / (graded + 1.0)).sum(axis=0)
    return value, variance


def _towards(value: Floats, variance: Floats, prior: Floats) -> Floats:
    """Posterior mean for a normal prior of unit variance."""
    return np.asarray((value + variance * prior) / (1.0 + variance))
