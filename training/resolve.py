"""Another operating point for the same heads: a new goal (`resolve`) or new prices (`reprice`).

Both write a new artifact version, card included, and log a run; neither fits anything.
"""

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from router.artifact import Artifact, load_artifact, read_artifact
from router.tier import Tier
from training.console import step
from training.decide.evidence import FILE, Basis, Evidence, gather_evidence, load_evidence
from training.decide.goals import Goal, parse_goal
from training.decide.operating import Course, check_units, choice_world, choose, plan_course
from training.decide.settled import Settled
from training.errors import BadInput
from training.export import check_out
from training.issue import Reissued, Spent, issue
from training.label.rule import LabelRule, firm_requests, load_requests
from training.learn.costs import check_prices, priced
from training.learn.seen import known_ids, recognise
from training.learn.splits import independent
from training.learn.stages import fit_floors, stages_of
from training.learn.vectorize import vectorize
from training.measure.world import unseen
from training.tracking import EVIDENCE_TAG, fetch_file
from training.watch.baseline import sample


def resolve(artifact_path: Path, traffic: Path, goal: Goal, out: Path) -> Reissued:
    """Choose an operating point for a new goal on labelled traffic that the artifact never saw.

    Rows that the artifact was fitted or chosen on are left out; those used now count as seen
    afterwards. The order in which operating points are tried is the one of training.

    Raises:
        BadInput: too few unseen rows with every tier's score, a goal that is impossible at these
            prices, or an artifact that does not hold what is needed.
        ArtifactError: the artifact is refused.
        EnvironmentProblem: MLflow refused the run; nothing was written.
    """
    check_out(out)
    artifact, arrays = read_artifact(artifact_path)
    manifest, predictor = artifact.manifest, artifact.predictor
    course, rule = _course(artifact), LabelRule(**manifest["label"])
    if course is None:
        raise BadInput(
            f"{artifact_path}: it was made before artifacts kept the order in which to try "
            "operating points: train again"
        )
    with step("read traffic"):
        requests, notes = load_requests(traffic, predictor.tiers, rule)
        requests, weak = firm_requests(requests)
        notes += weak
        known = known_ids(arrays, requests)
        world = unseen(requests, known, partial(choice_world, goal, rule), str(traffic))
        rows = world.rows
        used = requests.take(rows)
        again = recognise(artifact, arrays, used)
        if again is not None and again.spoils:
            raise BadInput(
                f"{traffic}: {again.note}. A promise chosen on them would be worth nothing: give "
                "traffic that the artifact was not trained on"
            )
    units = independent(used)
    check_units(goal, units, world.paired)
    with step("operating point"):
        x = vectorize(predictor.vectorizer, list(used.prompts))
        p = np.array([predictor.probabilities(vector) for vector in x.vectors()])
        stages = stages_of(predictor, x, list(used.prompts))
        evidence, untried = gather_evidence(
            p, x, used, units, predictor, rule, world.paired, stages
        )
        policy = choose(goal, course, evidence, [tier.name for tier in predictor.tiers])
    note = (
        f"operating point chosen again on {len(rows)} requests of {traffic.name} "
        f"({int(known.sum())} left out: the artifact was fitted or chosen on them); {world.note}; "
        "they cannot serve a second choice for this artifact or what comes of it (of "
        f"{artifact.version}, which does not know of this one, they ought not to)"
    )
    notes += untried
    notes += (again.note,) if again else ()
    found = _fetch(artifact)
    settled = Settled(policy, goal, course, evidence, found[1] if found else None, untried)
    looked_at = sample(used, x, evidence.served(policy), evidence.tiers(policy), predictor)
    return issue(artifact, out, predictor.tiers, settled, note, notes, Spent(used, looked_at))


def reprice(artifact_path: Path, tiers: tuple[Tier, ...], out: Path) -> Reissued:
    """The same heads and the same goal at new prices.

    The choose rows of training, from MLflow, certify the new operating point: it was not known to
    whoever set the prices, so they serve as well as the first time. Where they are lost the old
    dial stays, without a promise.

    Raises:
        BadInput: tiers that are not the artifact's, or prices at which its goal is impossible.
        ArtifactError: the artifact is refused.
        EnvironmentProblem: MLflow cannot be reached, or refused the run; nothing was written.
    """
    check_out(out)
    artifact = load_artifact(artifact_path)
    _check_same(artifact.predictor.tiers, tiers)
    notes = check_prices(tiers)
    with step("evidence"):
        found = _fetch(artifact)
    goal = _goal(artifact)
    with step("operating point"):
        if found is None or goal is None:
            note = (
                "new prices; evidence.npz of its training was not found in MLflow, so the dial "
                "stayed and the promise is void: train again, or use `suffice policy` on newer "
                "labelled traffic"
            )
            why = f"{artifact.policy.why}; since then the prices changed, and its promise is void"
            policy = replace(artifact.policy, promise=None, why=why)
            settled = Settled(policy, goal, _course(artifact), None, None)
        else:
            note = "new prices; operating point chosen again on the choose rows of its training"
            old, basis = found
            evidence = old.repriced(artifact.predictor.tiers, tiers)
            course, evidence, basis = _replanned(evidence, basis, tiers)
            policy = choose(goal, course, evidence, [tier.name for tier in tiers])
            settled = Settled(policy, goal, course, evidence, basis)
    return issue(artifact, out, tiers, settled, note, notes)


def _replanned(
    evidence: Evidence, basis: Basis, tiers: Sequence[Tier]
) -> tuple[Course, Evidence, Basis]:
    """The course at other prices, and of two stages the gate between them."""
    usd, stages = priced(basis.tokens, tiers), basis.stages
    if stages is None or evidence.stages is None:
        return plan_course(basis.p, usd), evidence, basis
    course = plan_course(stages.p, usd)
    floors = fit_floors(basis.p, usd, stages.spread, stages.tokens, course.dials)
    evidence = replace(evidence, stages=evidence.stages.at_floors(course.dials, floors))
    return course, evidence, replace(basis, stages=stages.at_floors(course.dials, floors))


def _fetch(artifact: Artifact) -> tuple[Evidence, Basis] | None:
    """The evidence that the artifact was chosen on, if its run still keeps it."""
    sha256 = artifact.manifest.get("evidence")
    if not isinstance(sha256, str) or not sha256.isalnum():
        return None
    with tempfile.TemporaryDirectory() as scratch:
        file = fetch_file(EVIDENCE_TAG, sha256, f"evidence/{FILE}", Path(scratch))
        return None if file is None else load_evidence(file, sha256)


def _goal(artifact: Artifact) -> Goal | None:
    values = artifact.manifest.get("goal")
    return None if values is None else parse_goal(values, f"{artifact.path}: goal")


def _course(artifact: Artifact) -> Course | None:
    values = artifact.manifest.get("course")
    return None if values is None else Course.from_dict(values)


def _check_same(old: Sequence[Tier], new: Sequence[Tier]) -> None:
    ours, theirs = ([f"{tier.name} ({tier.model})" for tier in tiers] for tiers in (old, new))
    if ours != theirs:
        raise BadInput(
            f"the tiers file names {', '.join(theirs)}, the artifact {', '.join(ours)}: reprice "
            "changes prices only; with other tiers, models or another order, train again"
        )
