"""A new version of an artifact: the same heads under another operating point or other prices."""

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from router.artifact import Artifact
from router.policy import Policy
from router.tier import Tier
from training.config import effective_rules
from training.console import step
from training.decide.settled import Settled
from training.errors import BadInput
from training.export import placing, reissue
from training.learn.seen import newest
from training.learn.stages import Pace
from training.log.requests import Requests
from training.record import describe_choice, describe_making, track, window_of
from training.show.card import describe_policy, model_card, next_step
from training.tracking import NOTHING
from training.watch.baseline import Sample, carried, find_baseline, save_baseline

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
class Spent:
    """Requests that an operating point was chosen on, which the artifact knows from then on.

    Attributes:
        requests: all of them.
        sample: the same, for the artifact's baseline.
    """

    requests: Requests
    sample: Sample


def issue(
    artifact: Artifact,
    out: Path,
    tiers: tuple[Tier, ...],
    settled: Settled,
    note: str,
    notes: tuple[str, ...],
    spent: Spent | None = None,
) -> Reissued:
    """Log the new version, with the evidence where there is all of it, and put it in its place.

    In this order: where MLflow refuses the run, the rows are not spent and it can be asked again.

    Args:
        artifact: the version before.
        out: folder of the new one.
        tiers: the same, maybe at other prices.
        settled: the operating point.
        note: what was done, kept in the manifest.
        notes: what else is told.
        spent: what it was chosen on; None: on nothing that the artifact does not know.

    Raises:
        BadInput: the artifact does not say on what it was trained.
        EnvironmentProblem: MLflow refused the run; nothing was written.
    """
    old, policy, evidence = artifact.manifest, settled.policy, settled.evidence
    training = _retold(old, note, spent)
    metrics = {k: v for k, v in old.get("metrics", {}).items() if not k.startswith(OF_A_POINT)}
    facts = {"label": old["label"], "training": training, "metrics": metrics} | describe_making()
    facts |= _stages(old, settled)
    with tempfile.TemporaryDirectory() as scratch:
        kept = Path(scratch) / "evidence"
        kept.mkdir()
        sha256 = settled.save(kept)
        if sha256 is not None and (known := find_baseline(artifact)) is not None:
            same = (sha256, policy) == (old.get("evidence"), artifact.policy)
            looked_at = None if spent is None else spent.sample
            save_baseline(kept, known if same else carried(known, looked_at))
        facts |= describe_choice(settled, sha256, effective_rules(old.get("rules"), tiers))
        card = model_card(tiers, policy, facts, None)
        with step("export"):
            gate = None if evidence is None else evidence.stages
            chosen = None if spent is None else spent.requests
            folder = Path(scratch) / "artifact"
            made = reissue(artifact, folder, tiers, policy, card, chosen, facts, gate)
        with placing(made.path, out), step("MLflow run"):
            run_id, store = track(
                made,
                evidence=kept,
                safe=f"{NOTHING}: {artifact.path} is as it was",
                parameters={"from": artifact.version},
            )
    summary = (*notes, note, describe_policy(policy, tiers), *next_step(policy, out))
    return Reissued(out, made.version, policy, run_id, store, summary)


def _retold(manifest: Mapping[str, Any], note: str, spent: Spent | None) -> dict[str, Any]:
    """The manifest's training part: one note more, no test rows (they judged the old point)."""
    if "training" not in manifest:
        raise BadInput("the artifact does not say on what it was trained: train again")
    training = dict(manifest["training"])
    training["rows"] = {**training["rows"], "test": 0}
    training["notes"] = [*training["notes"], note]
    if spent is not None:
        training["rows"]["choose"] = len(spent.requests)
        training["known_until"] = newest(training, spent.requests)
        training |= _widened(training, window_of(spent.requests))
    return training


def _widened(
    training: Mapping[str, Any], window: Mapping[str, str | None]
) -> dict[str, str | None]:
    """The training's window, widened to that of the rows now chosen on, where times are known.

    training: the manifest's part; window: of the rows now chosen on, see `window_of`.
    """
    ends = {"since": min, "until": max}
    known = {end: [at for at in (training[end], window[end]) if at is not None] for end in ends}
    return {end: pick(known[end], default=None) for end, pick in ends.items()}


def _stages(old: Mapping[str, Any], settled: Settled) -> dict[str, dict[str, float]]:
    """The manifest's part on two stages, at the times that the training took."""
    known = old.get("stages")
    if known is None:
        return {}
    found = settled.stage_facts(Pace(known["first_us"], known["second_us_per_token"]))
    return {} if found is None else {"stages": found}
