"""The whole main job on the bundled sample."""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import pandas as pd

from router import Router
from router.tier import Tier
from training.config import Config, read_config, read_tiers
from training.console import step
from training.errors import EnvironmentProblem
from training.evaluate import evaluate, score
from training.files import check_folder
from training.learn.splits import parse_shares
from training.log.ingest import ingest
from training.log.traffic import read_traffic
from training.tracking import look
from training.train import train

SEED = 0
SPLIT = "60/20/20"


@dataclass(frozen=True, slots=True)
class BundledSample:
    """The bundled sample, ready to be trained on: its traffic table, tiers and configuration."""

    traffic: Path
    tiers: tuple[Tier, ...]
    config: Config


def sample_folder() -> Path:
    """The bundled sample: in an installed package beside the code, in a checkout under data/.

    Raises:
        EnvironmentProblem: neither is there.
    """
    installed = Path(str(files("training"))) / "sample"
    for folder in (installed, installed.parents[1] / "data" / "sample"):
        if (folder / "log.jsonl").is_file():
            return folder
    raise EnvironmentProblem("the bundled sample is missing; install suffice again")


def ingest_sample(out: Path) -> BundledSample:
    """Ingest the bundled sample into the folder `out`."""
    sample = sample_folder()
    check_folder(out)
    out.mkdir(parents=True, exist_ok=True)
    traffic = out / "traffic.parquet"
    with step("ingest the sample"):
        ingest([sample / "log.jsonl"], traffic, "table")
    config = read_config(sample / "train.toml", {})
    return BundledSample(traffic, read_tiers(sample / "tiers.toml"), config)


def demo(out: Path) -> Iterator[str]:
    """Ingest, train, score, evaluate and route on the bundled sample, into the folder `out`.

    MLflow's store is there, too, unless MLFLOW_TRACKING_URI names another.
    """
    sample = ingest_sample(out)
    if not os.environ.get("MLFLOW_TRACKING_URI"):
        os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{out / 'mlflow.db'}"
    traffic, artifact = sample.traffic, out / "artifact"
    trained = train(
        traffic, sample.tiers, artifact, sample.config, parse_shares(SPLIT), SEED, "static"
    )
    yield from trained.summary
    with step("score"):
        score(artifact, traffic, out / "scores.parquet")
    report, _ = evaluate(artifact, traffic, out / "report.json", out / "plots")
    from training.show.answer import answer_lines
    from training.show.tables import report_tables

    yield from answer_lines(report)
    yield from report_tables(report)
    router = Router.load(artifact)
    for prompt in examples(traffic, out / "scores.parquet"):
        decision = router.route(prompt)
        chances = ", ".join(f"{name} {p:.2f}" for name, p in decision.p_suffices.items())
        yield f"route {prompt!r}: {decision.tier} ({chances}; {decision.latency_us:.0f} µs)"
    yield look(trained.run_id, trained.store)
    for path in ("traffic.parquet", "artifact", "scores.parquet", "report.json", "plots"):
        yield str(out / path)


def examples(traffic: Path, scores: Path) -> list[str]:
    """Of each tier that was chosen, the shortest prompt among the newest fifth of the requests.

    The router was not fitted on those. Only requests of one message can be shown as one line.
    """
    frame = read_traffic(traffic).frame.sort_values("at")
    newest = frame.tail(len(frame) // 5)
    chats = [json.loads(text) for text in newest["messages"]]
    prompts = [chat[0]["content"] if len(chat) == 1 else None for chat in chats]
    asked = pd.DataFrame({"request_id": newest["request_id"], "prompt": prompts}).dropna()
    by_length = asked.sort_values("prompt", key=lambda prompt: prompt.str.len(), kind="stable")
    chosen = by_length.merge(pd.read_parquet(scores)[["request_id", "tier"]], on="request_id")
    return list(chosen.drop_duplicates("tier")["prompt"])
