"""The whole main job on the bundled sample."""

from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

from router import Router
from training.config import read_config, read_tiers
from training.console import step
from training.errors import EnvironmentProblem
from training.evaluate import evaluate, score
from training.ingest import ingest
from training.splits import parse_shares
from training.train import train

SEED = 0


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


def demo(out: Path) -> Iterator[str]:
    """Ingest, train, score, evaluate and route on the bundled sample, into the folder `out`."""
    sample = sample_folder()
    out.mkdir(parents=True, exist_ok=True)
    traffic, artifact = out / "traffic.parquet", out / "artifact"
    with step("ingest the sample"):
        ingest([sample / "log.jsonl"], traffic, "table")
    trained = train(
        traffic,
        read_tiers(sample / "tiers.toml"),
        artifact,
        read_config(sample / "train.toml", {}),
        parse_shares("60/20/20"),
        SEED,
        "static",
    )
    yield from trained.summary
    with step("score"):
        score(artifact, traffic, out / "scores.parquet")
    with step("evaluate"):
        report, _ = evaluate(artifact, traffic, out / "report.json", out / "plots")
    from training.tables import report_tables

    yield from report_tables(report)
    router = Router.load(artifact)
    for prompt in ("What is the capital of Italy?", "What is 47 times 86?"):
        decision = router.route(prompt)
        chances = ", ".join(f"{name} {p:.2f}" for name, p in decision.p_suffices.items())
        yield f"route {prompt!r}: {decision.tier} ({chances}; {decision.latency_us:.0f} µs)"
    yield f"MLflow run {trained.run_id} in {trained.store}"
    for path in ("traffic.parquet", "artifact", "scores.parquet", "report.json", "plots"):
        yield str(out / path)
