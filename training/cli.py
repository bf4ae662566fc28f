"""The command line: thin, lazy, and the only place that turns errors into exit codes."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from training.console import complain, say, set_quiet, step
from training.errors import BadInput, SufficeError

app = typer.Typer(
    name="suffice",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Learn from your own LLM logs which prompts a small model answers well enough.\n\n"
    "Exit codes: 0 ok, 1 the job's own no, 2 usage or bad input, 3 environment.",
)

Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")]
Traffic = Annotated[Path, typer.Option(help="Traffic table, Parquet.")]
Estimated = Annotated[
    bool, typer.Option(help="Estimate propensities that the log lacks; every output says so.")
]
ArtifactPath = Annotated[Path, typer.Argument(help="Artifact folder.", metavar="ARTIFACT")]

PromptText = Annotated[str | None, typer.Argument(help="The prompt.", metavar="PROMPT")]
Messages = Annotated[
    Path | None,
    typer.Option(help="JSON: a list of chat messages, or an OpenAI request body."),
]
TrafficFiles = Annotated[
    list[Path], typer.Argument(help="Traffic tables, Parquet, read as one.", metavar="TRAFFIC...")
]
BaseUrl = Annotated[
    str | None, typer.Option(help="OpenAI-compatible server; default: LiteLLM's provider.")
]
KeyVariable = Annotated[
    str | None, typer.Option(help="Variable with the API key for --base-url.", metavar="NAME")
]
Concurrency = Annotated[int, typer.Option(help="Calls under way at a time.", min=1, max=1000)]
Timeout = Annotated[float, typer.Option(help="Seconds that one attempt may take.", min=0.1)]
MaxOutput = Annotated[int, typer.Option(help="Longest answer, in tokens.", min=1)]
Model = Annotated[str, typer.Option(help="Name in the MLflow registry.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Ask nothing; print the price.")]


def _quieten(quiet: bool) -> None:
    if quiet:
        set_quiet(True)


Quiet = Annotated[bool, typer.Option("--quiet", help="Say nothing but errors.", callback=_quieten)]


@app.callback()
def _common(quiet: Quiet = False) -> None:
    """Take --quiet before the command as well as after it."""


@app.command()
def ingest(
    sources: Annotated[list[str], typer.Argument(help="Files or folders.", metavar="SRC...")],
    out: Annotated[
        str, typer.Option(help="Traffic table to write or to add to: a file, or FOLDER/ by day.")
    ],
    format: Annotated[
        str,
        typer.Option(
            help="auto, suffice, litellm, openai, mlflow, otel, langfuse, table, routellm."
        ),
    ] = "auto",
    map: Annotated[Path | None, typer.Option(help="TOML that maps your columns.")] = None,
    max_bad: Annotated[float, typer.Option(help="Fail above this share of bad rows.")] = 0.01,
    keep_ids: Annotated[bool, typer.Option(help="Keep user and session ids as they are.")] = False,
    redact: Annotated[
        bool, typer.Option("--redact", help="Mask e-mail, phone, card numbers and keys in texts.")
    ] = False,
    features_only: Annotated[
        bool, typer.Option("--features-only", help="Keep what training reads of prompts, no text.")
    ] = False,
    embedder: Annotated[
        str | None, typer.Option(help="Of --features-only: static, minilm or a folder.")
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Read logs into the traffic table.

    Example: suffice ingest llm_requests.csv --out traffic.parquet --map columns.toml
    """
    from training.log.ingest import ingest as run

    if embedder is not None and not features_only:
        raise BadInput("--embedder is for --features-only: a table with text fits every embedder")
    by = None
    if features_only:
        from training.learn.embedders import resolve_embedder

        by = resolve_embedder(embedder or "static")
    with step("ingest"):
        report = run(sources, out, format, map, max_bad, keep_ids, redact=redact, features_by=by)
    for note in report.notes:
        say(note)
    if as_json:
        _print_json(report.as_json())
    else:
        counts = ", ".join(f"{count} {name}" for name, count in report.total.items())
        typer.echo(f"{report.out}: {report.rows} rows ({counts})")


@app.command()
def forget(
    dataset: Annotated[Path, typer.Argument(help="Traffic table: a file or a folder by day.")],
    user: Annotated[list[str], typer.Option(help="Id, as in the log or the table; repeatable.")],
    artifacts: Annotated[
        list[Path] | None, typer.Option(help="Artifact, or a folder of some; repeatable.")
    ] = None,
    runs: Annotated[bool, typer.Option("--mlflow", help="Look through MLflow's runs.")] = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Remove people's rows, and say which artifacts saw them.

    Example: suffice forget --user ann@example.org traffic.parquet --artifacts artifacts
    """
    from training.forget import Saw
    from training.forget import forget as run

    def tell(saw: Sequence[Saw]) -> None:
        for one in saw:
            say(f"{one.place} ({one.version}): fitted or chosen on {one.requests} of the requests")

    with step("forget"):
        done = run(dataset, user, artifacts or [], runs, tell)
    if as_json:
        _print_json(done.as_json())
        return
    typer.echo(
        f"{done.dataset}: {done.rows} rows of {done.requests} requests removed; beside it "
        f"{done.quarantined} bad rows and {done.answers} replayed answers; "
        f"{len(done.saw)} artifacts saw them" + ": train again without them" * bool(done.saw)
    )


@app.command()
def label(
    traffic: Annotated[Path, typer.Argument(help="Traffic table, Parquet.", metavar="TRAFFIC")],
    out: Annotated[Path, typer.Option(help="Labelled traffic table to write.")],
    config: Annotated[Path | None, typer.Option(help="[label]: graders, weights; TOML.")] = None,
    tiers: Annotated[Path | None, typer.Option(help="Tiers, cheapest first; TOML.")] = None,
    verdicts: Annotated[
        list[Path] | None, typer.Option(help="More scores of these answers; repeatable.")
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Label answers by graders, feedback, verdicts or later moves.

    Example: suffice label traffic.parquet --out labelled.parquet --config label.toml
    """
    from training.config import read_config, read_tiers
    from training.label.labelling import label as run
    from training.label.plan import read_plan

    rule = read_config(config, {}).label
    plan = read_plan(config)
    order = read_tiers(tiers) if tiers else ()
    with step("label"):
        report = run(traffic, out, plan, rule.sufficed_at, order, verdicts or [])
    _tell_found(report, as_json)


@app.command()
def train(
    traffic: Traffic,
    tiers: Annotated[Path, typer.Option(help="Tiers and prices, TOML; see `suffice init`.")],
    out: Annotated[Path, typer.Option(help="Artifact folder to write.")],
    config: Annotated[Path | None, typer.Option(help="[label] and [policy], TOML.")] = None,
    seed: Annotated[int, typer.Option(help="Of splits, folds, trees.", min=0, max=2**31 - 1)] = 0,
    embedder: Annotated[
        str, typer.Option(help="static, minilm, a folder, or static+minilm.")
    ] = "static",
    split: Annotated[str, typer.Option(help="Fit/choose/test in percent.")] = "75/15/10",
    policy: Annotated[
        list[str] | None, typer.Option(help="NAME=VALUE, one goal, e.g. min_quality=0.98.")
    ] = None,
    finetune: Annotated[
        bool, typer.Option("--finetune", help="Also fine-tune a transformer on the log (minutes).")
    ] = False,
    max_minutes: Annotated[
        float | None, typer.Option(help="That fine-tuning may take.", min=0.1)
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
        raise BadInput("--max-minutes limits --finetune, which is not asked for")
    tuning = Tuning(max_minutes) if finetune else None
    done = run(traffic, named, out, settings, parts, seed, embedder, estimate_propensities, tuning)
    if as_json:
        result = {"artifact": str(done.out), "version": done.version, "run_id": done.run_id}
        result |= {"policy": done.policy.to_dict(), "summary": list(done.summary)}  # type: ignore[dict-item]
        _print_json(result | {"report": done.report.as_json() if done.report else None})
        return
    for line in done.summary:
        typer.echo(line)
    if done.report is not None:
        _show(done.report)
    typer.echo(f"artifact {done.out} ({done.version}); MLflow run {done.run_id} in {done.store}")


@app.command()
def policy(
    artifact: ArtifactPath,
    traffic: Traffic,
    set: Annotated[
        list[str], typer.Option(help="NAME=VALUE, e.g. max_bad_downgrade=0.02; repeatable.")
    ],
    out: Annotated[Path | None, typer.Option(help="New artifact; default: in place.")] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Choose another operating point on traffic not seen before.

    Nothing is trained; rows that the artifact was fitted or chosen on are left out.

    Goals: min_quality, max_bad_downgrade, max_cost_usd_per_1k, top_share, value_usd_per_point.

    Example: suffice policy artifacts/current --traffic recent.parquet --set max_bad_downgrade=0.02
    """
    from training.config import parse_values
    from training.decide.goals import parse_goal
    from training.resolve import resolve

    goal = parse_goal(parse_values(_pairs(set, "--set"), "--set"), "--set")
    _tell(resolve(artifact, traffic, goal, out or artifact), as_json)


@app.command()
def reprice(
    artifact: ArtifactPath,
    tiers: Annotated[Path, typer.Option(help="The same tiers at their new prices, TOML.")],
    out: Annotated[Path | None, typer.Option(help="New artifact; default: in place.")] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Choose the operating point again, at new prices.

    Example: suffice reprice artifacts/current --tiers tiers.toml --out artifacts/cheaper
    """
    from training.config import read_tiers
    from training.resolve import reprice as run

    _tell(run(artifact, read_tiers(tiers), out or artifact), as_json)


@app.command()
def score(
    artifact: ArtifactPath,
    traffic: Traffic,
    out: Annotated[Path, typer.Option(help="Parquet to write, one row per request.")],
    quiet: Quiet = False,
) -> None:
    """Score every request of a traffic table with an artifact.

    Example: suffice score artifacts/current --traffic traffic.parquet --out scores.parquet
    """
    from training.measure.evaluate import score as run

    with step("score"):
        rows = run(artifact, traffic, out)
    typer.echo(f"{out}: {rows} requests")


@app.command()
def evaluate(
    artifact: ArtifactPath,
    traffic: Traffic,
    json_path: Annotated[Path | None, typer.Option("--json", help="Report to write.")] = None,
    plots: Annotated[Path | None, typer.Option(help="Folder for the figures.")] = None,
    estimate_propensities: Estimated = False,
    quiet: Quiet = False,
) -> None:
    """Measure an artifact on labelled traffic it was not fitted on.

    Where every tier's score is known, by the whole report; on one-sided logs by the value of
    policies, from the logged propensities.

    Example: suffice evaluate artifacts/current --traffic recent.parquet --json report.json
    """
    from training.measure.evaluate import evaluate as run

    with step("evaluate"):
        report, left_out = run(artifact, traffic, json_path, plots, estimate_propensities)
    typer.echo(f"{report.rows} requests; {left_out} left out, the artifact was fitted on them")
    _show(report)
    for note in report.notes:
        typer.echo(note)


@app.command()
def report(
    artifact: ArtifactPath,
    traffic: Traffic,
    out: Annotated[Path, typer.Option(help="Page to write.")] = Path("report.html"),
    quiet: Quiet = False,
) -> None:
    """Write a page for people who decide: how much, how sure.

    One HTML file that needs no network. It holds logged prompts, behind a switch.

    Example: suffice report artifacts/current --traffic recent.parquet --out report.html
    """
    from training.show.page.html import report as run

    with step("report"):
        done = run(artifact, traffic, out)
    typer.echo(
        f"{out}: {done.rows} requests ({done.world}); {done.left_out} left out, the artifact was "
        f"fitted on them; MLflow run {done.run}"
    )


@app.command()
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

    decision = Router.load(artifact).route(*_request(prompt, messages))
    if as_json:
        _print_json({name: getattr(decision, name) for name in decision.__dataclass_fields__})
        return
    typer.echo(f"{decision.tier} ({decision.model}), {decision.reason}")
    for name, p in decision.p_suffices.items():
        usd = decision.expected_cost_usd[name]
        typer.echo(f"  {name}: suffices with probability {p:.3f}, costs about ${usd:.6f}")


@app.command()
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
    from training.show.explain import as_json as to_json
    from training.show.explain import explain as run
    from training.show.explain_words import lines

    found = run(artifact, *_request(prompt, messages))
    if as_json:
        _print_json(to_json(found))
        return
    for line in lines(found):
        typer.echo(line)


@app.command()
def inspect(
    path: Annotated[Path, typer.Argument(help="Artifact folder or traffic table.")],
    quiet: Quiet = False,
) -> None:
    """Say in words what is in an artifact or a traffic table.

    Example: suffice inspect artifacts/current
    """
    from training.show.inspect import describe

    for line in describe(path):
        typer.echo(line)


@app.command()
def init(
    traffic: Annotated[Path, typer.Argument(help="Traffic table, Parquet.", metavar="TRAFFIC")],
    out: Annotated[Path, typer.Option(help="Tiers file to write.")] = Path("tiers.toml"),
    quiet: Quiet = False,
) -> None:
    """Write a tiers file from the models and prices seen in a log.

    Example: suffice init traffic.parquet --out tiers.toml
    """
    from training.show.inspect import write_tiers

    for line in write_tiers(traffic, out):
        typer.echo(line)


@app.command()
def replay(
    traffic: TrafficFiles,
    tiers: Annotated[Path, typer.Option(help="Tiers and prices, TOML.")],
    out: Annotated[Path, typer.Option(help="Parquet to write; OUT.journal.jsonl is beside it.")],
    budget: Annotated[float | None, typer.Option(help="USD, over all runs with this OUT.")] = None,
    sample: Annotated[int | None, typer.Option(help="Requests; default all.", min=1)] = None,
    strategy: Annotated[str, typer.Option(help="random, stratified or informative.")] = "random",
    artifact: Annotated[Path | None, typer.Option(help="For --strategy informative.")] = None,
    base_url: BaseUrl = None,
    api_key_env: KeyVariable = None,
    concurrency: Concurrency = 8,
    timeout: Timeout = 120.0,
    max_output_tokens: MaxOutput = 4096,
    seed: Annotated[int, typer.Option(help="Of the sample.", min=0)] = 0,
    dry_run: DryRun = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Ask tiers that did not answer for their answers (extra: replay).

    Example: suffice replay traffic.parquet --tiers tiers.toml --out replayed.parquet --budget 5
    """
    from training.ask.replay import Upstream
    from training.ask.replay import replay as run
    from training.config import read_tiers

    upstream = Upstream(base_url, api_key_env, timeout, concurrency)
    with step("replay"):
        done = run(
            traffic,
            read_tiers(tiers),
            out,
            budget,
            sample=sample,
            strategy=strategy,
            artifact=artifact,
            upstream=upstream,
            max_output_tokens=max_output_tokens,
            seed=seed,
            dry_run=dry_run,
        )
    _tell_run(done, as_json)


@app.command()
def judge(
    traffic: TrafficFiles,
    model: Annotated[str, typer.Option(help="The judge: provider/model, or any at --base-url.")],
    out: Annotated[Path, typer.Option(help="Parquet to write; OUT.journal.jsonl is beside it.")],
    rubric: Annotated[Path | None, typer.Option(help="Your rubric, as text.")] = None,
    pairwise: Annotated[bool, typer.Option("--pairwise", help="Against the top tier.")] = False,
    tiers: Annotated[Path | None, typer.Option(help="Tiers, for --pairwise.")] = None,
    gold: Annotated[str | None, typer.Option(help="Column or file with people's scores.")] = None,
    budget: Annotated[float | None, typer.Option(help="USD, over all runs with this OUT.")] = None,
    price: Annotated[str | None, typer.Option(help="USD per million tokens, IN/OUT.")] = None,
    base_url: BaseUrl = None,
    api_key_env: KeyVariable = None,
    concurrency: Concurrency = 8,
    timeout: Timeout = 120.0,
    max_output_tokens: MaxOutput = 1024,
    dry_run: DryRun = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Let a model grade answers, alone or in pairs (extra: replay).

    Example: suffice judge traffic.parquet --model openai/gpt-4o --out judged.parquet --budget 5
    """
    from training.ask.judge import judge as run
    from training.ask.replay import Upstream
    from training.config import read_tiers

    with step("judge"):
        done = run(
            traffic,
            out,
            model,
            tiers=read_tiers(tiers) if tiers else None,
            rubric=rubric,
            pairwise=pairwise,
            gold=gold,
            budget=budget,
            price=_price(price) if price else None,
            upstream=Upstream(base_url, api_key_env, timeout, concurrency),
            max_output_tokens=max_output_tokens,
            dry_run=dry_run,
        )
    _tell_run(done, as_json)


@app.command()
def retrain(
    config: Annotated[Path, typer.Option(help="The job, TOML; see data/README.md.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done.")] = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train challengers; promote the best if it passes the gate.

    Exit codes: 0 promoted, nothing new, or the champion kept because equal; 1 refused.

    Example: suffice retrain --config retrain.toml
    """
    from training.retrain.job import REFUSED
    from training.retrain.job import retrain as run

    done = run(config, dry_run)
    if as_json:
        _print_json(done.as_json())
    else:
        typer.echo(done.status)
        for line in done.lines:
            typer.echo(line)
    if done.status == REFUSED:
        raise typer.Exit(1)


@app.command()
def backtest(
    config: Annotated[Path, typer.Option(help="The job, as of `suffice retrain`.")],
    every: Annotated[float, typer.Option(help="Days between retrainings.", min=0.01)] = 7.0,
    plot: Annotated[Path | None, typer.Option(help="PNG to write.")] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Replay a log: would retraining have paid?

    Example: suffice backtest --config retrain.toml --every 7 --plot backtest.png
    """
    from training.retrain.backtest import backtest as run

    found = run(config, every, plot)
    _tell_found(found, as_json)


@app.command()
def promote(
    version: Annotated[str, typer.Argument(help="Number or alias of a registered version.")],
    folder: Annotated[Path, typer.Option(help="Where the service reads the champion.")],
    model: Model = "suffice",
    quiet: Quiet = False,
) -> None:
    """Make a registered version the champion, by hand.

    Example: suffice promote 7 --folder artifacts/current
    """
    from training.retrain.serve import promote as run

    typer.echo(run(model, version, folder))


@app.command()
def rollback(
    folder: Annotated[Path, typer.Option(help="Where the service reads the champion.")],
    model: Model = "suffice",
    quiet: Quiet = False,
) -> None:
    """Give the champion's place back to the previous version.

    Example: suffice rollback --folder artifacts/current
    """
    from training.retrain.serve import rollback as run

    typer.echo(run(model, folder))


@app.command()
def compare(
    first: Annotated[str, typer.Argument(help="Folder, run, version or alias.", metavar="RUN")],
    second: Annotated[str, typer.Argument(help="The same.", metavar="RUN")],
    traffic: Traffic,
    model: Model = "suffice",
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Compare two routers on rows that neither knew, paired.

    Example: suffice compare champion challenger --traffic recent.parquet
    """
    from training.retrain.versus import compare as run

    with step("compare"):
        found = run(first, second, traffic, model)
    _tell_found(found, as_json)


@app.command()
def bench(
    traffic: Traffic,
    tiers: Annotated[Path, typer.Option(help="Tiers and prices, TOML.")],
    config: Annotated[Path | None, typer.Option(help="[label] and [policy], TOML.")] = None,
    seeds: Annotated[int, typer.Option(help="Splits, and fittings.", min=1, max=100)] = 3,
    split: Annotated[
        str, typer.Option(help="Fit/choose/test in percent; peers learn from the first two.")
    ] = "60/10/30",
    embedder: Annotated[
        str, typer.Option(help="static, minilm or a folder, for the peers and for Suffice.")
    ] = "static",
    out: Annotated[Path | None, typer.Option(help="Folder for the table and two figures.")] = None,
    json_path: Annotated[Path | None, typer.Option("--json", help="Report to write.")] = None,
    quiet: Quiet = False,
) -> None:
    """Compare with peers' methods on the same rows.

    Needs requests that every tier answered. Peers are tuned by cross-fitting on all training rows.

    Example: suffice bench --traffic traffic.parquet --tiers tiers.toml --out bench
    """
    from training.bench.bench import bench as run
    from training.config import read_config, read_tiers
    from training.learn.splits import parse_shares

    settings, named = read_config(config, {}), read_tiers(tiers)
    found = run(traffic, named, settings, parse_shares(split), seeds, embedder)
    if json_path is not None:
        from training.measure.report import save_json

        save_json(found, json_path)
    if out is not None:
        from training.bench.figures import write

        for path in write(found, out):
            say(str(path))
    for line in found.as_text():
        typer.echo(line)


@app.command()
def drift(
    reference: Annotated[Path, typer.Option(help="Artifact folder that serves.")],
    traffic: Traffic,
    out: Annotated[Path | None, typer.Option(help="HTML page to write.")] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Say whether recent traffic still is what was learned from.

    Exit codes: 0 nothing is due, 1 retraining is due.

    Example: suffice drift --reference artifacts/current --traffic recent.parquet --out drift.html
    """
    from training.watch.drift import drift as run

    with step("drift"):
        found = run(reference, traffic)
    if out is not None:
        from training.watch.page import write_page

        write_page(found, reference, traffic, out)
    _tell_found(found, as_json)
    if found.due:
        raise typer.Exit(1)


@app.command()
def monitor(
    artifact: ArtifactPath,
    traffic: Traffic,
    state: Annotated[Path, typer.Option(help="What it remembers between looks, JSON.")],
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Say whether live labels show the promise to be broken.

    Looked at daily for ever, it cries wolf with 5 % probability at most. Exit codes: 0, 1 alarm.

    Example: suffice monitor artifacts/current --traffic today.parquet --state monitor.json
    """
    from training.watch.monitor import monitor as run

    found = run(artifact, traffic, state)
    _tell_found(found, as_json)
    if found.alarm:
        raise typer.Exit(1)


@app.command()
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


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder to write.")] = Path("suffice-demo"),
    quiet: Quiet = False,
) -> None:
    """Everything above on the bundled sample, in a couple of minutes.

    Example: suffice demo
    """
    from training.demo import demo as run

    for line in run(out):
        typer.echo(line)


def main() -> None:
    """Run the command line; every error becomes a sentence and an exit code."""
    from router import ArtifactError

    try:
        app()
    except SufficeError as error:
        complain(f"error: {error}")
        sys.exit(error.exit_code)
    except ArtifactError as error:
        complain(f"error: {error}")
        sys.exit(2)
    except OSError as error:
        complain(f"error: {error}")
        sys.exit(3)
    except ModuleNotFoundError as error:
        complain(f"error: {error.name} is not installed; pip install 'suffice[train]'")
        sys.exit(3)


def _price(text: str) -> tuple[float, float]:
    """USD per million input and output tokens, from IN/OUT."""
    try:
        sent, got = (float(part) for part in text.split("/"))
    except ValueError:
        raise BadInput(f"--price {text}: expected IN/OUT, e.g. 2.5/10") from None
    if not (0 <= sent < 1e9 and 0 <= got < 1e9):
        raise BadInput(f"--price {text}: prices lie between 0 and 1e9")
    return sent, got


def _tell_run(done: Any, as_json: bool) -> None:
    """Print what a job that asks models did, then raise what kept it from its end, if anything."""
    if as_json:
        _print_json(done.as_json())
    else:
        for line in done.lines():
            typer.echo(line)
    if done.refusal is not None:
        raise done.refusal


def _show(report: Any) -> None:
    from training.show.tables import report_tables

    for table in report_tables(report):
        typer.echo(table)


def _tell(done: Any, as_json: bool) -> None:
    """What came of another operating point for an artifact."""
    if as_json:
        told = {"artifact": str(done.out), "version": done.version, "run_id": done.run_id}
        _print_json(told | {"policy": done.policy.to_dict(), "summary": list(done.summary)})
        return
    for line in done.summary:
        typer.echo(line)
    typer.echo(f"artifact {done.out} ({done.version}); MLflow run {done.run_id} in {done.store}")


def _pairs(items: list[str], option: str) -> dict[str, str]:
    pairs = dict(item.partition("=")[::2] for item in items)
    if any(not value for value in pairs.values()):
        raise BadInput(f"{option} {' '.join(items)}: expected NAME=VALUE")
    return pairs


def _request(prompt: str | None, messages: Path | None) -> tuple[Any, Any]:
    """What is to be decided, and the tools offered with it."""
    if prompt is not None and messages is None:
        return prompt, None
    if prompt is not None or messages is None:
        raise BadInput("give a prompt or --messages FILE.json, one of the two")
    from training.log.messages import read_request

    return read_request(messages)


def _tell_found(found: Any, as_json: bool) -> None:
    """Print what has `as_json` and `as_text`."""
    if as_json:
        _print_json(found.as_json())
        return
    for line in found.as_text():
        typer.echo(line)


def _print_json(value: Any) -> None:
    typer.echo(json.dumps(value, ensure_ascii=False, indent=2))


if __name__ == "__main__":
    main()
