"""What is in an artifact or a traffic table, in words; and a tiers file from a log."""

import json
from collections.abc import Iterator
from math import inf, isfinite
from pathlib import Path

import pandas as pd

from router.artifact import load_artifact
from training.errors import BadInput
from training.files import check_file, whole
from training.golden import replay
from training.label.rule import LabelRule
from training.log.models import plain_model
from training.log.traffic import read_traffic
from training.show.card import describe_policy, describe_rule, describe_stages

_CHECK = "# Tiers, cheapest first. Check every price before training."
_UNKNOWN = "# ORDER AND PRICES UNKNOWN: fill in, cheapest first"


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
    yield f"artifact {artifact.version}, made {manifest['created_at']} by {_maker(manifest)}"
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
        f"report on {rows['test']}; window {training['since'] or '–'} to {training['until'] or '–'}"
    )
    yield from training["notes"]
    difference = replay(predictor, artifact.golden)
    yield f"golden replay: {len(artifact.golden)} prompts, largest difference {difference:.1e}"
    size = sum(file["size"] for file in manifest["files"].values())
    yield f"{size / 1e6:.1f} MB, every file's hash checked"


def _maker(manifest: object) -> str:
    assert isinstance(manifest, dict)
    return f"suffice {manifest['suffice_version']}"


def _describe_traffic(path: Path) -> Iterator[str]:
    table = read_traffic(path)
    frame = table.frame
    yield f"{len(frame)} answered calls of {frame['request_id'].nunique()} requests"
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
    answers = frame.groupby("request_id")["score"].count()
    paired = int((answers > 1).sum())
    yield f"{paired} requests carry the scores of two or more tiers" + (
        "" if paired else ": a one-sided log"
    )
    yield from table.notes


def write_tiers(traffic: Path, out: Path) -> list[str]:
    """Write a tiers file with the models of a log, cheapest first by what their calls were billed.

    A price is the slope of billed USD on tokens where the log has both; else it stays 0 and the
    line says that it must be filled in. Models without a bill come last, and the file says that
    their order is unknown.

    Raises:
        BadInput: no model in the log, or the file exists.
    """
    check_file(out)
    if out.exists():
        raise BadInput(f"{out} exists; remove it or give another --out")
    frame = read_traffic(traffic).frame
    frame = frame[frame["model"].notna() & (frame["status"] != "error")]
    if frame.empty:
        raise BadInput(f"{traffic}: column model: no answered call names a model")
    groups = [_seen(name, rows) for name, rows in frame.groupby(frame["model"].map(plain_model))]
    groups.sort(key=lambda group: group[0])
    ordered = isfinite(groups[-1][0])
    lines = [_CHECK if ordered else _UNKNOWN, ""]
    for _, name, model, prices, rows in groups:
        known = "from the log's bills" if prices else "not in the log: FILL IN"
        paid, made = prices or (0.0, 0.0)
        lines += [
            "[[tier]]",
            f"name = {_quoted(name)}",
            f"model = {_quoted(model)}  # {rows} calls",
            f"input_usd_per_mtok = {paid:.6g}  # {known}",
            f"output_usd_per_mtok = {made:.6g}  # {known}",
            "",
        ]
    with whole(out) as beside:
        beside.write_text("\n".join(lines), encoding="utf-8")
    left = "check the prices" if ordered else "order and prices unknown: fill them in"
    return [f"{out}: {len(groups)} tiers; {left} before training"]


def _quoted(text: str) -> str:
    """A text as a TOML string: JSON's escapes are among TOML's."""
    return json.dumps(text, ensure_ascii=False)


def _seen(
    key: object, rows: pd.DataFrame
) -> tuple[float, str, str, tuple[float, float] | None, int]:
    """Mean bill in USD (inf: none), tier name, model, prices per million tokens, calls."""
    named = rows["tier"].dropna()
    name = str(named.mode().iloc[0]) if len(named) else str(key)
    model = str(rows["model"].mode().iloc[0])
    bills = rows[rows["cost_usd"] > 0]
    counted = bills.dropna(subset=["input_tokens", "output_tokens"])
    prices = _prices(counted) if len(counted) >= 5 else None
    mean = float(bills["cost_usd"].mean()) if len(bills) else inf
    return mean, name, model, prices, len(rows)


def _prices(billed: pd.DataFrame) -> tuple[float, float] | None:
    """Input and output price per million tokens by non-negative least squares."""
    from scipy.optimize import nnls

    tokens = billed[["input_tokens", "output_tokens"]].to_numpy(dtype=float)
    found, _ = nnls(tokens, billed["cost_usd"].to_numpy(dtype=float) * 1e6)
    return (float(found[0]), float(found[1])) if (found > 0).all() else None
