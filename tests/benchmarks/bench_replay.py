"""Replay: how near to the ideal time it comes where an upstream fails as real ones do.

python -m pytest tests/benchmarks/bench_replay.py -m benchmark -s
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.stub_upstream import stub
from tests.traffic_makers import make_rows, write_log, write_tiers
from training.log.traffic import read_traffic

PROMPTS, LATENCY, ERRORS, CONCURRENCY = 1000, 0.05, 0.05, 8
TIMEOUT = 0.5  # seconds that a call which hangs holds its place
ONE_RUN = """
import json, sys, time
from pathlib import Path
from training.ask import asking
from training.ask.replay import replay
from training.ask.client import Upstream
from training.config import read_tiers
ask_all = asking.ask_all
told = {}
async def timed(*arguments):
    wall, cpu = time.perf_counter(), time.process_time()
    done = await ask_all(*arguments)
    told.update(wall=time.perf_counter() - wall, cpu=time.process_time() - cpu)
    return done
asking.ask_all = timed
folder, url, timeout = Path(sys.argv[1]), sys.argv[2], float(sys.argv[3])
started = time.perf_counter()
replay([folder / "log.parquet"], read_tiers(folder / "tiers.toml"), folder / "new.parquet", 100.0,
    upstream=Upstream(url, None, timeout, 8))
print(json.dumps(told | {"whole": time.perf_counter() - started}))
"""


@pytest.mark.benchmark
def test_a_thousand_prompts_with_five_percent_of_errors(tmp_path: Path) -> None:
    """Ideal: every prompt answered at once, eight at a time."""
    write_tiers(tmp_path)
    write_log(tmp_path / "log.parquet", [r for r in make_rows(PROMPTS) if r["tier"] == "small"])
    with stub(LATENCY, ERRORS) as upstream:
        command = [sys.executable, "-c", ONE_RUN, str(tmp_path), upstream.url, str(TIMEOUT)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        counts = upstream.counts()
    told = json.loads(done.stdout.splitlines()[-1])
    ideal = PROMPTS * LATENCY / CONCURRENCY
    took = told["wall"]
    frame = read_traffic(tmp_path / "new.parquet").frame
    print(
        f"\n{len(frame)} answered, faults {counts['faults']}: "
        f"{took:.2f} s asking, {took / ideal:.2f} × the ideal {ideal:.2f} s (processor "
        f"{told['cpu']:.2f} s; with reading and writing {told['whole']:.2f} s)"
    )
    assert len(frame) == PROMPTS
    assert set(frame["status"]) == {"ok"}
    assert took <= 1.5 * ideal
