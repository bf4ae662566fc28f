"""Artifacts: trained, and taken to another operating point without training."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from training.commands.options import ArtifactPath, Estimated, Json, Quiet, Traffic
from training.commands.output import print_json, show_report
from training.errors import BadInput


def train(
    traffic: Traffic,
    tiers: Annotated[Path, typer.Option(help="Tiers and prices, TOML; see `suffice init`.")],
    out: Annotated[Path, typer.Option(help="Artifact folder to write.")],
    config: Annotated[
        Path | None, typer.Option(help="TOML file with [label], [policy] and [rules].")
    ] = None,
    seed: Annotated[
        int, typer.Option(help="Random seed of splits, folds and trees.", min=0, max=2**31 - 1)
    ] = 0,
    embedder: Annotated[
        str, typer.Option(help="static, minilm, a sentence-transformers folder, or static+minilm.")
    ] = "static",
    split: Annotated[
        str,
        typer.Option(help="Percent to fit on / choose the operating point on / test on."),
    ] = "75/15/10",
    policy: Annotated[
        list[str] | None,
        typer.Option(help="The goal and its settings, NAME=VALUE, e.g. min_quality=0.98."),
    ] = None,
    finetune: Annotated[
        bool,
        typer.Option("--finetune", help="Also fine-tune a transformer on the log (takes minutes)."),
    ] = False,
    max_minutes: Annotated[
        float | None, typer.Option(help="Time limit of --finetune, in minutes.", min=0.1)
    ] = None,
    estimate_propensities: Estimated = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train a router and export it.

    Example: suffice train --traffic traffic.parquet --tiers tiers.toml --out artifacts/current
    """
    from training.config import read_config, read_tiers
    from training.learn.finetune import Tuning
    from training.learn.splits import parse_shares
    from training.train import train as run

    settings = read_config(config, _pairs(policy or [], "--policy"))
    parts, named = parse_shares(split), read_tiers(tiers)
    if max_minutes is not None and not finetune:
        raise BadInput("--max-minutes limits --finetune: give that, too, or neither")
    tuning = Tuning(max_minutes) if finetune else None

    def tell(summary: Sequence[str], report: Any) -> None:
        """Called before the run is logged: if MLflow refuses it, the result has been shown."""
        if as_json:
            return
        for line in summary:
            typer.echo(line)
        if report is not None:
            show_report(report)

    done = run(
        traffic,
        named,
        out,
        settings,
        parts,
        seed,
        embedder,
        estimate=estimate_propensities,
        tuning=tuning,
        tell=tell,
    )
    if as_json:
        print_json(_facts(done) | {"report": done.report.as_json() if done.report else None})
    else:
        typer.echo(_place(done))


def policy(
    artifact: ArtifactPath,
    traffic: Traffic,
    set: Annotated[
        list[str],
        typer.Option(help="The goal, NAME=VALUE, e.g. max_bad_downgrade=0.02; repeatable."),
    ],
    out: Annotated[
        Path | None, typer.Option(help="Artifact folder to write; default: in place.")
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Choose another operating point, on traffic not seen before.

    Nothing is trained. Rows that the artifact was fitted or chosen on are left out.

    Goals: min_quality, max_bad_downgrade, max_cost_usd_per_1k, top_share, value_usd_per_point.

    Example: suffice policy artifacts/current --traffic recent.parquet --set top_share=0.2 --out new
    """
    from training.config import parse_values
    from training.decide.goals import parse_goal
    from training.resolve import resolve

    goal = parse_goal(parse_values(_pairs(set, "--set"), "--set"), "--set")
    _tell_choice(resolve(artifact, traffic, goal, out or artifact), as_json)


def reprice(
    artifact: ArtifactPath,
    tiers: Annotated[Path, typer.Option(help="The same tiers at their new prices, TOML.")],
    out: Annotated[
        Path | None, typer.Option(help="Artifact folder to write; default: in place.")
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Choose the operating point again, at new prices.

    Example: suffice reprice artifacts/current --tiers tiers.toml --out artifacts/cheaper
    """
    from training.config import read_tiers
    from training.resolve import reprice as run

    _tell_choice(run(artifact, read_tiers(tiers), out or artifact), as_json)


def distill(
    model_dir: Annotated[Path, typer.Argument(help="sentence-transformers folder.")],
    out: Annotated[Path, typer.Option(help="Folder for the table.")] = Path("static-embedder"),
    quiet: Quiet = False,
) -> None:
    """Distil a transformer into a static table (extra: encoders).

    Example: suffice distill all-MiniLM-L6-v2/ --out static-embedder
    """
    from training.learn.distill import distill as run

    typer.echo(str(run(model_dir, out)))


def demo(
    out: Annotated[Path, typer.Option(help="Folder to write.")] = Path("suffice-demo"),
    quiet: Quiet = False,
) -> None:
    """Run the main job on the bundled sample, in about a minute.

    Example: suffice demo
    """
    from training.demo import demo as run

    for line in run(out):
        typer.echo(line)


def _pairs(items: list[str], option: str) -> dict[str, str]:
    pairs = dict(item.partition("=")[::2] for item in items)
    if any(not value for value in pairs.values()):
        raise BadInput(f"{option} {' '.join(items)}: expected NAME=VALUE")
    return pairs


def _tell_choice(done: Any, as_json: bool) -> None:
    """Print what came of choosing another operating point for an artifact."""
    if as_json:
        print_json(_facts(done))
        return
    for line in done.summary:
        typer.echo(line)
    typer.echo(_place(done))


def _facts(done: Any) -> dict[str, Any]:
    """An artifact for a machine: where it is, its operating point, and what was said of it."""
    told = {"artifact": str(done.out), "version": done.version, "run_id": done.run_id}
    return told | {"policy": done.policy.to_dict(), "summary": list(done.summary)}


def _place(done: Any) -> str:
    """Where an artifact and its run are, in words."""
    return f"artifact {done.out} ({done.version}); MLflow run {done.run_id} in {done.store}"
