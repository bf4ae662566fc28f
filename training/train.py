"""The training job: label → split → features → heads → policy → export → report → MLflow."""

import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from router.policy import Policy
from router.predictor import Estimates
from router.tier import Tier
from router.vectorizer import SURFACE, Vectorizer
from training.config import Config
from training.console import step
from training.decide.evidence import FILE, gather_evidence, save_evidence
from training.decide.operating import check_units, choice_world, choose, plan_course
from training.errors import BadInput
from training.export import check_out, export, id_hashes
from training.golden import golden_lines, golden_prompts
from training.label.rule import LabelRule, load_requests
from training.learn.costs import account, check_prices, expected
from training.learn.embedders import resolve_embedder
from training.learn.heads import probabilities, sort_tiers
from training.learn.members import Matrix
from training.learn.reference import reference_arrays
from training.learn.splits import Splits, split
from training.learn.vectorize import fit_ngrams, vectorize
from training.learned import Learned, learn
from training.log.requests import Requests
from training.measure import baselines
from training.measure.overlap import certifiable
from training.measure.propensities import estimate_propensities
from training.measure.report import Report, Rows, build_report
from training.measure.valuation import Valuation, value_policies
from training.measure.world import World, logged, valuable
from training.record import describe_choice, describe_job, track
from training.show.card import describe_policy, describe_rule, model_card


@dataclass(frozen=True, slots=True)
class Trained:
    """What a job leaves behind: where the artifact is, its version, its report and its run."""

    out: Path
    version: str
    policy: Policy
    report: Report | Valuation | None
    run_id: str
    store: str
    summary: tuple[str, ...]


def train(
    traffic: Path,
    tiers: tuple[Tier, ...],
    out: Path,
    config: Config,
    shares: tuple[float, float, float],
    seed: int,
    embedder_name: str,
    estimate: bool = False,
) -> Trained:
    """Train a router from a traffic file and export it to `out`.

    On one-sided logs the operating point is chosen, and the report made, by doubly robust estimates
    (`measure.offpolicy`). With `estimate`, propensities that the log does not hold are estimated
    from it, and every output says so.

    Raises:
        BadInput: the traffic cannot be learned from; nothing was written.
        EnvironmentProblem: MLflow refused the run (the artifact is in place).
    """
    started = datetime.now(UTC)
    check_out(out)
    free = check_prices(tiers)
    names = tuple(tier.name for tier in tiers)
    embedder = resolve_embedder(embedder_name)
    with step("read traffic"):
        requests, counts = load_requests(traffic, tiers, config.label)
    if estimate:
        with step("propensities"):
            requests, told = estimate_propensities(requests, embedder)
            counts += told
    with step("split"):
        splits = split(requests, shares, seed)
        _check_sizes(splits)
        fit_rows, choose_rows = requests.take(splits.fit), requests.take(splits.choose)
        sort_tiers(fit_rows.score, names)  # refuse before the work
        world = choice_world(config.policy, config.label, choose_rows)
        choose_rows = choose_rows.take(world.rows)
        check_units(config.policy, choose_rows.sessions, world.paired)
    with step("features"):
        ngrams = fit_ngrams(embedder, list(fit_rows.prompts), seed)
        vectorizer = Vectorizer(embedder, ngrams)
        x = vectorize(vectorizer, list(requests.prompts))
    with step("heads"):
        group = splits.group[splits.fit]
        learned = learn(x.take(splits.fit), fit_rows, group, tiers, embedder, vectorizer, seed)
    with step("operating point"):
        part, predictor = x.take(splits.choose[world.rows]), learned.predictor
        p = probabilities(learned.heads, part)
        outcomes = None if world.paired else certifiable(logged(choose_rows), p, names)
        models, rule = predictor.tokens, config.label
        evidence = gather_evidence(p, part, choose_rows, models, tiers, rule, outcomes)
        course = plan_course(learned.heads.p, learned.usd)
        policy = choose(config.policy, course, evidence, names)
    with step("report"):
        report, refused = _report(learned, x, requests, splits, policy, config.label, world)
    untried = outcomes.notes if outcomes else ()
    notes = [
        world.note,
        *free,
        *counts,
        *untried,
        splits.leakage,
        *learned.notes,
        *learned.heads.notes,
    ]
    notes += list(report.notes) if report else [refused]
    sizes = {part: len(getattr(splits, part)) for part in ("fit", "choose", "test")}
    facts = describe_job(requests, config.label, sizes, notes, report, started, embedder_name, seed)
    with tempfile.TemporaryDirectory() as scratch:
        sha256 = save_evidence(Path(scratch) / FILE, evidence, learned.basis)
        facts |= describe_choice(config.policy, course, sha256)
        with step("export"):
            golden = vectorize(vectorizer, golden_prompts())
            lines = golden_lines(probabilities(learned.heads, golden), names)
            card = model_card(tiers, policy, facts, report)
            used = id_hashes(requests.ids[np.concatenate([splits.fit, splits.choose])])
            kept = reference_arrays(learned.references, learned.predictor.learned)
            name = export(out, learned.predictor, embedder, policy, lines, card, used, facts, kept)
        with step("MLflow run"):
            asked = {"world": world.name, "seed": seed}
            asked["split"] = "/".join(f"{100 * share:g}" for share in shares)
            chosen = {f"heads.{key}": value for key, value in learned.heads.choices.items()}
            run_id, store = track(
                out, name, facts, policy, tiers, Path(scratch), report, asked, chosen
            )
    summary = (
        *notes,
        f"label rule: {describe_rule(config.label)}",
        describe_policy(policy, tiers),
    )
    return Trained(out, name, policy, report, run_id, store, summary)


def _check_sizes(splits: Splits) -> None:
    for part, least in (("fit", 100), ("choose", 20)):
        rows = len(getattr(splits, part))
        if rows < least:
            raise BadInput(
                f"the {part} part has {rows} labelled requests, at least {least} are needed (what "
                "users did next counts for fit only): give more rows, or another --split"
            )


def _report(
    learned: Learned,
    x: Matrix,
    requests: Requests,
    splits: Splits,
    policy: Policy,
    rule: LabelRule,
    world: World,
) -> tuple[Report | Valuation | None, str]:
    """The report on the test rows, in the world of the choice; or None, and why there is none."""
    known = requests.paired if world.paired else valuable(requests)
    test = splits.test[known[splits.test]]
    used, asked = requests.take(test), x.take(test)
    if len(np.unique(used.sessions)) < 2:  # an interval needs two independent requests
        return None, "fewer than two independent test requests: no report"
    predictor, tiers = learned.predictor, learned.tiers
    estimates = Estimates(
        probabilities(learned.heads, asked), expected(asked, predictor.tokens, tiers)
    )
    paid = account(asked, used, predictor.tokens, tiers)
    if not world.paired:
        names = tuple(tier.name for tier in tiers)
        try:
            return value_policies(logged(used), estimates, paid, policy, names, rule.warnings()), ""
        except BadInput as refusal:
            return None, f"no report: {refusal}"
    others = baselines.estimates(
        x.dense[splits.fit, SURFACE:], requests.score[splits.fit], asked.dense[:, SURFACE:]
    )
    surface = asked.dense[:, :SURFACE]
    rows = Rows.of(tiers, estimates, paid, used, rule, others, surface)
    return build_report(rows, policy, rule.warnings()), ""
