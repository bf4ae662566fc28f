"""How long it takes to replay twelve months of a log, 1,000 requests each, by retraining interval.

Run with: pytest tests/benchmarks/bench_backtest.py -m benchmark -s
"""

from pathlib import Path

import pandas as pd
import pytest

from tests.benchmarks.command import suffice
from tests.test_retrain import write_job
from tests.traffic_makers import make_rows, write_log, write_tiers

pytestmark = pytest.mark.benchmark
MONTHS, A_MONTH, LIMIT = 12, 1000, 180


@pytest.mark.parametrize("every", [30, 7])
def test_twelve_months(every: int, tmp_path: Path) -> None:
    rows = pd.DataFrame(make_rows(MONTHS * A_MONTH))
    number = rows["request_id"].str[1:].astype(int)
    start = pd.Timestamp("2026-01-01T00:00:00Z")
    rows["at"] = start + pd.to_timedelta(number * 30 / A_MONTH, unit="D")
    write_log(tmp_path / "log.parquet", rows)
    write_tiers(tmp_path)
    write_job(tmp_path)
    words = ("backtest", "--config", "retrain.toml", "--every", every)
    done, took = suffice(*words, folder=tmp_path)
    told = f"{MONTHS} months, {len(rows)} rows, every {every} days: {took:.0f} s (limit {LIMIT})"
    print(f"\n{told}\n{done.stdout}")
    assert done.returncode == 0, done.stderr
