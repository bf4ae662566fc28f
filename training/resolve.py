"""Another operating point for the same heads: a new goal (`resolve`) or new prices (`reprice`).

Both write a new artifact version, card included, and log a run; neither fits anything.
"""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from router.artifact import Artifact, load_artifact, read_artifact
from router.policy import Policy
from router.predictor import Predictor
from router.tier import Tier
from training.config import held_to
from training.console import step
from training.decide.evidence import (
    FILE,
    Basis,
    Evidence,
    gather_evidence,
    load_evidence,
    save_evidence,
)
from training.decide.goals import Goal, parse_goal
from training.decide.operating import Course, check_units, choice_world, choose, plan_course
from training.errors import BadInput
from training.export import check_out, id_hashes, placing, reissue
from training.label.rule import LabelRule, firm_requests, load_requests
from training.learn.costs import check_prices, priced
from training.learn.members import Matrix
from training.learn.seen import newest, recognise
from training.learn.splits import independent
from training.learn.stages import Pace, fit_floors, stages_of
from training.learn.vectorize import vectorize
from training.log.requests import Requests
from training.measure.overlap import certifiable
from training.measure.world import logged, unseen
from training.record import describe_choice, describe_making, track, window_of
from training.show.card import describe_policy, model_card, next_step
from training.tracking import EVIDENCE_TAG, NOTHING, fetch_file
from training.watch.baseline import Sample, carried, find_baseline, sample, save_baseline

OF_A_POINT = ("policy.", "dollar.", "promise.")  # metrics that another operating point makes void


@dataclass(frozen=True, slots=True)
class Reissued:
    """A new version of an artifact: where it is, its policy, its run, and what to say of it."""

    out: Path
    version: str
    policy: Policy
    run_id: str
    store: str
    summary: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Choice:
    """An operating point and what it was chosen by; None of what is lost, or was never kept.

    Attributes:
        policy: the operating point.
        goal: what was asked for.
        course: in which order operating points were tried.
        evidence: what the choose rows know.
        basis: what the fit rows say of the course.
    """

    policy: Policy
    goal: Goal | None
    course: Course | None
    evidence: Evidence | None
    basis: Basis | None


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
        known = np.isin(id_hashes(requests.ids), arrays["fitted"])
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
        evidence, untried = _evidence(predictor, used, x, units, rule, world.paired)
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
    choice = _Choice(policy, goal, course, evidence, found[1] if found else None)
    training = _retold(manifest, note, {"choose": len(rows), "test": 0})
    training["known_until"] = newest(training, used)
    training |= _widened(training, window_of(used))
    looked_at = sample(used, x, evidence.served(policy), evidence.tiers(policy), predictor)
    return _issue(artifact, out, predictor.tiers, choice, training, (*notes, note), used, looked_at)


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
            choice = _Choice(policy, goal, _course(artifact), None, None)
        else:
            note = "new prices; operating point chosen again on the choose rows of its training"
            old, basis = found
            evidence = old.repriced(artifact.predictor.tiers, tiers)
            course, evidence, basis = _replanned(evidence, basis, tiers)
            policy = choose(goal, course, evidence, [tier.name for tier in tiers])
            choice = _Choice(policy, goal, course, evidence, basis)
    training = _retold(artifact.manifest, note, {"test": 0})
    return _issue(artifact, out, tiers, choice, training, (*notes, note))


def _evidence(
    predictor: Predictor,
    requests: Requests,
    x: Matrix,
    units: NDArray[np.int64],
    rule: LabelRule,
    paired: bool,
) -> tuple[Evidence, tuple[str, ...]]:
    """What requests with the vectors x tell, and what a one-sided log never tried, in words."""
    p = np.array([predictor.probabilities(vector) for vector in x.vectors()])
    names = tuple(tier.name for tier in predictor.tiers)
    outcomes = None if paired else certifiable(logged(requests), p, names)
    evidence = gather_evidence(
        p,
        x,
        requests,
        units,
        predictor.tokens,
        predictor.tiers,
        rule,
        outcomes,
        stages_of(predictor, x, list(requests.prompts)),
    )
    return evidence, outcomes.notes if outcomes else ()


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


def _issue(
    artifact: Artifact,
    out: Path,
    tiers: tuple[Tier, ...],
    choice: _Choice,
    training: dict[str, Any],
    notes: tuple[str, ...],
    chosen: Requests | None = None,
    looked_at: Sample | None = None,
) -> Reissued:
    """Log the new version, with the evidence where there is all of it, and put it in its place.

    In this order: where MLflow refuses the run, the rows are not spent and it can be asked again.

    chosen: requests that it knows now, besides those that it knew; looked_at: the same, for its
    baseline.
    """
    old, policy, evidence = artifact.manifest, choice.policy, choice.evidence
    metrics = {k: v for k, v in old.get("metrics", {}).items() if not k.startswith(OF_A_POINT)}
    facts = {"label": old["label"], "training": training, "metrics": metrics} | describe_making()
    facts |= _stages(old, evidence, policy)
    with tempfile.TemporaryDirectory() as scratch:
        made, kept, sha256 = Path(scratch) / "artifact", Path(scratch) / "evidence", None
        kept.mkdir()
        if evidence is not None and choice.basis is not None:
            sha256 = save_evidence(kept / FILE, evidence, choice.basis)
            if (known := find_baseline(artifact)) is not None:
                same = (sha256, policy) == (old.get("evidence"), artifact.policy)
                save_baseline(kept, known if same else carried(known, looked_at))
        rules = held_to(old.get("rules"), tiers)
        facts |= describe_choice(choice.goal, choice.course, sha256, rules)
        card = model_card(tiers, policy, facts, None)
        with step("export"):
            gate = None if evidence is None else evidence.stages
            version = reissue(artifact, made, tiers, policy, card, chosen, facts, gate)
        with placing(made, out), step("MLflow run"):
            run_id, store = track(
                made,
                version,
                facts,
                policy,
                tiers,
                evidence=kept,
                safe=f"{NOTHING}: {artifact.path} is as it was",
                parameters={"from": artifact.version},
            )
    summary = (*notes, describe_policy(policy, tiers), *next_step(policy, out))
    return Reissued(out, version, policy, run_id, store, summary)


def _stages(
    old: Mapping[str, Any], evidence: Evidence | None, policy: Policy
) -> dict[str, dict[str, float]]:
    """The manifest's part on two stages, at the times that the training took."""
    known = old.get("stages")
    if known is None or evidence is None:
        return {}
    pace = Pace(known["first_us"], known["second_us_per_token"])
    found = evidence.stage_facts(policy, pace)
    return {} if found is None else {"stages": found}


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


def _retold(manifest: Mapping[str, Any], note: str, rows: Mapping[str, int]) -> dict[str, Any]:
    """The manifest's training part with a note more; test rows judged another operating point."""
    if "training" not in manifest:
        raise BadInput("the artifact does not say on what it was trained: train again")
    training = dict(manifest["training"])
    training["rows"] = {**training["rows"], **rows}
    training["notes"] = [*training["notes"], note]
    return training


def _widened(
    training: Mapping[str, Any], window: Mapping[str, str | None]
) -> dict[str, str | None]:
    """The window of the rows that it was fitted on and of those that chose, where times are known.

    training: the manifest's part; window: of the rows that chose, see `window_of`.
    """
    ends = {"since": min, "until": max}
    known = {end: [at for at in (training[end], window[end]) if at is not None] for end in ends}
    return {end: pick(known[end], default=None) for end, pick in ends.items()}
