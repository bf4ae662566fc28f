"""Labels, and the answers that models are asked for where the log has none."""

from pathlib import Path
from typing import Annotated, Any

import typer

from training.commands.options import Json, Quiet
from training.commands.output import tell_found
from training.console import step
from training.errors import BadInput

TrafficFiles = Annotated[
    list[Path], typer.Argument(help="Traffic tables, Parquet, read as one.", metavar="TRAFFIC...")
]
BaseUrl = Annotated[
    str | None,
    typer.Option(help="OpenAI-compatible server to call; default: the providers, by LiteLLM."),
]
KeyVariable = Annotated[
    str | None,
    typer.Option(help="Environment variable with the API key for --base-url.", metavar="NAME"),
]
Concurrency = Annotated[int, typer.Option(help="Calls in flight at a time.", min=1, max=1000)]
Timeout = Annotated[float, typer.Option(help="Seconds that one attempt may take.", min=0.1)]
MaxOutput = Annotated[int, typer.Option(help="Longest answer, in tokens.", min=1)]
Budget = Annotated[
    float | None, typer.Option(help="USD to spend at most, over all runs with this OUT.")
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Make no calls; print their number and estimated price.")
]


def label(
    traffic: Annotated[Path, typer.Argument(help="Traffic table, Parquet.", metavar="TRAFFIC")],
    out: Annotated[Path, typer.Option(help="Labelled traffic table to write.")],
    config: Annotated[
        Path | None, typer.Option(help="TOML file with [label]: graders and weights.")
    ] = None,
    tiers: Annotated[
        Path | None, typer.Option(help="Tiers file, TOML: says which tier is higher.")
    ] = None,
    verdicts: Annotated[
        list[Path] | None, typer.Option(help="Table with more scores of these answers; repeatable.")
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Label answers by graders, feedback, verdicts and user behaviour.

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
    tell_found(report, as_json)


def replay(
    traffic: TrafficFiles,
    tiers: Annotated[Path, typer.Option(help="Tiers and prices, TOML.")],
    out: Annotated[Path, typer.Option(help="Parquet to write; OUT.journal.jsonl is beside it.")],
    budget: Budget = None,
    sample: Annotated[
        int | None, typer.Option(help="How many requests to replay; default: all.", min=1)
    ] = None,
    strategy: Annotated[
        str, typer.Option(help="How to sample: random, stratified or informative.")
    ] = "random",
    artifact: Annotated[
        Path | None, typer.Option(help="Artifact folder, for --strategy informative.")
    ] = None,
    base_url: BaseUrl = None,
    api_key_env: KeyVariable = None,
    concurrency: Concurrency = 8,
    timeout: Timeout = 120.0,
    max_output_tokens: MaxOutput = 4096,
    seed: Annotated[int, typer.Option(help="Seed of the sample.", min=0)] = 0,
    dry_run: DryRun = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Send requests to tiers that did not answer them (extra: replay).

    Example: suffice replay traffic.parquet --tiers tiers.toml --out replayed.parquet --budget 5
    """
    from training.ask.client import Upstream
    from training.ask.replay import replay as run
    from training.ask.sampling import Sampling
    from training.config import read_tiers

    _check_budget(budget)
    upstream = Upstream(base_url, api_key_env, timeout, concurrency)
    with step("replay"):
        done = run(
            traffic,
            read_tiers(tiers),
            out,
            budget,
            sampling=Sampling(sample, strategy, artifact, seed),
            upstream=upstream,
            max_output_tokens=max_output_tokens,
            dry_run=dry_run,
        )
    _tell_run(done, as_json)


def judge(
    traffic: TrafficFiles,
    model: Annotated[
        str, typer.Option(help="The judge: provider/model, or a model name at --base-url.")
    ],
    out: Annotated[Path, typer.Option(help="Parquet to write; OUT.journal.jsonl is beside it.")],
    rubric: Annotated[Path | None, typer.Option(help="Text file with your rubric.")] = None,
    pairwise: Annotated[
        bool, typer.Option("--pairwise", help="Compare each answer with the top tier's.")
    ] = False,
    tiers: Annotated[Path | None, typer.Option(help="Tiers file, for --pairwise.")] = None,
    gold: Annotated[
        str | None, typer.Option(help="Column or file of scores to check the judge against.")
    ] = None,
    budget: Budget = None,
    price: Annotated[
        str | None, typer.Option(help="The judge's price, USD per million tokens, IN/OUT.")
    ] = None,
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
    from training.ask.client import Upstream
    from training.ask.judge import judge as run
    from training.config import read_tiers

    _check_budget(budget)
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


def _check_budget(usd: float | None) -> None:
    if usd is not None and not 0 <= usd < 1e9:  # of NaN everything else would be cheaper
        raise BadInput(f"--budget {usd:g}: dollars between 0 and 1e9")


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
    """Print what a job that asks models did; then raise why it did not finish, if so."""
    tell_found(done, as_json)
    if done.refusal is not None:
        raise done.refusal
