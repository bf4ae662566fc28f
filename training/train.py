"""The training job: label → split → features → heads → policy → report → export → MLflow."""

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from router.policy import Policy
from router.tier import Tier
from training.config import Config
from training.console import step
from training.export import check_out
from training.features import prepare, resolve_sources
from training.finish import finish
from training.fit import fit
from training.golden import golden_prompts
from training.ground import lay_out
from training.label.rule import load_requests
from training.learn.finetune import Tuning
from training.learn.members import STANDARD
from training.measure.members import microseconds
from training.measure.propensities import estimate_propensities
from training.measure.report import Report
from training.measure.valuation import Valuation
from training.record import Provenance, track
from training.show.card import describe_policy, describe_rule, next_step
from training.tracking import check_store


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
    tell: Callable[[Sequence[str], Report | Valuation | None], None] = lambda *_: None,
) -> Trained:
    """Train a router from a traffic file and export it to `out`.

    On one-sided logs the operating point is chosen, and the report made, by doubly robust estimates
    (`measure.offpolicy`). With `estimate`, propensities that the log does not hold are estimated
    from it, and every output says so. With `tuning`, a transformer is fine-tuned on the fit rows
    and is one more member of the heads. `tell` is called with the summary and the report when the
    artifact is in place, before MLflow is asked to take the run.

    Raises:
        BadInput: the traffic cannot be learned from; nothing was written.
        EnvironmentProblem: MLflow's store cannot be used; nothing was written. Or it refused the
            run after all (the artifact is in place).
    """
    provenance = Provenance(embedder_name, seed, datetime.now(UTC))
    check_out(out)
    sources = resolve_sources(embedder_name, tuning)
    with step("read traffic"):
        requests, counts = load_requests(traffic, tiers, config.label)
    if estimate:
        with step("propensities"):
            requests, notes = estimate_propensities(requests, sources.embedders[0])
            counts += notes
    with step("split"):
        ground = lay_out(requests, counts, tiers, config, shares, seed)
    check_store()
    features = prepare(ground, sources, seed)
    with step("heads"):
        fitted = fit(ground, features, seed, STANDARD)
    with tempfile.TemporaryDirectory() as scratch:
        kept = Path(scratch)
        made = finish(fitted, config, provenance, out, kept)
        artifact, policy = made.artifact, made.artifact.policy
        times = microseconds(artifact.predictor, golden_prompts())  # it remembers no vectors
        summary = (
            *made.notes,
            *made.details,
            "members take " + ", ".join(f"{name} {us:.0f} µs" for name, us in times.items()),
            f"label rule: {describe_rule(config.label)}",
            describe_policy(policy, tiers),
            *next_step(policy, out),
        )
        tell(summary, made.report)
        with step("MLflow run"):
            asked = {"world": ground.world.name, "seed": seed}
            asked["split"] = "/".join(f"{100 * share:g}" for share in shares)
            chosen = {f"heads.{key}": value for key, value in fitted.learned.heads.choices.items()}
            chosen |= {f"members.{name}.microseconds": value for name, value in times.items()}
            run_id, store = track(
                artifact,
                evidence=kept,
                safe=f"the artifact is in {out}, without the run that drift and reprice need",
                report=made.report,
                parameters=asked,
                metrics=chosen,
            )
    return Trained(out, artifact.version, policy, made.report, run_id, store, summary)
