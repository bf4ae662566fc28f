"""What becomes of what was learned: an operating point, a report and an artifact."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from router.artifact import Artifact
from router.assembly import SECOND
from router.policy import Policy
from router.rules_file import stated_rules
from router.vectorizer import SURFACE
from training.config import Config, effective_rules
from training.console import step
from training.decide.evidence import gather_evidence, served
from training.decide.operating import choose
from training.decide.settled import Settled
from training.errors import BadInput
from training.export import export
from training.features import Features
from training.fit import Fitted, worth_of
from training.golden import golden_lines, golden_prompts
from training.learn.costs import account, expected
from training.learn.heads import probabilities
from training.learn.memory import Remembering
from training.learn.reference import reference_arrays
from training.learn.seen import id_hashes, sketch
from training.learn.splits import coarsest
from training.learn.stages import measure_pace
from training.learn.vectorize import vectorize
from training.learned import Learned
from training.measure import baselines
from training.measure.members import as_metrics
from training.measure.report import Report, build_report
from training.measure.rows import Rows
from training.measure.ruled import rule_notes
from training.measure.valuation import Valuation, value_policies
from training.measure.world import like_traffic, logged
from training.record import Provenance, describe_choice, describe_job
from training.show.card import model_card
from training.watch.baseline import FITTED, Sample, sample, save_baseline

TIMED = 40  # prompts on which two stages are timed


@dataclass(frozen=True, slots=True)
class Finished:
    """An exported artifact, and what is to be said of it.

    Attributes:
        artifact: as `router` reads it.
        report: on the test rows, if there is one.
        notes: what a reader must know.
        details: about the heads' members, for those who tune them.
    """

    artifact: Artifact
    report: Report | Valuation | None
    notes: tuple[str, ...]
    details: tuple[str, ...]


def settle(fitted: Fitted, config: Config) -> Settled:
    """The operating point, chosen on the choose rows."""
    ground, learned = fitted.ground, fitted.learned
    rows = ground.chosen
    x = fitted.features.x.take(rows)
    evidence, untried = gather_evidence(
        probabilities(learned.heads, x),
        x,
        ground.requests.take(rows),
        ground.splits.units[:, rows],
        learned.predictor,
        config.label,
        ground.world.paired,
        fitted.stages(rows),
    )
    course = learned.course
    policy = choose(config.policy, course, evidence, [tier.name for tier in ground.tiers])
    return Settled(policy, config.policy, course, evidence, learned.basis, untried)


def finish(
    fitted: Fitted, config: Config, provenance: Provenance, out: Path, kept: Path
) -> Finished:
    """Choose the operating point, report, and export to `out`; evidence and baseline to `kept`.

    Raises:
        BadInput: the goal is impossible, or `out` is something else than an artifact.
        ParityError: the export does not repeat what was fitted.
    """
    ground, features, learned = fitted.ground, fitted.features, fitted.learned
    with step("operating point"):
        settled = settle(fitted, config)
    policy = settled.policy
    with step("report"):
        report, refused = report_on(fitted, policy, config)
    notes = [*ground.notes, *settled.notes, ground.splits.leakage]
    notes += [*features.notes, *learned.notes, *learned.heads.notes]
    members = learned.members or worth_of(ground, learned)
    notes += _compare_original(features, learned, policy)
    notes += list(report.notes) if report else [refused]
    details = [*_weights_of(learned), *(member.describe() for member in members)]
    facts = describe_job(
        ground.requests, ground.splits, config.label, provenance, notes, details, report
    )
    facts["metrics"] = facts["metrics"] | as_metrics(members)
    if (stages := _time_stages(fitted, settled)) is not None:
        facts["stages"] = stages
    sha256 = settled.save(kept)
    save_baseline(kept, _baseline_of(fitted, policy))
    facts |= describe_choice(settled, sha256, effective_rules(config.rules, ground.tiers))
    with step("export"):
        artifact = write_artifact(out, fitted, policy, facts, report)
    return Finished(artifact, report, tuple(notes), tuple(details))


def _weights_of(learned: Learned) -> list[str]:
    """How much each member counts, in words; of two stages in both."""
    told = [learned.heads.weights]
    if learned.second is not None:
        told.append(f"second stage, {learned.second.heads.weights}")
    return told


def _baseline_of(fitted: Fitted, policy: Policy) -> Sample:
    """The rows of the training, those of its tests too, for `suffice drift` to compare with."""
    ground, learned = fitted.ground, fitted.learned
    standing = like_traffic(ground.requests, np.ones(len(ground.requests), bool))
    own = ground.splits.fit[learned.heads.whole]
    others = np.concatenate([ground.splits.choose, ground.splits.test])
    others = others[standing[others]]
    rows = np.concatenate([own[standing[own]], others])
    by = fitted.estimates(others, policy)
    cross_fitted = served(learned.basis.p, learned.usd, learned.basis.stages, policy)
    return sample(
        ground.requests.take(rows),
        fitted.features.x.take(rows),
        np.concatenate([cross_fitted[standing[own]], by.p]),
        np.concatenate([np.full(len(rows) - len(others), FITTED), policy.choose(by.p, by.usd)]),
        learned.predictor,
    )


def write_artifact(
    out: Path,
    fitted: Fitted,
    policy: Policy,
    facts: Mapping[str, Any],
    report: Report | Valuation | None,
) -> Artifact:
    """Export to the folder `out`."""
    ground, features = fitted.ground, fitted.features
    learned = fitted.learned.served(policy)
    p, *second = _golden_answers(features, learned)
    lines = golden_lines(p, tuple(tier.name for tier in ground.tiers), *second)
    card = model_card(ground.tiers, policy, facts, report)
    used = np.concatenate([ground.splits.fit, ground.splits.choose])
    hashes = id_hashes(ground.requests.ids[used])
    kept = reference_arrays(learned.references, learned.predictor.learned)
    kept |= {"seen": sketch(features.vectorizer.embedder, list(ground.requests.prompts[used]))}
    if learned.second is not None:
        own = reference_arrays(learned.second.references, learned.second.predictor.learned)
        kept |= {f"{SECOND}{name}": array for name, array in own.items()}
    return export(out, learned.predictor, policy, lines, card, hashes, facts, kept)


def _time_stages(fitted: Fitted, settled: Settled) -> dict[str, float] | None:
    """How long both stages take, and what the gate does on the choose rows; None with one stage."""
    ground, learned = fitted.ground, fitted.learned
    if learned.second is None:
        return None
    some = list(ground.requests.take(ground.splits.choose[:TIMED]).prompts)
    return settled.stage_facts(measure_pace(learned.predictor, learned.second.predictor, some))


def _golden_answers(features: Features, learned: Learned) -> list[NDArray[np.float64]]:
    """P(tier suffices) of the golden prompts, float64[prompts, k], by each stage."""
    found = [probabilities(learned.heads, vectorize(features.vectorizer, golden_prompts()))]
    if features.second is not None and learned.second is not None:
        found += _golden_answers(features.second, learned.second)
    return found


def _compare_original(features: Features, learned: Learned, policy: Policy) -> tuple[str, ...]:
    """What quantising the encoder to int8 changes on the golden prompts, in words."""
    if features.second is not None and learned.second is not None:
        return _compare_original(features.second, learned.second, policy)
    embedder = features.vectorizer.embedder
    if not isinstance(embedder, Remembering) or embedder.original is None:
        return ()
    ours = vectorize(features.vectorizer, golden_prompts())
    if len(embedder.original) != len(ours.dense):  # exported with other golden prompts
        return ()
    dense = ours.dense.copy()
    dense[:, SURFACE : SURFACE + embedder.dim] = embedder.original
    p, exact = (probabilities(learned.heads, x) for x in (ours, replace(ours, dense=dense)))
    usd = expected(ours, learned.predictor.tokens, learned.tiers)
    flipped = int((policy.choose(p, usd) != policy.choose(exact, usd)).sum())
    return (
        f"the int8 encoder against the original, {len(p)} golden prompts: probabilities differ by "
        f"{np.abs(p - exact).mean():.3f} on average, {flipped} decisions differ",
    )


def report_on(
    fitted: Fitted, policy: Policy, config: Config
) -> tuple[Report | Valuation | None, str]:
    """The report on the test rows, in the world of the choice; or None, and why there is none."""
    ground, x = fitted.ground, fitted.features.x
    requests, splits, world = ground.requests, ground.splits, ground.world
    test = ground.tested
    used, asked = requests.take(test), x.take(test)
    unit = coarsest(splits.units[:, test])
    if len(np.unique(unit)) < 2:  # an interval needs two independent requests
        return None, "fewer than two independent test requests: no report"
    predictor, tiers = fitted.learned.predictor, ground.tiers
    estimates = fitted.estimates(test, policy)
    paid = account(asked, used, predictor.tokens, tiers)
    rules = stated_rules(effective_rules(config.rules, tiers), tiers)
    told = rule_notes(rules, predictor, policy, used, estimates, paid)
    notes = (*config.label.warnings(), *told)
    if not world.paired:
        names = tuple(tier.name for tier in tiers)
        known = logged(used, unit)
        try:
            return value_policies(known, estimates, paid, policy, names, notes), ""
        except BadInput as refusal:
            return None, f"no report: {refusal}"
    others = baselines.estimates(
        x.dense[splits.fit, SURFACE:], requests.score[splits.fit], asked.dense[:, SURFACE:]
    )
    rows = Rows.of(
        tiers=tiers,
        estimates=estimates,
        paid=paid,
        requests=used,
        unit=unit,
        rule=config.label,
        others=others,
        surface=asked.dense[:, :SURFACE],
    )
    return build_report(rows, policy, notes), ""
