"""An artifact, the requests of a traffic table by which it can be judged, and what they say."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import GroupKFold

from router.artifact import Artifact, read_artifact
from router.predictor import Estimates
from router.vectorizer import SURFACE
from training.label.rule import LabelRule, firm_requests, labelled_requests
from training.learn.costs import account, length_notes
from training.learn.members import Matrix
from training.learn.seen import known_ids, recognise
from training.learn.splits import several_units
from training.learn.stages import Pace, read_tokens, stages_in_words
from training.learn.vectorize import estimates_of, vectorize
from training.log.requests import Requests
from training.log.traffic import TrafficTable, read_traffic
from training.measure import baselines
from training.measure.propensities import estimate_propensities
from training.measure.report import Report, build_report
from training.measure.rows import Rows
from training.measure.ruled import rule_notes
from training.measure.valuation import Valuation, value_policies
from training.measure.world import World, logged, pick_world, unseen

FOLDS = 5
MIN_ROWS = 20


@dataclass(frozen=True, slots=True)
class Subject:
    """An artifact, and the requests of a traffic table by which it is judged.

    Attributes:
        artifact: whose decisions they are.
        table: the whole traffic table.
        requests: its labelled requests.
        rule: what sufficing means.
        world: which of these are used, and whether they are paired or one-sided.
        notes: what was left out or assumed.
        left_out: requests that the artifact was fitted or chosen on.
    """

    artifact: Artifact
    table: TrafficTable
    requests: Requests
    rule: LabelRule
    world: World
    notes: tuple[str, ...]
    left_out: int

    @property
    def used(self) -> Requests:
        """The requests that the report is about."""
        return self.requests.take(self.world.rows)


@dataclass(frozen=True, slots=True)
class Measured:
    """A subject measured on paired requests: the report, and what it was made from.

    Attributes:
        subject: what was measured, and on which requests.
        x: vectors of its used requests.
        rows: their outcomes and estimates.
        report: made from the rows.
    """

    subject: Subject
    x: Matrix
    rows: Rows
    report: Report


@dataclass(frozen=True, slots=True)
class Valued:
    """A subject valued on one-sided requests: the valuation, and what it was made from.

    Attributes:
        subject: what was valued, and on which requests.
        x: vectors of its used requests.
        estimates: of these.
        report: what policies are worth.
    """

    subject: Subject
    x: Matrix
    estimates: Estimates
    report: Valuation


def prepare(artifact_path: Path, traffic: Path, estimate: bool) -> Subject:
    """Read an artifact and a traffic table, and pick the world that says more.

    Args:
        artifact_path: whose decisions are measured.
        traffic: the table; requests that the artifact was fitted on are left out.
        estimate: estimate propensities that the log does not hold; every output then says so.

    Raises:
        BadInput: too few requests of either world, or a table that cannot be read.
        ArtifactError: the artifact is refused.
    """
    return prepare_table(artifact_path, read_traffic(traffic), str(traffic), estimate)


def prepare_table(artifact_path: Path, table: TrafficTable, name: str, estimate: bool) -> Subject:
    """As `prepare`, of a table that was read already; `name` is what messages call it."""
    artifact, arrays = read_artifact(artifact_path)
    predictor, rule = artifact.predictor, LabelRule(**artifact.manifest["label"])
    requests, notes = labelled_requests(table, predictor.tiers, rule)
    requests, weak = firm_requests(requests)
    notes += weak
    known = known_ids(arrays, requests)
    if estimate:
        requests, estimated = estimate_propensities(requests, predictor.vectorizer.embedder)
        notes += estimated
    world = unseen(requests, known, partial(pick_world, least=MIN_ROWS), name)
    again = recognise(artifact, arrays, requests.take(world.rows))
    asked_again = (again.note,) if again else ()
    notes = (*asked_again, world.note, *notes, *rule.warnings())
    return Subject(artifact, table, requests, rule, world, notes, int(known.sum()))


def measure_paired(subject: Subject) -> Measured:
    """Measure on requests whose every tier's score is known.

    Baselines that learn are cross-fitted on the rows given: they see this very traffic.
    """
    artifact, requests = subject.artifact, subject.used
    tiers, tokens = artifact.predictor.tiers, artifact.predictor.tokens
    routed = _route(artifact, requests)
    x, unit = routed.x, several_units(requests)
    others = _cross_fitted(x.dense[:, SURFACE:], requests.score, unit)
    rows = Rows.of(
        tiers=tiers,
        estimates=routed.estimates,
        paid=routed.paid,
        requests=requests,
        unit=unit,
        rule=subject.rule,
        others=others,
        surface=x.dense[:, :SURFACE],
    )
    lengths = length_notes(x, requests, tokens, tuple(tier.name for tier in tiers))
    report = build_report(rows, artifact.policy, (*subject.notes, *lengths, *routed.notes))
    return Measured(subject, x, rows, report)


def value_one_sided(subject: Subject) -> Valued:
    """Estimate what policies are worth; BadInput where the chosen one's tier was never tried."""
    artifact, requests = subject.artifact, subject.used
    routed = _route(artifact, requests)
    names = tuple(tier.name for tier in artifact.predictor.tiers)
    known = logged(requests, several_units(requests))
    notes = (*subject.notes, *routed.notes)
    found = value_policies(known, routed.estimates, routed.paid, artifact.policy, names, notes)
    return Valued(subject, routed.x, routed.estimates, found)


@dataclass(frozen=True, slots=True)
class _Routed:
    """n requests as an artifact sees them, k tiers.

    Attributes:
        x: their vectors.
        estimates: of them.
        paid: float64[n, k], USD in the account.
        notes: what a second stage and rules do with them, in words.
    """

    x: Matrix
    estimates: Estimates
    paid: NDArray[np.float64]
    notes: tuple[str, ...]


def _route(artifact: Artifact, requests: Requests) -> _Routed:
    predictor, prompts = artifact.predictor, list(requests.prompts)
    x = vectorize(predictor.vectorizer, prompts)
    paid = account(x, requests, predictor.tokens, predictor.tiers)
    estimates = estimates_of(predictor, x, prompts)
    stages = _stage_notes(artifact, estimates, x, requests)
    rules = rule_notes(artifact.rules, predictor, artifact.policy, requests, estimates, paid)
    return _Routed(x, estimates, paid, (*stages, *rules))


def _stage_notes(
    artifact: Artifact, estimates: Estimates, x: Matrix, requests: Requests
) -> tuple[str, ...]:
    """How many of the requests a second stage reads, and what that costs in time."""
    second, known = artifact.predictor.second, artifact.manifest.get("stages")
    if second is None or known is None or estimates.stage is None:
        return ()
    tokens = read_tokens(list(requests.prompts), x.tokens, second.gate.limit)
    pace = Pace(known["first_us"], known["second_us_per_token"])
    facts = pace.facts(estimates.stage == 2, tokens)
    return (stages_in_words(facts, "these requests"),)


def _cross_fitted(
    embedding: NDArray[np.float32], score: NDArray[np.float64], unit: NDArray[np.int64]
) -> dict[str, NDArray[np.float64]]:
    """Baselines' estimates for rows that their fitting left out, {name: float64[n, k]}.

    unit: int64[n]; a unit stays in one fold, or a baseline would know a prompt by its twins.
    """
    found: dict[str, NDArray[np.float64]] = {}
    folds = GroupKFold(min(FOLDS, len(np.unique(unit))), shuffle=True, random_state=0)
    for fit, asked in folds.split(embedding, groups=unit):
        fold = baselines.estimates(embedding[fit], score[fit], embedding[asked])
        for name, estimates in fold.items():
            found.setdefault(name, np.empty_like(score))[asked] = estimates
    return found
