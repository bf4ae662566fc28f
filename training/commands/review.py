"""What an artifact decides and what that is worth, also beside peers' methods."""

from pathlib import Path
from typing import Annotated, Any

import typer

from training.commands.options import ArtifactPath, Estimated, Json, Quiet, Traffic
from training.commands.output import print_json, show_report
from training.console import say, step
from training.errors import BadInput
from training.files import check_file, check_folder, write_json

PromptText = Annotated[str | None, typer.Argument(help="The prompt.", metavar="PROMPT")]
Messages = Annotated[
    Path | None,
    typer.Option(help="JSON: a list of chat messages, or an OpenAI request body."),
]


def score(
    artifact: ArtifactPath,
    traffic: Traffic,
    out: Annotated[Path, typer.Option(help="Parquet to write, one row per request.")],
    quiet: Quiet = False,
) -> None:
    """Score every request of a traffic table with an artifact.

    Writes P(suffices) and expected cost of each tier, and the tier that the policy chooses. Rules
    are not applied: the service may send a request elsewhere.

    Example: suffice score artifacts/current --traffic traffic.parquet --out scores.parquet
    """
    from training.evaluate import score as run

    with step("score"):
        rows = run(artifact, traffic, out)
    typer.echo(f"{out}: {rows} requests")


def evaluate(
    artifact: ArtifactPath,
    traffic: Traffic,
    json_path: Annotated[Path | None, typer.Option("--json", help="JSON report to write.")] = None,
    plots: Annotated[Path | None, typer.Option(help="Folder for the figures.")] = None,
    estimate_propensities: Estimated = False,
    quiet: Quiet = False,
) -> None:
    """Measure an artifact on labelled traffic it was not fitted on.

    On requests that every tier answered, gives the whole report; on one-sided logs, estimates the
    value of policies from the logged propensities.

    Example: suffice evaluate artifacts/current --traffic recent.parquet --json report.json
    """
    from training.evaluate import evaluate as run

    def tell(report: Any, left_out: int) -> None:
        """Called before the run is logged: if MLflow refuses it, the figures have been shown."""
        typer.echo(f"{report.rows} requests; {_known(left_out)}")
        show_report(report)
        for note in report.notes:
            typer.echo(note)

    run(artifact, traffic, json_path, plots, estimate_propensities, tell)


def report(
    artifact: ArtifactPath,
    traffic: Traffic,
    out: Annotated[Path, typer.Option(help="HTML page to write.")] = Path("report.html"),
    quiet: Quiet = False,
) -> None:
    """Write a page for decision makers: savings, quality, certainty.

    One HTML file that needs no network. It holds logged prompts, shown on demand.

    Example: suffice report artifacts/current --traffic recent.parquet --out report.html
    """
    from training.report_page import report as run

    with step("report"):
        done = run(artifact, traffic, out)
    typer.echo(
        f"{out}: {done.rows} requests ({done.world}); {_known(done.left_out)}; "
        f"MLflow run {done.run}"
    )


def route(
    artifact: ArtifactPath,
    prompt: PromptText = None,
    messages: Messages = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Decide one prompt.

    Example: suffice route artifacts/current "What is the capital of France?"
    """
    from router import Router

    asked, facts = _request(prompt, messages)
    decision = Router.load(artifact).route(asked, **facts)
    if as_json:
        print_json({name: getattr(decision, name) for name in decision.__dataclass_fields__})
        return
    typer.echo(f"{decision.tier} ({decision.model}), {decision.reason}")
    for name, p in decision.p_suffices.items():
        usd = 1000 * decision.expected_cost_usd[name]
        typer.echo(f"  {name}: suffices with probability {p:.3f}, costs about ${usd:.4g} per 1,000")


def explain(
    artifact: ArtifactPath,
    prompt: PromptText = None,
    messages: Messages = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Say why a prompt goes where it goes, and what would change that.

    Example: suffice explain artifacts/current "What is the capital of France?"
    """
    from router import Router
    from training.show.explain import explain as run
    from training.show.explain_json import as_json as to_json
    from training.show.explain_words import lines

    asked, facts = _request(prompt, messages)
    found = run(artifact, asked, facts.get("tools"))
    ruled = Router(found.artifact).route(asked, **facts)
    if as_json:
        print_json(to_json(found, ruled))
        return
    if ruled.reason.startswith("rule:"):
        typer.echo(f"{ruled.tier}, by {ruled.reason}. What the model says of it:")
    for line in lines(found):
        typer.echo(line)


def bench(
    traffic: Traffic,
    tiers: Annotated[Path, typer.Option(help="Tiers and prices, TOML.")],
    config: Annotated[
        Path | None, typer.Option(help="TOML file with [label] and [policy].")
    ] = None,
    seeds: Annotated[
        int,
        typer.Option(help="How many random splits to fit and test on.", min=1, max=100),
    ] = 3,
    split: Annotated[
        str, typer.Option(help="Fit/choose/test in percent; other methods fit on the first two.")
    ] = "60/10/30",
    embedder: Annotated[
        str, typer.Option(help="static, minilm or a folder, for Suffice and the other methods.")
    ] = "static",
    out: Annotated[Path | None, typer.Option(help="Folder for the table and two figures.")] = None,
    json_path: Annotated[Path | None, typer.Option("--json", help="JSON report to write.")] = None,
    quiet: Quiet = False,
) -> None:
    """Compare Suffice with other routing methods on the same rows.

    Needs requests that every tier answered. The other methods are tuned by cross-fitting on all
    training rows.

    Example: suffice bench --traffic traffic.parquet --tiers tiers.toml --out bench
    """
    from training.bench.bench import bench as run
    from training.config import read_config, read_tiers
    from training.learn.splits import parse_shares

    if json_path is not None:
        check_file(json_path, traffic, tiers, config)
    if out is not None:
        check_folder(out)
    settings, named = read_config(config, {}), read_tiers(tiers)
    found = run(traffic, named, settings, parse_shares(split), seeds, embedder)
    if json_path is not None:
        write_json(json_path, found.as_json())
    if out is not None:
        from training.bench.figures import write

        for path in write(found, out):
            say(str(path))
    for line in found.as_text():
        typer.echo(line)


def _known(left_out: int) -> str:
    """How many requests were left out and, where any were, why."""
    return f"{left_out} left out" + ", the artifact was fitted or chosen on them" * (left_out > 0)


def _request(prompt: str | None, messages: Path | None) -> tuple[Any, dict[str, Any]]:
    """What is to be decided, and what else the request says (see `router.Router.route`)."""
    if prompt is not None and messages is None:
        return prompt, {}
    if prompt is not None or messages is None:
        raise BadInput("give a prompt or --messages FILE.json, one of the two")
    from training.log.messages import read_request

    return read_request(messages)
