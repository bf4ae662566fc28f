"""The training job: label → split → features → heads → policy → export → report → MLflow."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from router.embedder import StaticEmbedder
from router.policy import Policy
from router.predictor import Estimates, Predictor
from router.tier import Tier
from router.vectorizer import SURFACE, Vectorizer
from training import baselines
from training.card import describe_policy, describe_rule, model_card
from training.config import Config
from training.console import step
from training.costs import account, expected, fit_tokens
from training.embedders import resolve_embedder
from training.errors import BadInput
from training.export import check_out, export, id_hashes
from training.golden import golden_lines, golden_prompts
from training.heads import FittedHeads, fit_heads, probabilities, sort_tiers
from training.labels import LabelRule, load_requests
from training.members import Matrix
from training.operating import Evidence, choose, count_units, dial_grid
from training.report import Report, Rows, build_report, save_json, save_plots
from training.requests import Requests, fingerprint
from training.splits import Splits, split
from training.tracking import log_run
from training.vectorize import fit_ngrams, vectorize

LIBRARIES = ("numpy", "tokenizers", "lightgbm", "scikit-learn", "pandas", "mlflow")


@dataclass(frozen=True, slots=True)
class Trained:
    """What a job leaves behind: where the artifact is, its version, its report and its run."""

    out: Path
    version: str
    policy: Policy
    report: Report | None
    run_id: str
    store: str
    summary: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Learned:
    """The fitted parts, still together with what only training needs."""

    tiers: tuple[Tier, ...]
    predictor: Predictor
    heads: FittedHeads
    embedder: StaticEmbedder
    notes: tuple[str, ...]
    usd: NDArray[np.float64]  # [fit rows, k] expected costs, beside heads.p


def train(
    traffic: Path,
    tiers: tuple[Tier, ...],
    out: Path,
    config: Config,
    shares: tuple[float, float, float],
    seed: int,
    embedder_name: str,
) -> Trained:
    """Train a router from a traffic file and export it to `out`.

    Raises:
        BadInput: the traffic cannot be learned from; nothing was written.
        EnvironmentProblem: MLflow refused the run (the artifact is in place).
    """
    started = datetime.now(UTC)
    check_out(out)
    embedder = resolve_embedder(embedder_name)
    with step("read traffic"):
        requests, counts = load_requests(traffic, tiers, config.label)
    with step("split"):
        splits = split(requests, shares, seed)
        _check_sizes(splits)
        fit_rows, choose_rows = requests.take(splits.fit), requests.take(splits.choose)
        sort_tiers(fit_rows.score, tuple(tier.name for tier in tiers))  # refuse before the work
        count_units(choose_rows.sessions[choose_rows.paired])
    with step("features"):
        ngrams = fit_ngrams(embedder, list(fit_rows.prompts), seed)
        vectorizer = Vectorizer(embedder, ngrams)
        x = vectorize(vectorizer, list(requests.prompts))
    with step("heads"):
        learned = _learn(
            x.take(splits.fit),
            fit_rows,
            splits.group[splits.fit],
            tiers,
            embedder,
            vectorizer,
            seed,
        )
    paid = account(x, requests, learned.predictor.tokens, tiers)
    with step("operating point"):
        policy = _choose(learned, x, requests, paid, splits.choose, config)
    with step("report"):
        report = _report(learned, x, requests, paid, splits, policy, config.label)
    notes = [*counts, splits.leakage, *learned.notes, *learned.heads.notes]
    notes += (
        list(report.notes) if report else ["fewer than two independent test requests: no report"]
    )
    sizes = {part: len(getattr(splits, part)) for part in ("fit", "choose", "test")}
    facts = _facts(requests, config.label, sizes, notes, report, started, embedder_name, seed)
    with step("export"):
        golden = vectorize(vectorizer, golden_prompts())
        lines = golden_lines(probabilities(learned.heads, golden), [tier.name for tier in tiers])
        window = (facts["training"]["since"], facts["training"]["until"])
        card = model_card(tiers, policy, config.label, sizes, window, notes, report)
        used = requests.ids[np.concatenate([splits.fit, splits.choose])]
        name = export(out, learned.predictor, embedder, policy, lines, card, id_hashes(used), facts)
    with step("MLflow run"):
        run_id, store = _track(out, name, report, facts, learned, policy, config, shares, seed)
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
                f"the {part} part has {rows} labelled requests, at least {least} are needed: give "
                "more rows, or another --split"
            )


def _learn(
    x: Matrix,
    requests: Requests,
    group: NDArray[np.int64],
    tiers: tuple[Tier, ...],
    embedder: StaticEmbedder,
    vectorizer: Vectorizer,
    seed: int,
) -> Learned:
    heads = fit_heads(
        x,
        requests.score,
        requests.weight,
        group,
        requests.sessions,
        tuple(tier.name for tier in tiers),
        SURFACE,
        seed,
    )
    tokens, notes = fit_tokens(x, requests)
    predictor = Predictor(tiers, vectorizer, heads.neighbours, heads.heads, heads.blend, tokens)
    return Learned(tiers, predictor, heads, embedder, notes, expected(x, tokens, tiers))


def _choose(
    learned: Learned,
    x: Matrix,
    requests: Requests,
    paid: NDArray[np.float64],
    rows: NDArray[np.int64],
    config: Config,
) -> Policy:
    known = rows[requests.paired[rows]]
    names = [tier.name for tier in learned.tiers]
    part = x.take(known)
    evidence = Evidence(
        p=probabilities(learned.heads, part),
        usd=expected(part, learned.predictor.tokens, learned.tiers),
        paid=paid[known],
        score=requests.score[known],
        session=requests.take(known).sessions,
    )
    return choose(config.policy, dial_grid(learned.heads.p, learned.usd), evidence, names)


def _report(
    learned: Learned,
    x: Matrix,
    requests: Requests,
    paid: NDArray[np.float64],
    splits: Splits,
    policy: Policy,
    rule: LabelRule,
) -> Report | None:
    test = splits.test[requests.paired[splits.test]]
    if len(np.unique(requests.take(test).sessions)) < 2:
        return None  # an interval needs two independent requests
    asked = x.take(test)
    rows = Rows.of(
        learned.tiers,
        Estimates(
            probabilities(learned.heads, asked),
            expected(asked, learned.predictor.tokens, learned.tiers),
        ),
        paid[test],
        requests.take(test),
        rule,
        baselines.estimates(
            x.dense[splits.fit, SURFACE:], requests.score[splits.fit], asked.dense[:, SURFACE:]
        ),
        asked.dense[:, :SURFACE],
    )
    return build_report(rows, policy, rule.warnings())


def _facts(
    requests: Requests,
    rule: LabelRule,
    sizes: dict[str, int],
    notes: Sequence[str],
    report: Report | None,
    started: datetime,
    embedder_name: str,
    seed: int,
) -> dict[str, Any]:
    """The manifest's part that tells where the artifact comes from."""
    times = requests.at[~np.isnat(requests.at)]
    ends = [str(edge) + "Z" for edge in (times.min(), times.max())] if len(times) else [None, None]
    return {
        "suffice_version": version("suffice"),
        "created_at": started.isoformat(timespec="seconds"),
        "label": rule.as_dict(),
        "training": {
            "since": ends[0],
            "until": ends[1],
            "rows": sizes,
            "fingerprint": fingerprint(requests),
            "embedder": embedder_name if embedder_name == "static" else "custom",
            "seed": seed,
            "notes": list(notes),
        },
        "metrics": report.flat() if report else {},
        "libraries": {name: version(name) for name in LIBRARIES},
    }


def _track(
    out: Path,
    name: str,
    report: Report | None,
    facts: dict[str, Any],
    learned: Learned,
    policy: Policy,
    config: Config,
    shares: tuple[float, float, float],
    seed: int,
) -> tuple[str, str]:
    parameters = {
        "embedder": facts["training"]["embedder"],
        "seed": seed,
        "split": "/".join(f"{100 * share:g}" for share in shares),
        "min_quality": config.policy.share,
        "confidence": config.policy.confidence,
        "tiers": ", ".join(f"{tier.name}={tier.model}" for tier in learned.tiers),
        **{f"label.{key}": value for key, value in facts["label"].items()},
        **{f"rows.{key}": value for key, value in facts["training"]["rows"].items()},
    }
    metrics = facts["metrics"] | {f"heads.{key}": v for key, v in learned.heads.choices.items()}
    if policy.promise is not None:
        metrics |= {
            "promise.estimate": policy.promise.estimate,
            "promise.bound": policy.promise.bound,
            "promise.certified": float(policy.promise.certified),
        }
    tags = {
        "suffice.version": facts["suffice_version"],
        "suffice.artifact": name,
        "suffice.fingerprint": facts["training"]["fingerprint"],
        "suffice.policy": describe_policy(policy, learned.tiers),
        "mlflow.note.content": (out / "CARD.md").read_text(encoding="utf-8"),
    }
    with tempfile.TemporaryDirectory() as scratch:
        folders = {"artifact": out}
        if report is not None:
            folders |= {name: Path(scratch) / name for name in ("plots", "report")}
            folders["plots"].mkdir()
            save_plots(report, folders["plots"])
            save_json(report, folders["report"] / "report.json")
        return log_run(f"suffice {name}", parameters, metrics, tags, folders)
