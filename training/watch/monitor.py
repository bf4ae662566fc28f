"""`suffice monitor`: does the promise still hold, day by day, however often one looks.

A gambler bets against the promise with every labelled session. If it holds, his capital passes
1/risk with probability at most `risk`, ever (Ville, 1939; Waudby-Smith & Ramdas, 2024): so daily
looks over years raise a false alarm with at most that probability in all. He spreads his money over
bets of several sizes, as he does not know how badly the promise fails. Within a look, sessions that
ask the same are one unit, which weighs as many. From look to look a prompt that is asked again
counts as new. A session that goes on does not, as long as the traffic given still holds a request
of it that was counted: of a session that lasts for ten looks each would tell the same again. A
label may come days after its request: what was counted is known by hashes of request ids, not by
its time.
"""

import json
from base64 import b64decode, b64encode
from dataclasses import asdict, dataclass, replace
from math import exp, log
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp

from router.artifact import read_artifact
from router.policy import Promise
from training.decide.bounds import per_unit
from training.errors import BadInput
from training.files import check_file, write_json
from training.label.rule import LabelRule, firm_requests, load_requests
from training.learn.seen import id_hashes, known_ids
from training.learn.splits import coarsest, independent
from training.learn.vectorize import estimate
from training.log.requests import Requests
from training.measure.intervals import Floats
from training.measure.offpolicy import largest_weight, pseudo_outcomes
from training.measure.slice_report import promise_margins
from training.measure.world import judging, logged

RISK = 0.05
Hashes = NDArray[np.uint64]
BETS = 0.9 * 0.5 ** np.arange(8)  # as shares of the largest bet that cannot ruin


@dataclass(frozen=True, slots=True)
class Watch:
    """What the monitor remembers between looks.

    Attributes:
        artifact: version whose promise is watched.
        until: time of the newest request counted, ISO 8601, UTC.
        sessions: labelled ones so far.
        kept: mean by which the promise was kept so far; below 0 it was missed.
        capital: log of each bet's capital.
        highest: largest capital so far.
        alarm: time of the alarm, or None.
    """

    artifact: str
    until: str | None = None
    sessions: int = 0
    kept: float = 0.0
    capital: tuple[float, ...] = (0.0,) * len(BETS)
    highest: float = 1.0
    alarm: str | None = None

    def as_json(self) -> dict[str, Any]:
        """For a machine."""
        return asdict(self) | {"needed": 1 / RISK, "world_risk": RISK}

    def as_text(self) -> list[str]:
        """For people."""
        said = (
            f"ALARM at {self.alarm}: the promise is shown to be broken"
            if self.alarm
            else "no alarm: the promise is not shown to be broken"
        )
        return [
            f"artifact {self.artifact}: {self.sessions} labelled sessions (in a look those that "
            f"ask the same are one) until {self.until}, kept by {self.kept:+.4f} on average",
            f"evidence against the promise {self.highest:.3g} of {1 / RISK:g} needed",
            said,
        ]


def monitor(artifact_path: Path, traffic: Path, state: Path) -> Watch:
    """Count labelled traffic that `state` has not counted, and write that anew.

    Paired requests speak by their scores; one-sided ones, where the promise is on quality, by
    doubly robust scores from logged propensities.

    Raises:
        BadInput: no promise to watch, requests without times, a damaged state, or nothing labelled.
        ArtifactError: the artifact is refused.
    """
    check_file(state, artifact_path, traffic)
    artifact, arrays = read_artifact(artifact_path)
    promise = artifact.policy.promise
    if promise is None:
        raise BadInput(f"{artifact_path}: its operating point makes no promise")
    watches = _read(state)
    before, counted = _watch(state, watches.get(artifact.version), artifact.version)
    rule = LabelRule(**artifact.manifest["label"])
    requests, _ = load_requests(traffic, artifact.predictor.tiers, rule)
    requests, _ = firm_requests(requests)
    if np.isnat(requests.at).any():
        raise BadInput(f"{traffic}: column at: the monitor needs the time of every request")
    new = ~known_ids(arrays, requests)
    one_sided = promise.rule == "min_quality"
    new &= judging(requests, paired=not one_sided)
    if not new.any():
        needed = "or an answer's propensity" if one_sided else "(the promise compares answers)"
        raise BadInput(
            f"{traffic}: of {len(requests)} labelled requests none can be counted: it takes every "
            f"tier's score {needed}, on requests that the artifact was not fitted or chosen on"
        )
    if counted is None:  # a state of an earlier version: what is not newer was counted
        counted = id_hashes(requests.ids[new & (requests.at <= np.datetime64(before.until))])
    again = np.isin(id_hashes(requests.ids), counted)
    new &= ~np.isin(requests.sessions, requests.sessions[again])
    requests = requests.take(np.flatnonzero(new))
    if not len(requests):
        return before
    estimates = estimate(artifact.predictor, list(requests.prompts))
    tier = artifact.policy.choose(estimates.p, estimates.usd)
    margins, high = _margins(promise, requests, tier, estimates.p, rule)
    values, sizes, first = _per_unit(margins, requests)
    after = look(before, values, high * float(sizes.max()), requests.at[first])
    after = replace(after, until=max(before.until or "", str(requests.at.max())))
    counted = np.concatenate([counted, id_hashes(requests.ids)])
    told = asdict(after) | {"counted": b64encode(counted.tobytes()).decode()}
    write_json(state, {"artifacts": watches | {artifact.version: told}})
    return after


def _per_unit(margins: Floats, requests: Requests) -> tuple[Floats, Floats, NDArray[np.int64]]:
    """Margins of independent units, as in `training.decide.promises`, in the order of time.

    Returns:
        Each unit's margin and its number of sessions over their mean, float64[units] each; its
        first row, int64[units].
    """
    sessions, unit = requests.sessions, coarsest(independent(requests))
    first = np.unique(unit, return_index=True)[1]
    order = np.argsort(first)
    values, sizes = (per_unit(v, sessions, unit) for v in (margins, np.ones(len(unit))))
    return values[order], sizes[order], first[order]


def look(before: Watch, margins: Floats, high: float, times: Any) -> Watch:
    """Bet on margins in the order of time.

    Args:
        before: what is known so far.
        margins: float64[n], by how much each session keeps the promise; at most `high`.
        high: above 0.
        times: datetime64[n].
    """
    stakes = BETS / high
    path = np.log1p(-stakes[:, None] * np.minimum(margins, high)).cumsum(axis=1)
    path += np.array(before.capital)[:, None]
    capital = logsumexp(path, axis=0) - log(len(stakes))  # the mean over bets
    over = np.flatnonzero(capital >= -log(RISK))
    total = before.sessions + len(margins)
    return replace(
        before,
        sessions=total,
        kept=(before.kept * before.sessions + float(margins.sum())) / total,
        capital=tuple(path[:, -1].tolist()),
        highest=max(before.highest, exp(min(float(capital.max()), 700.0))),
        alarm=before.alarm or (str(times[over[0]]) if len(over) else None),
    )


def _margins(
    promise: Promise, requests: Requests, tier: Any, p: Floats, rule: LabelRule
) -> tuple[Floats, float]:
    """By how much each request keeps the promise, and the largest that this can be."""
    if promise.rule == "max_bad_downgrade":
        good = rule.sufficed(requests.score)
        found = promise_margins(promise, tier, requests.score, good)
        assert found is not None
        return found, promise.target
    told = logged(requests)
    score = pseudo_outcomes(told, p)
    weight = largest_weight(told)
    found = promise_margins(promise, tier, score, np.ones(score.shape, bool))
    assert found is not None
    # Pseudo-outcomes lie in [1 − W, W]; of one request only one tier's is outside [0, 1].
    return found, max(weight, 1.0 + promise.target * (weight - 1.0))


def _read(state: Path) -> dict[str, Any]:
    """What the state says of each artifact, by version: after a rollback a watch goes on."""
    if not state.exists():
        return {}
    try:
        values = json.loads(state.read_text(encoding="utf-8"))
        if "artifact" in values:  # a state of an earlier version, of one artifact
            return {values["artifact"]: values}
        return dict(values["artifacts"])
    except (ValueError, TypeError, KeyError) as error:
        raise _unreadable(state, error) from error


def _watch(state: Path, said: dict[str, Any] | None, version: str) -> tuple[Watch, Hashes | None]:
    """What is known so far, and hashes of the requests counted; None where they were not kept."""
    if said is None:
        return Watch(version), np.empty(0, dtype=np.uint64)
    try:
        values = said | {"capital": tuple(map(float, said["capital"]))}
        kept = values.pop("counted", None)
        counted = None if kept is None else np.frombuffer(b64decode(kept, validate=True), np.uint64)
        found = Watch(**values)
        if found.artifact != version or len(found.capital) != len(BETS):
            raise ValueError(f"of artifact {found.artifact}, {len(found.capital)} bets")
    except (ValueError, TypeError, KeyError) as error:
        raise _unreadable(state, error) from error
    return found, counted


def _unreadable(state: Path, error: Exception) -> BadInput:
    return BadInput(f"{state}: not a monitor's state ({error}); name another file")
