"""The test rows on which challenger, champion and anchor are compared, and what each does there."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from router import Router
from router.artifact import Artifact, read_artifact
from router.prompt import Prompt
from router.tier import Tier
from router.vectorizer import SURFACE
from training.errors import BadInput
from training.golden import golden_prompts, replay
from training.ground import Ground
from training.label.rule import LabelRule
from training.learn.costs import account
from training.learn.members import Matrix
from training.learn.seen import known_ids
from training.learn.splits import coarsest
from training.learn.vectorize import estimate
from training.log.requests import Requests
from training.measure.limits import few_sessions
from training.measure.offpolicy import pseudo_outcomes
from training.measure.slices import slices_of
from training.measure.world import logged
from training.retrain.gate import Entrant, Holdout, Ints

TIMED = 300  # prompts that the latency is measured on


@dataclass(frozen=True, slots=True)
class Contest:
    """The holdout, the challenger on it, and the choices of those that it meets."""

    holdout: Holdout
    entrant: Entrant
    standing: Mapping[str, Ints]
    notes: tuple[str, ...]


def hold(
    ground: Ground,
    vectors: Matrix,
    challenger: Path,
    others: Mapping[str, Path],
    rule: LabelRule,
) -> Contest:
    """Let an exported challenger and other artifacts decide the test rows that none has seen.

    Args:
        ground: requests and splits.
        vectors: of all requests, as the challenger sees them.
        challenger: its folder.
        others: {``champion``, ``anchor``: folder}.
        rule: what sufficing means.

    Raises:
        BadInput: another artifact has a tier that the tiers file lacks.
        ArtifactError: an artifact is refused.
    """
    names: dict[Path, str] = {}
    for name, folder in others.items():  # the champion may be the anchor
        names.setdefault(folder, name)
    rivals = {folder: read_artifact(folder) for folder in names}
    known = {names[folder]: arrays for folder, (_, arrays) in rivals.items()}
    rows, notes = _unknown(ground, known)
    used, x = ground.requests.take(rows), vectors.take(rows)
    ours = read_artifact(challenger)[0]
    estimates = estimate(ours.predictor, list(used.prompts))
    tier = ours.policy.choose(estimates.p, estimates.usd)
    paid = account(x, used, ours.predictor.tokens, ground.tiers)
    paired = ground.world.paired
    quality = used.score if paired else pseudo_outcomes(logged(used), estimates.p)
    holdout = Holdout(
        names=tuple(one.name for one in ground.tiers),
        quality=quality,
        paid=paid,
        session=coarsest(ground.splits.units[:, rows]),
        observed=used.score,
        sufficed=rule.sufficed(used.score) if paired else None,
        slices=slices_of(used, x.dense[:, :SURFACE]),
    )
    entrant = Entrant(
        tier=tier,
        p=estimates.p,
        constant=ours.policy.constant,
        promise=ours.policy.promise,
        golden=replay(ours.predictor, ours.golden),
        latency_ms=_times(Router(ours), used),
    )
    choices = {
        folder: _choices(one, used, ground.tiers, names[folder])
        for folder, (one, _) in rivals.items()
    }
    standing = {name: choices[folder] for name, folder in others.items()}
    return Contest(holdout, entrant, standing, (*notes, *few_sessions(holdout.session)))


def _unknown(
    ground: Ground, known: Mapping[str, Mapping[str, NDArray[Any]]]
) -> tuple[Ints, tuple[str, ...]]:
    """The test rows that can judge and that no rival knows, and what was left out, in words.

    known: arrays of the rivals' artifacts, by their names.
    """
    rows, notes = ground.tested, []
    for name, arrays in known.items():
        seen = known_ids(arrays, ground.requests.take(rows))
        if seen.any():
            notes.append(f"{int(seen.sum())} test rows were known to the {name} and are left out")
        rows = rows[~seen]
    return rows, tuple(notes)


def _choices(artifact: Artifact, used: Requests, tiers: tuple[Tier, ...], name: str) -> Ints:
    """Where an artifact sends the requests, as indices of `tiers`."""
    index = {tier.name: k for k, tier in enumerate(tiers)}
    theirs = artifact.predictor.tiers
    lost = [tier.name for tier in theirs if tier.name not in index]
    if lost:
        raise BadInput(
            f"the {name} ({artifact.version}) routes to {', '.join(lost)}, which the tiers file "
            "lacks: they cannot be compared. Keep the tier while it serves, or promote by hand"
        )
    if not len(used):
        return np.zeros(0, dtype=np.int64)
    estimates = estimate(artifact.predictor, list(used.prompts))
    own = artifact.policy.choose(estimates.p, estimates.usd)
    return np.array([index[tier.name] for tier in theirs], dtype=np.int64)[own]


def _times(router: Router, used: Requests) -> NDArray[np.float64]:
    """How long `Router.route` takes for each of the first prompts, in milliseconds.

    The golden prompts stand in for those of which there are features only.
    """
    times = []
    known = [prompt for prompt in used.prompts[:TIMED] if isinstance(prompt, Prompt)]
    for prompt in known or golden_prompts()[: len(used)]:
        started = perf_counter()
        router.route(prompt.text)
        times.append(1e3 * (perf_counter() - started))
    return np.array(times)
