"""A log replayed: what retraining would have done to cost, quality and promises."""

import json

import pandas as pd
import pytest

from tests.test_retrain import write_job
from tests.traffic_makers import call, make_rows, write_log, write_tiers
from training.learn import heads


@pytest.mark.slow
def test_it_tells_what_retraining_would_have_saved(workdir, capsys, monkeypatch):
    monkeypatch.setattr(heads, "MAX_ROUNDS", 20)
    rows = pd.DataFrame(make_rows(3000))
    month = rows["request_id"].str[1:].astype(int) // 1000
    rows["at"] += pd.to_timedelta(30 * month, unit="D")
    write_log(workdir / "log.parquet", rows)
    write_tiers(workdir)
    write_job(workdir)
    plot = workdir / "b.png"
    asked = ("--config", "retrain.toml", "--every", 30, "--plot", plot, "--json")
    done = call(capsys, "--quiet", "backtest", *asked)
    assert done.code == 0, done
    told = json.loads(done.out)
    assert len(told["periods"]) == 2
    assert told["periods"][0]["requests"] == 1000
    assert told["total"]["usd"] <= told["total"]["usd_always_top"]
    assert told["total"]["usd_always_top"] > 0
    assert plot.stat().st_size > 5000
    # By the week most weeks hold nothing new; a promotion in a week without traffic counts as well.
    weekly = call(capsys, "--quiet", "backtest", "--config", "retrain.toml", "--every", 7, "--json")
    again = json.loads(weekly.out)
    assert [p["requests"] for p in again["periods"]] == [1000, 1000]
    assert again["total"]["promotions"] == told["total"]["promotions"] > 0
    assert again["total"]["usd"] == pytest.approx(told["total"]["usd"])
    long = call(capsys, "--quiet", "backtest", "--config", "retrain.toml", "--every", 900)
    long.refused("--every")
    write_log(workdir / "log.parquet", rows.drop(columns="at"))
    call(capsys, "--quiet", "backtest", "--config", "retrain.toml").refused("column at")


def test_what_no_step_could_train_is_refused_at_the_start(workdir, capsys):
    write_log(workdir / "log.parquet", make_rows(200))
    write_tiers(workdir)
    job = write_job(workdir)
    asked = 'embedders = ["static+minilm"]\nfinetune = true\n'
    job.write_text(job.read_text().replace("[train]\n", f"[train]\n{asked}"))
    done = call(capsys, "--quiet", "backtest", "--config", "retrain.toml")
    done.refused("--finetune")
