"""A year of daily looks at the promise: false alarms, and how soon a doubled rate is found.

Run with: pytest tests/benchmarks/bench_monitor.py -m benchmark -s
"""

import numpy as np
import pytest

from tests.test_monitor import A_DAY, RATE, days_until_alarm

pytestmark = pytest.mark.benchmark


def test_a_year() -> None:
    rng = np.random.default_rng(0)
    false = sum(days_until_alarm(RATE, 365, rng) is not None for _ in range(1000))
    print(f"\n1,000 years of daily looks, {A_DAY} labels a day, at the promised rate {RATE:.0%}:")
    print(f"  false alarms {false / 1000:.1%} (asked: at most 5 %)")
    found = np.array([days_until_alarm(2 * RATE, 365, rng) or 366 for _ in range(1000)])
    print(f"  a doubled rate is found in a median of {np.median(found):.0f} days (asked: 14),")
    print(f"  95 % of them in {np.quantile(found, 0.95):.0f}")
