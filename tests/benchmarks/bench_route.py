"""What a decision costs a service: the figures of the README, printed.

A router is trained once on the bundled sample, by the command line; one thread. Run with:
OMP_NUM_THREADS=1 pytest tests/benchmarks/bench_route.py -m benchmark -s
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from time import perf_counter

import numpy as np
import pytest

from router import Router

ROOT = Path(__file__).parents[2]
SAMPLE = ROOT / "data" / "sample"
ALONE = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
WORDS = """Explain in two sentences how the river changed the trade between both cities, which of
the merchants gained from it, and what the older maps show about the harbour before the great flood.
Then compare that account with the letters of 1862: do they agree on the price of grain? """
FIRST_DECISION = """
import json, sys
from time import perf_counter
started = perf_counter()
from router import Router
imported = perf_counter()
router = Router.load(sys.argv[1])
loaded = perf_counter()
reason = router.route("What is the capital of France?").reason
done = perf_counter()
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
memory = [int(status[name].split()[0]) / 1024 for name in ("VmRSS", "VmHWM")]
print(json.dumps([reason, imported - started, loaded - imported, done - loaded, *memory]))
"""


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The artifact of the sample."""
    folder = tmp_path_factory.mktemp("sample")
    environment = ALONE | {"MLFLOW_TRACKING_URI": f"sqlite:///{folder / 'mlflow.db'}"}
    traffic, artifact = folder / "traffic.parquet", folder / "artifact"
    ingest = ["ingest", SAMPLE / "log.jsonl", "--format", "table", "--out", traffic]
    train = ["train", "--traffic", traffic, "--tiers", SAMPLE / "tiers.toml", "--out", artifact]
    for command in (ingest, [*train, "--config", SAMPLE / "train.toml"]):
        call = [sys.executable, "-c", "from training.cli import main; main()", *map(str, command)]
        subprocess.run(call, check=True, env=environment, cwd=folder, stdout=subprocess.DEVNULL)
    return artifact


def percentiles(call: Callable[[], object], times: int) -> tuple[float, float]:
    """p50 and p99 of a call, milliseconds."""
    spent = np.empty(times)
    for i in range(times):
        started = perf_counter()
        call()
        spent[i] = perf_counter() - started
    p50, p99 = np.percentile(spent, [50, 99]) * 1e3
    return float(p50), float(p99)


def prompt_of(router: Router, tokens: int) -> str:
    """A text of about `tokens` tokens."""
    words = (WORDS * 8).split()
    tokenize = router.artifact.predictor.vectorizer.embedder.tokenize
    count = next(n for n in range(1, len(words)) if len(tokenize(" ".join(words[:n]))) >= tokens)
    return " ".join(words[:count])


@pytest.mark.benchmark
def test_latency(trained: Path) -> None:
    router = Router.load(trained)
    tokenize = router.artifact.predictor.vectorizer.embedder.tokenize
    print("\nroute(), ms (limit at 110 tokens: p50 0.5, p99 2) | tokenizing alone, ms")
    for tokens in (20, 110, 220):
        text = prompt_of(router, tokens)
        assert router.route(text).reason == "policy"
        percentiles(lambda text=text: router.route(text), 300)  # type: ignore[misc]
        p50, p99 = percentiles(lambda text=text: router.route(text), 4000)  # type: ignore[misc]
        alone, _ = percentiles(lambda text=text: tokenize(text), 2000)  # type: ignore[misc]
        print(f"{tokens:4} tokens: p50 {p50:.3f}, p99 {p99:.3f} | p50 {alone:.3f}")


@pytest.mark.benchmark
def test_a_huge_prompt(trained: Path) -> None:
    router = Router.load(trained)
    print("\nroute() of 300,000 characters, ms")
    prompts = {"words": "word " * 60_000, "one word": "x" * 300_000, "Chinese": "中" * 300_000}
    for name, text in prompts.items():
        assert router.route(text).reason == "policy"
        p50, p99 = percentiles(lambda text=text: router.route(text), 200)  # type: ignore[misc]
        print(f"{name:>8}: p50 {p50:.3f}, p99 {p99:.3f}")


@pytest.mark.benchmark
@pytest.mark.skipif(sys.platform != "linux", reason="reads memory from /proc")
def test_first_decision(trained: Path) -> None:
    runs = []
    for _ in range(7):
        call = [sys.executable, "-c", FIRST_DECISION, str(trained)]
        done = subprocess.run(call, check=True, capture_output=True, text=True, env=ALONE, cwd=ROOT)
        reason, *figures = json.loads(done.stdout)
        assert reason == "policy"
        runs.append(figures)
    imported, loaded, first, now, peak = np.median(runs[1:], axis=0)  # the first warms the disk
    total = imported + loaded + first
    print(
        f"\nimport {imported:.3f} s + load {loaded:.3f} s + first decision {first:.3f} s = "
        f"{total:.3f} s (limit 0.6); memory {now:.0f} MB, at its peak {peak:.0f} MB (limit 120)"
    )
