"""The training job: label → split → features → heads → policy → export → report → MLflow."""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from router.artifact import SECOND
from router.embedder import Embedder
from router.policy import Policy
from router.predictor import Estimates
from router.tier import Tier
from router.vectorizer import SURFACE, Vectorizer
from training.config import Config, check_rules
from training.console import step
from training.decide.evidence import FILE, Evidence, gather_evidence, save_evidence, served
from training.decide.operating import Course, check_units, choice_world, choose
from training.errors import BadInput
from training.export import check_out, export, id_hashes
from training.golden import golden_lines, golden_prompts
from training.label.rule import LabelRule, load_requests
from training.learn.costs import account, check_prices, expected
from training.learn.embedders import resolve_stages, resolve_tuning
from training.learn.finetune import Tuning, finetune
from training.learn.heads import probabilities, sort_tiers
from training.learn.members import STANDARD, Matrix, Recipe
from training.learn.memory import Remembering
from training.learn.reference import reference_arrays
from training.learn.splits import Splits, split
from training.learn.stages import Stages, measure_pace
from training.learn.vectorize import fit_ngrams, vectorize
from training.learned import Learned, join, learn
from training.log.requests import Requests
from training.measure import baselines
from training.measure.members import Worth, as_metrics, microseconds, worth
from training.measure.overlap import certifiable
from training.measure.propensities import estimate_propensities
from training.measure.report import Report, Rows, build_report
from training.measure.valuation import Valuation, value_policies
from training.measure.world import World, logged, valuable
from training.record import describe_choice, describe_job, track
from training.show.card import describe_policy, describe_rule, model_card
from training.watch.baseline import Sample, sample, save_baseline

TIMED = 40  # prompts on which two stages are timed


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
    tuning: Tuning | None = None,
) -> Trained:
    """Train a router from a traffic file and export it to `out`.

    On one-sided logs the operating point is chosen, and the report made, by doubly robust estimates
    (`measure.offpolicy`). With `estimate`, propensities that the log does not hold are estimated
    from it, and every output says so. With `tuning`, a transformer is fine-tuned on the fit rows
    and is one more member of the heads.

    Raises:
        BadInput: the traffic cannot be learned from; nothing was written.
        EnvironmentProblem: MLflow refused the run (the artifact is in place).
    """
    started = datetime.now(UTC)
    check_out(out)
    embedders, _ = _resolve(embedder_name, tuning)
    with step("read traffic"):
        requests, counts = load_requests(traffic, tiers, config.label)
    if estimate:
        with step("propensities"):
            requests, told = estimate_propensities(requests, embedders[0])
            counts += told
    with step("split"):
        ground = lay_out(requests, counts, tiers, config, shares, seed)
    features = prepare(ground, embedder_name, seed, tuning)
    with step("heads"):
        features, learned = fit(ground, features, seed, STANDARD)
    with tempfile.TemporaryDirectory() as scratch:
        kept = Path(scratch)
        made = finish(ground, features, learned, config, embedder_name, seed, started, out, kept)
        policy = made.policy
        with step("MLflow run"):
            asked = {"world": ground.world.name, "seed": seed}
            asked["split"] = "/".join(f"{100 * share:g}" for share in shares)
            chosen = {f"heads.{key}": value for key, value in learned.heads.choices.items()}
            times = microseconds(learned.predictor, golden_prompts())
            chosen |= {f"members.{name}.microseconds": value for name, value in times.items()}
            run_id, store = track(
                out, made.version, made.facts, policy, tiers, kept, made.report, asked, chosen
            )
    summary = (
        *made.notes,
        "members take " + ", ".join(f"{name} {us:.0f} µs" for name, us in times.items()),
        f"label rule: {describe_rule(config.label)}",
        describe_policy(policy, tiers),
    )
    return Trained(out, made.version, policy, made.report, run_id, store, summary)


@dataclass(frozen=True, slots=True)
class Ground:
    """Labelled requests, divided: what every challenger of a job is fitted, chosen and judged on.

    Attributes:
        tiers: cheapest first.
        requests: all of them.
        splits: which are for fitting, choosing and the report.
        world: of the choose rows, its `rows` counted among them.
        notes: what was left out or assumed.
    """

    tiers: tuple[Tier, ...]
    requests: Requests
    splits: Splits
    world: World
    notes: tuple[str, ...]

    @property
    def fit_rows(self) -> Requests:
        """The requests that heads are fitted on."""
        return self.requests.take(self.splits.fit)

    @property
    def chosen(self) -> NDArray[np.int64]:
        """int64[m], the requests on which the operating point is chosen."""
        return np.asarray(self.splits.choose[self.world.rows])


@dataclass(frozen=True, slots=True)
class Features:
    """Vectors of all requests, and what makes them; of two stages the first's, and the second's."""

    embedder: Embedder
    vectorizer: Vectorizer
    x: Matrix
    second: "Features | None" = None
    notes: tuple[str, ...] = ()

    def stages(
        self, learned: Learned, requests: Requests, rows: NDArray[np.int64]
    ) -> Stages | None:
        """What a second stage says of some of the requests; None where there is one stage only."""
        second = None if self.second is None else self.second.x.take(rows)
        return learned.stages(self.x.take(rows), second, list(requests.take(rows).prompts))


@dataclass(frozen=True, slots=True)
class Settled:
    """An operating point, and what it was chosen by."""

    policy: Policy
    course: Course
    evidence: Evidence
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Finished:
    """An exported artifact: its version, operating point, manifest facts, report and notes."""

    version: str
    policy: Policy
    facts: dict[str, Any]
    report: Report | Valuation | None
    notes: tuple[str, ...]


def lay_out(
    requests: Requests,
    notes: tuple[str, ...],
    tiers: tuple[Tier, ...],
    config: Config,
    shares: tuple[float, float, float],
    seed: int,
) -> Ground:
    """Divide requests, and refuse before the work what cannot be learned from (BadInput)."""
    free = check_prices(tiers)
    check_rules(config, tiers)
    splits = split(requests, shares, seed)
    _check_sizes(splits)
    fit_rows, choose_rows = requests.take(splits.fit), requests.take(splits.choose)
    sort_tiers(fit_rows.score, tuple(tier.name for tier in tiers))
    world = choice_world(config.policy, config.label, choose_rows)
    check_units(config.policy, choose_rows.take(world.rows).sessions, world.paired)
    return Ground(tiers, requests, splits, world, (world.note, *free, *notes))


def prepare(ground: Ground, name: str, seed: int, tuning: Tuning | None = None) -> Features:
    """The features that `--embedder NAME` means; with `tuning`, a fine-tuned encoder's beside them.

    Raises:
        BadInput, EnvironmentProblem: there is no such embedder, or it cannot be fine-tuned.
    """
    with step("features"):
        embedders, base = _resolve(name, tuning)
        features = featurize(ground, embedders, seed)
    if tuning is None or base is None:
        return features
    rows, group = ground.splits.fit, ground.splits.group
    names = tuple(tier.name for tier in ground.tiers)
    made = finetune(base, ground.requests, rows, group, names, seed, tuning.max_minutes)
    return replace(
        features,
        vectorizer=replace(features.vectorizer, encoder=made.encoder),
        x=replace(features.x, read=made.read),
        notes=made.notes,
    )


def _resolve(name: str, tuning: Tuning | None) -> tuple[tuple[Embedder, ...], Path | None]:
    """Embedders of one stage or two, and what is fine-tuned beside them."""
    if tuning is None:
        return resolve_stages(name), None
    embedder, base = resolve_tuning(name)
    return (embedder,), base


def featurize(ground: Ground, embedders: Sequence[Embedder], seed: int) -> Features:
    """Vectors of every request; the n-grams' projection is fitted on the fit rows.

    embedders: of one stage or of two.
    """
    embedder, *more = embedders
    ngrams = fit_ngrams(embedder, list(ground.fit_rows.prompts), seed)
    vectorizer = Vectorizer(embedder, ngrams)
    x = vectorize(vectorizer, list(ground.requests.prompts))
    return Features(embedder, vectorizer, x, featurize(ground, more, seed) if more else None)


def fit(ground: Ground, features: Features, seed: int, recipe: Recipe) -> tuple[Features, Learned]:
    """Heads and token models, of each stage, from the fit rows, and the features that they read.

    A fine-tuned encoder that does not lower the heads' loss on the rows kept for weighing it is
    left out: it would cost milliseconds for nothing.
    """
    rows = ground.splits.fit
    group = ground.splits.group[rows]

    def learned_from(given: Features) -> Learned:
        parts = (ground.tiers, given.embedder, given.vectorizer)
        return learn(given.x.take(rows), ground.fit_rows, group, *parts, seed, recipe)

    learned = learned_from(features)
    if features.vectorizer.encoder is not None:
        encoder = worth_of(ground, learned)[-1:]  # none, where its rows are of one session
        if not any(member.nats.value > 0 for member in encoder):
            shown = [member.describe() for member in encoder] or ["nothing shows what it adds"]
            told = f"the fine-tuned encoder is left out: {shown[0]}"
            features = replace(
                features,
                vectorizer=replace(features.vectorizer, encoder=None),
                x=replace(features.x, read=features.x.read[:, :0]),
                notes=(*features.notes, told),
            )
            learned = learned_from(features)
    if features.second is not None:
        _, second = fit(ground, features.second, seed, recipe)
        learned = join(learned, second, features.x.take(rows), ground.fit_rows)
    return features, learned


def worth_of(ground: Ground, learned: Learned) -> tuple[Worth, ...]:
    """What each member adds, on the fit rows."""
    rows = ground.fit_rows
    return worth(learned.heads, rows.score, rows.weight, learned.usd, rows.sessions)


def settle(ground: Ground, features: Features, learned: Learned, config: Config) -> Settled:
    """The operating point, chosen on the choose rows."""
    names = tuple(tier.name for tier in ground.tiers)
    choose_rows, part = ground.requests.take(ground.chosen), features.x.take(ground.chosen)
    p = probabilities(learned.heads, part)
    outcomes = None if ground.world.paired else certifiable(logged(choose_rows), p, names)
    models = learned.predictor.tokens
    stages = features.stages(learned, ground.requests, ground.chosen)
    known = (choose_rows, models, ground.tiers, config.label, outcomes, stages)
    evidence = gather_evidence(p, part, *known)
    course = learned.course
    policy = choose(config.policy, course, evidence, names)
    return Settled(policy, course, evidence, outcomes.notes if outcomes else ())


def finish(
    ground: Ground,
    features: Features,
    learned: Learned,
    config: Config,
    embedder_name: str,
    seed: int,
    started: datetime,
    out: Path,
    kept: Path,
) -> Finished:
    """Choose the operating point, report, and export to `out`; evidence and baseline to `kept`.

    Raises:
        BadInput: the goal is impossible, or `out` is something else than an artifact.
        ParityError: the export does not repeat what was fitted.
    """
    with step("operating point"):
        settled = settle(ground, features, learned, config)
    policy = settled.policy
    with step("report"):
        report, refused = report_on(ground, features, learned, policy, config.label)
    notes = [*ground.notes, *settled.notes, ground.splits.leakage]
    notes += [*features.notes, *learned.notes, *learned.heads.notes]
    members = worth_of(ground, learned)
    notes += [member.describe() for member in members]
    notes += compare_original(features, learned, policy)
    notes += list(report.notes) if report else [refused]
    sizes = {part: len(getattr(ground.splits, part)) for part in ("fit", "choose", "test")}
    requests, rule = ground.requests, config.label
    facts = describe_job(requests, rule, sizes, notes, report, started, embedder_name, seed)
    facts["metrics"] = facts["metrics"] | as_metrics(members)
    if (stages := time_stages(ground, learned, settled)) is not None:
        facts["stages"] = stages
    sha256 = save_evidence(kept / FILE, settled.evidence, learned.basis)
    save_baseline(kept, baseline_of(ground, features, learned, settled))
    facts |= describe_choice(config.policy, settled.course, sha256, config.rules)
    with step("export"):
        version = write_artifact(out, ground, features, learned, policy, facts, report)
    return Finished(version, policy, facts, report, tuple(notes))


def baseline_of(ground: Ground, features: Features, learned: Learned, settled: Settled) -> Sample:
    """What recent traffic is compared with later: the fit and choose rows."""
    fitted = ground.splits.fit[learned.heads.whole]
    rows = np.concatenate([fitted, ground.chosen])
    evidence, policy = settled.evidence, settled.policy
    unknown = np.full(len(fitted), -1)
    known = (learned.basis.p, learned.usd, learned.basis.stages)
    return sample(
        ground.requests.take(rows),
        features.x.take(rows),
        np.concatenate([served(*known, policy), evidence.served(policy)]),
        np.concatenate([unknown, evidence.tiers(policy)]),
        learned.predictor,
    )


def write_artifact(
    out: Path,
    ground: Ground,
    features: Features,
    learned: Learned,
    policy: Policy,
    facts: Mapping[str, Any],
    report: Report | Valuation | None,
) -> str:
    """Export to the folder `out`; returns the artifact's version."""
    names = tuple(tier.name for tier in ground.tiers)
    learned = learned.served(policy)
    p, *second = golden_answers(features, learned)
    lines = golden_lines(p, names, *second)
    card = model_card(ground.tiers, policy, facts, report)
    used = np.concatenate([ground.splits.fit, ground.splits.choose])
    hashes = id_hashes(ground.requests.ids[used])
    kept = reference_arrays(learned.references, learned.predictor.learned)
    embedder = None
    if learned.second is not None:
        own = reference_arrays(learned.second.references, learned.second.predictor.learned)
        kept |= {f"{SECOND}{name}": array for name, array in own.items()}
        embedder = learned.second.embedder
    made = (policy, lines, card, hashes, facts, kept, embedder)
    return export(out, learned.predictor, features.embedder, *made)


def time_stages(ground: Ground, learned: Learned, settled: Settled) -> dict[str, float] | None:
    """How long both stages take, and what the gate does on the choose rows; None with one stage."""
    if learned.second is None:
        return None
    some = list(ground.requests.take(ground.splits.choose[:TIMED]).prompts)
    pace = measure_pace(learned.predictor, learned.second.predictor, some)
    return settled.evidence.stage_facts(settled.policy, pace)


def golden_answers(features: Features, learned: Learned) -> list[NDArray[np.float64]]:
    """P(tier suffices) of the golden prompts, float64[prompts, k], by each stage."""
    found = [probabilities(learned.heads, vectorize(features.vectorizer, golden_prompts()))]
    if features.second is not None and learned.second is not None:
        found += golden_answers(features.second, learned.second)
    return found


def compare_original(features: Features, learned: Learned, policy: Policy) -> tuple[str, ...]:
    """What quantising the encoder to int8 changes on the golden prompts, in words."""
    if features.second is not None and learned.second is not None:
        return compare_original(features.second, learned.second, policy)
    embedder = features.embedder
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


def _check_sizes(splits: Splits) -> None:
    for part, least in (("fit", 100), ("choose", 20)):
        rows = len(getattr(splits, part))
        if rows < least:
            raise BadInput(
                f"the {part} part has {rows} labelled requests, at least {least} are needed (what "
                "users did next counts for fit only): give more rows, or another --split"
            )


def report_on(
    ground: Ground, features: Features, learned: Learned, policy: Policy, rule: LabelRule
) -> tuple[Report | Valuation | None, str]:
    """The report on the test rows, in the world of the choice; or None, and why there is none."""
    requests, splits, world, x = ground.requests, ground.splits, ground.world, features.x
    known = requests.paired if world.paired else valuable(requests)
    test = splits.test[known[splits.test]]
    used, asked = requests.take(test), x.take(test)
    if len(np.unique(used.sessions)) < 2:  # an interval needs two independent requests
        return None, "fewer than two independent test requests: no report"
    predictor, tiers = learned.predictor, learned.tiers
    usd = expected(asked, predictor.tokens, tiers)
    p, stages = probabilities(learned.heads, asked), features.stages(learned, requests, test)
    estimates = Estimates(served(p, usd, stages, policy), usd)
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
