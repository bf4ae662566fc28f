"""`suffice retrain`: train challengers, hold the best against the champion, promote it or not.

For schedulers: idempotent (nothing is trained where nothing is new), alone (a lock), and safe to
kill: the champion's alias and the serving folder change last, and the next job puts right what a
killed one left.
"""

import hashlib
import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from training.config import read_tiers
from training.console import say, step
from training.export import check_out, placing
from training.features import Sources, resolve_sources
from training.finish import Finished, finish
from training.ground import Ground, lay_out
from training.label.rule import labelled_requests
from training.log.fingerprint import contents
from training.log.requests import Requests
from training.log.traffic import TrafficTable, read_traffic
from training.record import Provenance, describe_making
from training.retrain.challengers import Challenger, train_challengers
from training.retrain.contest import hold
from training.retrain.gate import judge
from training.retrain.lock import serving_lock
from training.retrain.registry import ANCHOR, BEGUN, CHAMPION, SERVES, Registry, Version
from training.retrain.right import JOB, amiss, put_right, served
from training.retrain.settings import Settings, read_settings
from training.retrain.shown import (
    describe_challenger,
    describe_run,
    describe_worth,
    ending,
    show,
    verdict_table,
    version_tags,
)
from training.retrain.verdict import Verdict, as_table
from training.retrain.window import cut, decay
from training.show.words import count
from training.tracking import ARTIFACT_TAG, EVIDENCE_TAG, connected, has_store, look

PROMOTED, KEPT, REFUSED, NOTHING_NEW, PLANNED = (
    "promoted",
    "champion kept",
    "refused",
    "nothing new",
    "planned",
)
KEY, STATUS = "suffice.retrain.key", "suffice.retrain.status"  # tags of a job's run
PICKED = "suffice.retrain.picked"  # tag of the challenger that met the gate


@dataclass(frozen=True, slots=True)
class JobOutcome:
    """What a job came to.

    Attributes:
        status: promoted, champion kept, refused, nothing new, or planned (a dry run).
        lines: for people.
        verdict: of the gate, if it was asked.
        version: of the registered model, if there is a new one.
        artifact: the version of its artifact.
        run_id: of the job's run.
    """

    status: str
    lines: tuple[str, ...]
    verdict: Verdict | None = None
    version: str | None = None
    artifact: str | None = None
    run_id: str | None = None

    def as_json(self) -> dict[str, Any]:
        """For a machine."""
        values = {name: getattr(self, name) for name in ("status", "version", "artifact", "run_id")}
        checks = as_table(self.verdict.checks) if self.verdict else []
        return values | {"checks": checks, "notes": list(self.lines)}

    def as_text(self) -> list[str]:
        """For a terminal."""
        return [self.status, *self.lines]


def retrain(config: Path, dry_run: bool = False) -> JobOutcome:
    """Run the job that `config` (retrain.toml) describes.

    Raises:
        BadInput: the configuration, the window or the log cannot be used; nothing changed.
        EnvironmentProblem: MLflow or the disk failed, or another job holds the lock; the champion
            serves as before.
    """
    settings = read_settings(config)
    check_out(settings.folder)
    sources = {name: resolve_sources(name, settings.tuning) for name in settings.embedders}
    tiers = read_tiers(settings.tiers)
    with step("read traffic"):
        table = cut(read_traffic(settings.traffic), settings.window)
        requests, notes = labelled_requests(table, tiers, settings.config.label)
    key = _key(settings, requests, settings.tiers)
    if dry_run:
        champion = done = None
        if has_store():
            with connected("could not be asked", SERVES) as (mlflow, _):
                champion = Registry(mlflow, settings.model).of(CHAMPION)
                done = _same_job(mlflow, key)
        return _plan(settings, requests, champion, done)
    with (
        serving_lock(settings.folder, settings.wait_seconds),
        connected("failed the job", SERVES) as (mlflow, store),
    ):
        registry = Registry(mlflow, settings.model)
        for line in put_right(settings, registry):
            say(line)
        if (done := _same_job(mlflow, key)) is not None:
            told = f"nothing new since run {done} ({store}): same log, same configuration"
            return JobOutcome(NOTHING_NEW, (told,), run_id=done)
        weighed = decay(requests, settings.window.half_life_days)
        with step("split"):
            ground = lay_out(weighed, notes, tiers, settings.config, settings.shares, settings.seed)
        started, tags = f"{datetime.now(UTC):%Y-%m-%d %H:%M}", {JOB: str(settings.folder.resolve())}
        with (
            mlflow.start_run(run_name=f"{BEGUN}{started}", tags=tags) as run,
            ending(mlflow, started),
        ):
            describe_run(mlflow, settings, table, ground)
            best = _best(mlflow, ground, settings, sources)
            outcome = _finish(mlflow, registry, settings, ground, table, best, run.info.run_id)
            mlflow.set_tag("mlflow.runName", f"{outcome.status}, {started}")
            mlflow.set_tags({STATUS: outcome.status, KEY: key})
        return replace(outcome, lines=(*outcome.lines, look(run.info.run_id, store)))


def _finish(
    mlflow: Any,
    registry: Registry,
    settings: Settings,
    ground: Ground,
    table: TrafficTable,
    best: Challenger,
    run_id: str,
) -> JobOutcome:
    """Choose the operating point, export, hold against the champion, register, promote."""
    with tempfile.TemporaryDirectory() as scratch:
        folder, champion = Path(scratch) / "artifact", registry.of(CHAMPION)
        made = _export(mlflow, settings, best, folder, Path(scratch))
        with step("gate"):
            others = _others(registry, settings, Path(scratch))
            rule = settings.config.label
            contest = hold(ground, best.fitted.features.x, folder, others, rule)
            verdict = judge(contest.holdout, contest.entrant, contest.standing, settings.limits)
        status = PROMOTED if verdict.passed else KEPT if verdict.only_equal else REFUSED
        worth, name = describe_worth(made), made.artifact.version
        headline = f"{status.capitalize()}. {worth}"
        with step("register"):
            show(mlflow, made, verdict, headline, contest.notes, table, Path(scratch))
            tags = version_tags(verdict, best, ground.requests)
            told = f"{headline}\n\n{verdict_table(verdict)}"
            version = registry.register(folder, name, tags, told)
        if not verdict.passed:
            lines = (*verdict.reasons, worth)
            return JobOutcome(status, lines, verdict, version.number, name, run_id)
        with step("promote"), placing(folder, settings.folder):
            registry.promote(version)
    was = f", was {champion.artifact} (version {champion.number})" if champion else ""
    told = f"champion: {name} (version {version.number}){was}; served from {settings.folder}"
    return JobOutcome(status, (told, worth), verdict, version.number, name, run_id)


def _export(
    mlflow: Any, settings: Settings, best: Challenger, folder: Path, scratch: Path
) -> Finished:
    """The challenger's artifact in `folder`, its evidence logged."""
    kept = scratch / "evidence"
    kept.mkdir()
    provenance = Provenance(best.embedder, settings.seed, datetime.now(UTC))
    made = finish(best.fitted, settings.config, provenance, folder, kept)
    mlflow.log_artifacts(str(kept), "evidence")
    artifact = made.artifact
    mlflow.set_tags({ARTIFACT_TAG: artifact.version, EVIDENCE_TAG: artifact.manifest["evidence"]})
    return made


def _best(
    mlflow: Any, ground: Ground, settings: Settings, sources: Mapping[str, Sources]
) -> Challenger:
    """Train the challengers, each a nested run, and keep the best by cross-fitting."""
    best: Challenger | None = None
    made = train_challengers(
        ground,
        sources,
        settings.labels,
        settings.config.label,
        settings.challengers,
        settings.seed,
    )
    with step(count(settings.challengers, "challenger")):
        for one in made:
            with mlflow.start_run(run_name=one.name, nested=True) as run:
                mlflow.set_tags({JOB: str(settings.folder.resolve())})
                describe_challenger(mlflow, one)
            if best is None or one.merit > best.merit:
                best, picked = one, run.info.run_id
    assert best is not None
    mlflow.MlflowClient().set_tag(picked, PICKED, "yes")
    mlflow.log_param("challenger", best.name)
    describe_challenger(mlflow, best)
    return best


def _others(registry: Registry, settings: Settings, scratch: Path) -> dict[str, Path]:
    """Folders of the champion and the anchor, as far as there are any."""
    found = {}
    for alias in (CHAMPION, ANCHOR):
        version = registry.of(alias)
        if version is None:
            continue
        if served(settings.folder) == version.artifact:
            found[alias] = settings.folder
        else:
            found[alias] = registry.fetch(version, scratch / alias)
    return found


def _same_job(mlflow: Any, key: str) -> str | None:
    """The run of a job that finished on the same log with the same configuration."""
    runs = mlflow.search_runs(
        filter_string=f"tags.`{KEY}` = '{key}' and attributes.status = 'FINISHED'",
        max_results=1,
        output_format="list",
    )
    return runs[0].info.run_id if runs else None


def _plan(
    settings: Settings, requests: Requests, champion: Version | None, done: str | None
) -> JobOutcome:
    """What the job would do; `done` is the run that did it already."""
    now = served(settings.folder)
    lines = [f"{len(requests)} labelled requests in the window", *amiss(settings, champion, now)]
    if done:
        lines.append(f"nothing: run {done} did the same job")
    else:
        rival = f"version {champion.number} ({champion.artifact})" if champion else now
        lines.append(
            f"train {count(settings.challengers, 'challenger')} ({', '.join(settings.embedders)}), "
            f"hold the best against {rival or 'no champion'}"
        )
        lines.append(f"where it passes: make it the champion, and serve it from {settings.folder}")
    return JobOutcome(PLANNED, tuple(lines))


def _key(settings: Settings, requests: Requests, tiers: Path) -> str:
    """Hash of all that a job depends on: log, configuration, prices, and the code's version."""
    made = describe_making()
    parts = [
        contents(requests),
        json.dumps(settings.words, sort_keys=True, default=str),
        tiers.read_text(encoding="utf-8"),
        json.dumps([made["suffice_version"], made["libraries"]], sort_keys=True),
    ]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]
