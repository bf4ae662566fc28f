"""300 requests and 300,000: do the heads come out near their best single member, and at what price.

No public log is that large, so one is made: MMLU's questions with the options of other questions of
the subject, and outcomes drawn from probabilities that a router trained on MMLU states of them,
their log-odds stretched. So the true gain of each prompt is known, and no draw of test outcomes
blurs the comparison. Each log is ingested and trained on as a user would, with a share of its
requests; 4,000 prompts that are in none of them measure it.
Run with: pytest tests/benchmarks/bench_scale.py -m benchmark -s
"""

import json
import resource
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from scipy.special import expit, logit

from router import Router
from router.artifact import load_artifact
from router.predictor import Predictor
from router.prompt import Prompt
from tests.benchmarks import outcomes
from tests.benchmarks.bench_quality import job
from tests.benchmarks.command import suffice
from training.measure.curve import order_walk
from training.measure.intervals import values
from training.measure.metrics import curve_metrics

pytestmark = pytest.mark.benchmark
NAMES = ("small", "large")
SIZES = {300: 8, 3_000: 3, 30_000: 1, 300_000: 1}  # requests: how many logs of that size
FRESH = 4_000
STRETCH = 1.5

Floats = NDArray[np.float64]


def prompts_of(frame: pd.DataFrame, count: int) -> tuple[list[str], list[str]]:
    """Different texts, and the subject of each."""
    frame = frame.drop_duplicates("request_id")
    texts = [json.loads(messages)[0]["content"] for messages in frame["messages"]]
    halves = [text.partition("\nA. ")[::2] for text in texts]
    subject = frame["source"].to_numpy()
    alike = {name: np.flatnonzero(subject == name) for name in set(subject)}
    rng, made = np.random.default_rng(0), dict[str, str]()
    while len(made) < count:
        row = int(rng.integers(len(texts)))
        other = int(rng.choice(alike[subject[row]]))
        made[f"{halves[row][0]}\nA. {halves[other][1]}"] = subject[row]
    return list(made), list(made.values())


def chances(frame: pd.DataFrame, folder: Path, prompts: list[str]) -> Floats:
    """P(tier suffices) in this world, float64[n, 2]."""
    division = outcomes.split_requests(frame, 0.7, 0)
    job(*division, NAMES, 0, folder / "teacher")
    teacher = Router.load(folder / "teacher" / "artifact-0")
    p = [[found.p_suffices[name] for name in NAMES] for found in teacher.route_batch(prompts)]
    margin = logit(np.array(p))
    mean = margin.mean(axis=0)
    return np.asarray(expit(mean + STRETCH * (margin - mean)))


def write_log(path: Path, prompts: list[str], subjects: list[str], p: Floats, seed: int) -> None:
    """JSON lines, each request answered by both tiers."""
    score = np.random.default_rng(seed).random(p.shape) < p
    start = np.datetime64("2026-01-01T00:00:00")
    with path.open("w", encoding="utf-8") as out:
        for row, (text, subject) in enumerate(zip(prompts, subjects, strict=True)):
            for k, name in enumerate(NAMES):
                line = {
                    "request_id": f"r{row}",
                    "at": f"{start + 50 * row}Z",
                    "messages": [{"role": "user", "content": text}],
                    "tier": name,
                    "source": subject,
                    "score": int(score[row, k]),
                }
                out.write(json.dumps(line) + "\n")


def members(predictor: Predictor, prompts: list[str]) -> dict[str, Floats]:
    """P of the heads, and of each member alone, float64[n, 2] each."""
    panel, found = predictor.panel, dict[str, list[list[float]]]()
    assert panel is not None
    for text in prompts:
        vector = predictor.vectorizer.vector(Prompt.of(text))
        said = {
            "heads": logit(predictor.probabilities(vector)).tolist(),
            "linear": panel.linear_margins(vector),
            "forest": panel.forest_margins(vector.dense),
            "neighbours": predictor.neighbours.margins(vector.dense),
        }
        for name, margins in said.items():
            found.setdefault(name, []).append(margins)
    return {name: expit(np.array(margins)) for name, margins in found.items()}


def apgr(gain: Floats, p: Floats) -> float:
    """Of an order, by the true probabilities."""
    metrics = curve_metrics(order_walk(gain), p, np.ones_like(p) * [1.0, 2.0])
    return float(values(metrics, len(p))["apgr"])


@pytest.mark.parametrize("size", SIZES)
def test_heads_and_members(size: int, shared_data: Path, tmp_path: Path) -> None:
    draws = SIZES[size]
    frame = outcomes.routellm(shared_data / "routellm" / "mmlu", tmp_path / "mmlu.parquet")
    prompts, subjects = prompts_of(frame, size * draws + FRESH)
    p = chances(frame, tmp_path, prompts)
    tiers = outcomes.write_tiers(NAMES, tmp_path / "tiers.toml")
    found: dict[str, list[float]] = {}
    took = 0.0
    for draw in range(draws):
        part = slice(FRESH + draw * size, FRESH + (draw + 1) * size)
        log, table, out = (tmp_path / name for name in ("log.jsonl", "t.parquet", "artifact"))
        write_log(log, prompts[part], subjects[part], p[part], draw)
        table.unlink(missing_ok=True)
        for arguments in (
            ("ingest", log, "--format", "table", "--out", table),
            ("train", "--traffic", table, "--tiers", tiers, "--out", out),
        ):
            done, seconds = suffice(*arguments, folder=tmp_path)
            assert done.returncode == 0, done.stderr
            took += seconds
        for name, said in members(load_artifact(out).predictor, prompts[:FRESH]).items():
            found.setdefault(name, []).append(apgr(said[:, 1] - said[:, 0], p[:FRESH]))
    best = apgr(p[:FRESH, 1] - p[:FRESH, 0], p[:FRESH])
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
    job_took = f"ingest and train {took / draws:.0f} s, at most {peak:.1f} GiB"
    print(f"\n{size:,} requests ({draws} logs): {job_took}")
    means = {name: float(np.mean(each)) for name, each in found.items()}
    print("  APGR: " + ", ".join(f"{name} {mean:.4f}" for name, mean in means.items()))
    print(f"  the true gains' own order {best:.4f}")
    assert means["heads"] > max(means.values()) - 0.01
