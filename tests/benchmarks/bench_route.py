"""What a decision costs a service: the figures of the README, printed.

A router is trained once on the bundled sample, by the command line; one thread. Run with:
OMP_NUM_THREADS=1 pytest tests/benchmarks/bench_route.py -m benchmark -s
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from itertools import repeat
from pathlib import Path
from time import perf_counter

import numpy as np
import pytest
from tokenizers import Tokenizer

from router import Router
from router.onnx_embedder import OnnxEmbedder
from tests.builders import make_artifact
from training.learn.embedders import resolve_embedder
from training.learn.memory import Remembering

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


def fresh_prompts(tokens: int, count: int) -> list[str]:
    """Different prompts of about `tokens` tokens; a word in thirty was never seen before."""
    rng = np.random.default_rng(0)
    words = np.array(sorted(set(WORDS.split())))
    texts = []
    for _ in range(count):
        picked = rng.choice(words, max(tokens * 4 // 5, 1)).tolist()
        for place in np.flatnonzero(rng.random(len(picked)) < 1 / 30):
            picked[place] = f"{picked[place]}{int(rng.integers(1e6))}"
        texts.append(" ".join(picked))
    return texts


@pytest.mark.benchmark
def test_latency(trained: Path) -> None:
    router = Router.load(trained)
    whole = Tokenizer.from_file(str(trained / "embedder" / "tokenizer.json"))
    print("\nroute(), ms: one prompt again and again / every prompt new | the tokenizer alone")
    for tokens, limit in ((20, 0.15), (110, 0.35), (220, 0.60)):
        text, fresh = prompt_of(router, tokens), fresh_prompts(tokens, 4300)
        assert router.route(text).reason == "policy"
        found = []
        for prompts in (repeat(text), iter(fresh)):
            call = partial(lambda prompts: router.route(next(prompts)), prompts)
            percentiles(call, 300)
            found.append("p50 {:.3f}, p99 {:.3f}".format(*percentiles(call, 4000)))
        alone, _ = percentiles(lambda text=text: whole.encode(text), 2000)  # type: ignore[misc]
        print(f"{tokens:4} tokens: {' / '.join(found)} | p50 {alone:.3f} (limit p50 {limit:.2f})")


@pytest.mark.benchmark
def test_a_batch(trained: Path) -> None:
    router = Router.load(trained)
    prompts = fresh_prompts(110, 10_000)
    counted = np.mean(
        [router.artifact.predictor.vectorizer.embedder.tokenize(p).size for p in prompts]
    )
    started = perf_counter()
    decisions = router.route_batch(prompts)
    rate = len(prompts) / (perf_counter() - started)
    assert all(decision.reason == "policy" for decision in decisions)
    print(f"\nroute_batch, new prompts of {counted:.0f} tokens: {rate:.0f} a second (limit 3,500)")


@pytest.mark.benchmark
def test_a_huge_prompt(trained: Path, tmp_path: Path) -> None:
    """By the rule that no other window is wide enough, and by the model where no rule asks."""
    (tmp_path / "rules.toml").write_text("[rules]\ncontext_window = false\n")
    held, free = Router.load(trained), Router.load(trained, rules=tmp_path / "rules.toml")
    print("\nroute() of 300,000 characters, ms (limit 2), by the rule / by the model")
    prompts = {"words": "word " * 60_000, "one word": "x" * 300_000, "Chinese": "中" * 300_000}
    prompts |= {"lines": "1) a\n" * 60_000, "emoji": "😀é " * 100_000}
    for name, text in prompts.items():
        told = []
        for router, reason in ((held, "rule:context_window"), (free, "policy")):
            assert router.route(text).reason == reason
            p50, p99 = percentiles(partial(router.route, text), 200)
            told.append(f"p50 {p50:.3f}, p99 {p99:.3f}")
        print(f"{name:>8}: {' / '.join(told)}")


def first_decision(artifact: Path) -> list[float]:
    """Seconds to import, load and decide, then memory now and at its peak, MB."""
    call = [sys.executable, "-c", FIRST_DECISION, str(artifact)]
    done = subprocess.run(call, check=True, capture_output=True, text=True, env=ALONE, cwd=ROOT)
    reason, *figures = json.loads(done.stdout)
    assert reason == "policy"
    return [float(figure) for figure in figures]


@pytest.mark.benchmark
@pytest.mark.skipif(sys.platform != "linux", reason="reads memory from /proc")
def test_first_decision(trained: Path) -> None:
    runs = [first_decision(trained) for _ in range(7)][1:]  # the first warms the disk
    imported, loaded, first, now, peak = np.median(runs, axis=0)
    total = imported + loaded + first
    print(
        f"\nimport {imported:.3f} s + load {loaded:.3f} s + first decision {first:.3f} s = "
        f"{total:.3f} s (limit 0.35); memory {now:.0f} MB, at its peak {peak:.0f} MB (limit 90)"
    )


@pytest.mark.benchmark
def test_a_transformer(tmp_path: Path) -> None:
    """MiniLM's route() beside what onnxruntime itself takes for the same tokens."""
    minilm = resolve_embedder("minilm")
    assert isinstance(minilm, Remembering)
    artifact = make_artifact(tmp_path / "artifact", embedder=minilm.embedder)
    router = Router.load(artifact)
    embedder = router.artifact.predictor.vectorizer.embedder
    assert isinstance(embedder, OnnxEmbedder)
    size = sum(file.stat().st_size for file in artifact.rglob("*") if file.is_file()) / 2**20
    print(f"\nMiniLM int8 ({size:.0f} MB), route(), ms (limit at 110: 9) | onnxruntime alone")
    for tokens in (20, 110, 218):
        text = prompt_of(router, tokens)
        framed = embedder.framed(embedder.tokenize(text))
        calls = {
            "route": partial(router.route, text),
            "alone": partial(embedder._session.run, None, {"input_ids": framed}),
        }
        spent = {name: np.empty(300) for name in calls}
        for i in range(310):  # in turns, so that the machine's moods meet both
            for name, call in calls.items():
                started = perf_counter()
                call()
                spent[name][max(i - 10, 0)] = (perf_counter() - started) * 1e3
        p50, alone = (float(np.median(times)) for times in spent.values())
        p99 = float(np.percentile(spent["route"], 99))
        print(f"{tokens:4} tokens: p50 {p50:.2f}, p99 {p99:.2f} | {alone:.2f}: × {p50 / alone:.3f}")
    runs = [first_decision(artifact) for _ in range(4)][1:]
    imported, loaded, first, now, peak = np.median(runs, axis=0)
    total = imported + loaded + first
    print(f"import + load + first decision {total:.2f} s; memory {now:.0f} MB, peak {peak:.0f} MB")
