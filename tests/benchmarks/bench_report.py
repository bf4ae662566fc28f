"""The report page of 14,042 requests: its size, and how long a browser takes to open it.

Run with: pytest tests/benchmarks/bench_report.py -m benchmark -s
"""

import shutil
from pathlib import Path

import pytest

from tests.benchmarks import outcomes
from training.config import Config, read_tiers
from training.decide.goals import MinQuality
from training.label.rule import LabelRule
from training.report_page import report
from training.train import train

pytestmark = pytest.mark.benchmark
MOST_BYTES, MOST_SECONDS = 8_000_000, 2.0


def test_all_of_mmlu(shared_data: Path, tmp_path: Path) -> None:
    """Trained on 1,500 rows under other ids, so that the page is about every row of the log."""
    webdriver = pytest.importorskip("selenium.webdriver")
    browser, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not (browser and driver):
        pytest.skip("no chromium and chromedriver on this machine")
    frame = outcomes.routellm(shared_data / "routellm" / "mmlu", tmp_path / "all.parquet")
    some, _ = outcomes.split_requests(frame, 1500, 0)
    some.assign(request_id="fit " + some["request_id"]).to_parquet(tmp_path / "some.parquet")
    tiers = read_tiers(outcomes.write_tiers(("small", "large"), tmp_path / "tiers.toml"))
    config = Config(LabelRule(), MinQuality(0.9))
    artifact = tmp_path / "artifact"
    train(tmp_path / "some.parquet", tiers, artifact, config, (0.6, 0.4, 0.0), 0, "static")
    page = tmp_path / "report.html"
    written = report(artifact, tmp_path / "all.parquet", page)
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    chromium = webdriver.Chrome(options, webdriver.ChromeService(driver))
    seconds = []
    for _ in range(5):
        chromium.get(page.as_uri())
        took = "const n = performance.getEntriesByType('navigation')[0]; return n.loadEventEnd"
        seconds.append(float(chromium.execute_script(took)) / 1000)
    complaints = chromium.get_log("browser")
    chromium.quit()
    size = page.stat().st_size
    limit = MOST_BYTES / 1e6
    print(f"\n{written.rows:,} requests: {size / 1e6:.2f} MB (limit {limit:g} MB)")
    opened = ", ".join(f"{one:.2f}" for one in seconds)
    print(f"opened in {opened} s (limit {MOST_SECONDS:g} s); on the console: {len(complaints)}")
    assert size <= MOST_BYTES
    assert min(seconds) <= MOST_SECONDS
    assert complaints == []
