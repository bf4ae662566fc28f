"""How long a retraining job of eight challengers takes on MMLU, and one that finds nothing new.

Run with: pytest tests/benchmarks/bench_retrain.py -m benchmark -s
"""

from pathlib import Path

import pytest

from tests.benchmarks import outcomes
from tests.benchmarks.command import suffice

pytestmark = pytest.mark.benchmark
JOB = """
[data]
traffic = "t.parquet"
tiers = "tiers.toml"
[train]
challengers = 8
[policy]
min_quality = 0.97
[serve]
folder = "current"
"""


def test_eight_challengers_on_mmlu(shared_data: Path, tmp_path: Path) -> None:
    outcomes.routellm(shared_data / "routellm" / "mmlu", tmp_path / "t.parquet")
    outcomes.write_tiers(("small", "large"), tmp_path / "tiers.toml")
    (tmp_path / "retrain.toml").write_text(JOB, encoding="utf-8")
    for name, limit in (("14,042 rows, 8 challengers", 360), ("nothing new", 10)):
        done, took = suffice("retrain", "--config", "retrain.toml", folder=tmp_path)
        print(f"\n{name}: {took:.1f} s (limit {limit}), exit {done.returncode}\n{done.stdout}")
        assert done.returncode in (0, 1), done.stderr
