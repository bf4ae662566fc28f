"""What is in an artifact or a traffic table, in words."""

from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from router.artifact import load_artifact
from training.errors import BadInput
from training.golden import replay
from training.label.rule import LabelRule
from training.log.traffic import read_traffic
from training.show.card import describe_policy, describe_rule, describe_stages, describe_window


def describe(path: Path) -> list[str]:
    """Describe an artifact folder (verified and replayed) or a traffic table.

    Raises:
        BadInput: the path is neither.
        ArtifactError: the folder is an artifact, and it is damaged.
    """
    if (path / "manifest.json").is_file():
        return list(_describe_artifact(path))
    if not path.exists():
        raise BadInput(f"{path}: no such artifact folder or traffic table")
    if (path / "heads.npz").is_file():
        raise BadInput(f"{path}: an artifact without its manifest.json; export it again")
    return list(_describe_traffic(path))


def _describe_artifact(path: Path) -> Iterator[str]:
    artifact = load_artifact(path)
    manifest, predictor = artifact.manifest, artifact.predictor
    training = manifest["training"]
    rows = training["rows"]
    yield (
        f"artifact {artifact.version}, made {manifest['created_at']} by "
        f"suffice {manifest['suffice_version']}"
    )
    for tier in predictor.tiers:
        yield (
            f"tier {tier.name}: {tier.model}, {tier.input_usd_per_mtok:g} / "
            f"{tier.output_usd_per_mtok:g} USD per million input / output tokens"
        )
    yield describe_policy(artifact.policy, predictor.tiers)
    if (stages := describe_stages(manifest)) is not None:
        yield stages
    if artifact.rules is not None:
        yield from artifact.rules.describe()
    yield f"label rule: {describe_rule(LabelRule(**manifest['label']))}"
    yield (
        f"trained on {rows['fit']} requests, operating point chosen on {rows['choose']}, "
        f"report on {rows['test']}; {describe_window(training['since'], training['until'])}"
    )
    yield from training["notes"]
    yield from training.get("details", ())  # older ones have them in the notes
    difference = replay(predictor, artifact.golden)
    yield f"golden replay: {len(artifact.golden)} prompts, largest difference {difference:.1e}"
    size = sum(file["size"] for file in manifest["files"].values())
    yield f"{size / 1e6:.1f} MB, every file's hash checked"


def _describe_traffic(path: Path) -> Iterator[str]:
    table = read_traffic(path)
    frame = table.frame
    answered = frame[frame["status"] != "error"]
    failed = len(frame) - len(answered)
    calls = f"{len(answered)} answered" + f" and {failed} failed" * bool(failed)
    yield f"{calls} calls of {frame['request_id'].nunique()} requests"
    if "imprint" in frame:
        yield f"features only, no text; embedded by {frame['imprint'][0].embedder}"
    if frame["at"].notna().any():
        yield f"from {frame['at'].min()} to {frame['at'].max()}"
    if frame["session_id"].notna().any():
        yield f"{frame['session_id'].nunique()} sessions, {frame['user_id'].nunique()} users"
    tiers = frame.assign(who=frame["tier"].fillna(frame["model"])).groupby("who", sort=False)
    for who, rows in tiers:
        labelled = rows["score"].notna()
        mean = f", mean score {rows['score'].mean():.3f}" if labelled.any() else ""
        errors = int((rows["status"] == "error").sum())
        yield f"{who}: {len(rows)} calls, {int(labelled.sum())} labelled{mean}, {errors} failed"
    if len(answered):
        yield from _describe_worlds(answered)
        yield from _describe_sample(answered["sample_probability"].dropna())
    yield from table.notes


def _describe_worlds(answered: pd.DataFrame) -> Iterator[str]:
    """What tiers can be compared by: requests that several of them answered, or propensities."""
    scores = answered.groupby("request_id")["score"]
    several, paired = int((scores.size() > 1).sum()), int((scores.count() > 1).sum())
    if paired:
        yield f"{paired} requests carry the scores of two or more tiers"
    elif several:
        labels = "none is labelled twice" if scores.count().any() else "none is labelled yet"
        yield (
            f"{several} requests were answered by two or more tiers, {labels}: `suffice label`, or "
            "map a column to score (`suffice ingest --map`)"
        )
    else:
        yield "0 requests carry the scores of two or more tiers: a one-sided log"
    yield from _describe_propensity(answered, one_sided=not several)


def _describe_sample(chance: "pd.Series[float]") -> Iterator[str]:
    """What a sample that took some requests more often than others is good for."""
    if chance.nunique() > 1:
        yield (
            f"a sample took requests with probabilities from {chance.min():.3g} to "
            f"{chance.max():.3g}: all are learned from, figures and promises rest on those that "
            "are together like the traffic"
        )


def _describe_propensity(answered: pd.DataFrame, one_sided: bool) -> Iterator[str]:
    """How many calls have a propensity, and what follows where nothing else compares tiers."""
    known = answered["propensity"].dropna()
    if len(known):
        least = f"smallest {known.min():.3g}"
        told = f"propensity on {len(known)} of {len(answered)} answered calls, {least}"
        follows = "; what another choice would have been worth is estimated from it"
        if len(known) < len(answered):
            follows += ", and not from the other calls"
        yield told + follows * one_sided
    elif one_sided and answered["tier"].fillna(answered["model"]).nunique() == 1:
        yield (
            "one tier alone answered: `suffice replay` the requests on another, send it some at "
            "random, or, if the top tier was never called, assume_top_suffices"
        )
    elif one_sided:
        yield (
            "no propensity on any call: `suffice train` refuses a one-sided log without it; log "
            "the chance with which each tier was chosen, `suffice replay` the tiers that did not "
            "answer, or --estimate-propensities"
        )
