"""The demo, whole: what the README promises of it."""

import re

import pytest

from training.demo import demo, ingest_sample
from training.log.traffic import read_traffic


def test_the_sample_is_ready_to_be_trained_on(workdir):
    sample = ingest_sample(workdir / "a" / "b")
    frame = read_traffic(sample.traffic).frame
    assert set(frame["tier"]) == {sample.tiers[0].name}
    assert frame["score"].notna().all()
    assert sample.config.label.assume_top_suffices


@pytest.mark.slow
def test_the_demo_keeps_to_its_folder_and_shows_a_decision_of_each_kind(workdir, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")  # as if it were not set; undone afterwards
    told = list(demo(workdir / "here"))
    assert [path.name for path in workdir.iterdir()] == ["here"]
    made = {path.name for path in (workdir / "here").iterdir()}
    assert {"artifact", "mlflow.db", "mlruns", "plots", "report.json", "scores.parquet"} <= made
    assert any(f"mlflow ui --backend-store-uri sqlite:///{workdir}" in line for line in told)
    routed = [re.match(r"route '(.+)': (small|large) ", line) for line in told]
    assert {match[2] for match in routed if match} == {"small", "large"}
