"""The report: figures beside what they have to beat, and honest about what it cannot know."""

import json
from math import isfinite

import numpy as np
import pandas as pd
import pytest

from router import Router
from router.policy import Policy, Promise
from tests.traffic_makers import make_rows, write_log
from training.errors import BadInput
from training.evaluate import evaluate, score
from training.log.traffic import read_traffic
from training.measure.baselines import NEIGHBOURS, knn
from training.measure.reliability import debiased_ece
from training.measure.report import DOLLAR, GAIN, build_report
from training.measure.rows import Rows
from training.show import verdict
from training.show.page import views
from training.show.page.volume import Volume
from training.show.pictures import save_plots
from training.show.tables import report_tables

BASELINES = {"kNN", "logistic regression", "prompt length", "oracle", "random", "best constant",
             "always cheapest", "always top"}  # fmt: skip


def rows_of(n=300, signal=True, seed=0, tiers=2):
    rng = np.random.default_rng(seed)
    truth = rng.uniform(0.1, 1.0, (n, tiers))
    truth[:, -1] = 0.95
    outcome = (rng.random((n, tiers)) < (truth if signal else 0.7)) * 1.0
    usd = np.tile(np.geomspace(1e-4, 1e-2, tiers), (n, 1)) * rng.uniform(0.5, 2.0, (n, 1))
    return Rows(
        names=tuple("abcd"[:tiers]),
        p=truth,
        usd=usd,
        score=outcome,
        paid=usd,
        sufficed=outcome >= 0.5,
        session=np.arange(n) // 2,
        characters=rng.integers(1, 900, n).astype(float),
        baselines={"kNN": rng.random((n, tiers)), "logistic regression": truth},
    )


@pytest.fixture(scope="module")
def report():
    return build_report(rows_of(), Policy(50.0), ("a warning",))


def test_every_baseline_is_there(report):
    assert set(report.figures) >= BASELINES | {GAIN, DOLLAR, "policy"}
    assert set(report.against) >= {"kNN", "logistic regression", "random", "always top"}


def test_neighbours_of_the_baseline_are_rows_whose_outcome_on_the_tier_is_known():
    """One tier's outcomes are missing on some rows; two tiers share theirs."""
    rng = np.random.default_rng(0)
    fitted, asked = (rng.normal(size=(n, 8)).astype(np.float32) for n in (300, 20))
    score = rng.random((300, 3))
    score[rng.random(300) < 0.4, 1] = np.nan
    found = knn(fitted, score, asked)
    for row, (text, p) in enumerate(zip(asked, found, strict=True)):
        order = np.argsort(np.square(fitted - text).sum(axis=1))
        for k in range(3):
            known = score[order, k][~np.isnan(score[order, k])]
            assert p[k] == pytest.approx(known[:NEIGHBOURS].mean()), (row, k)


def test_intervals_contain_their_values(report):
    """Up to the rounding of sums."""
    seen = 0
    for method, metrics in {**report.figures, **report.calibration}.items():
        for name, found in metrics.items():
            if isfinite(found.value) and isfinite(found.low):
                slack = 1e-12 * abs(found.value)
                assert found.low - slack <= found.value <= found.high + slack, (method, name)
                seen += 1
    assert seen > 60


def test_both_calibration_errors_are_told_by_name(report):
    for name, metrics in report.calibration.items():
        found = metrics["ece_debiased"].value
        j = report.names.index(name)
        rows = rows_of()
        assert found == debiased_ece(rows.p[:, j], rows.score[:, j])
        assert report.as_json()["calibration"][name]["ece_debiased"]["value"] == found
        assert metrics["ece"].value > found  # its bins' noise included
    calibration = next(t for t in report_tables(report) if "Probabilities against" in t)
    assert "ECE, debiased" in calibration
    assert f"{report.calibration['a']['ece_debiased'].value:.4f}" in calibration
    assert [label for label, *_ in views.calibration(report)[0]["figures"]] == [
        "AUC", "Brier", "ECE", "debiased",
    ]  # fmt: skip


def test_json_holds_numbers_or_null(report):
    text = json.dumps(report.as_json(), allow_nan=False)
    told = json.loads(text)
    assert told["rows"] == 300
    assert told["notes"][0] == "a warning"
    assert set(told["methods"]) >= BASELINES
    assert set(told["methods"]["policy"]["quality"]) == {"value", "low", "high"}


def test_what_does_not_exist_is_null_not_nan():
    """The cheap tier free and as good as the top: no gap, an infinite saving."""
    rows = rows_of()
    free = np.zeros_like(rows.usd)
    same = np.repeat(rows.score[:, :1], 2, axis=1)
    found = build_report(
        Rows(rows.names, rows.p, rows.usd, same, free, same >= 0.5, rows.session, rows.characters,
             rows.baselines),
        Policy(50.0), (),
    )  # fmt: skip
    told = json.loads(json.dumps(found.as_json(), allow_nan=False))
    assert told["methods"][GAIN]["apgr"]["value"] is None
    assert any("apgr" in key for key in told["undefined"])
    assert all(isfinite(value) for value in found.flat().values())
    assert report_tables(found)


def safe_rows(n, bad, seed):
    """A router that sends half of n requests down; of all, a share `bad` is lost by that."""
    rng = np.random.default_rng(seed)
    score = np.ones((n, 2))
    score[:, 0] = rng.random(n) >= 2 * bad
    p = np.column_stack([np.where(np.arange(n) % 2, 1.0, 0.0), np.ones(n)])
    usd = np.tile([1e-4, 1e-2], (n, 1))
    return Rows(("a", "b"), p, usd, score, usd, score >= 0.5, np.arange(n), np.ones(n), {})


def test_forty_requests_without_a_loss_show_no_promise_kept():
    promise = Promise("max_bad_downgrade", 0.02, 0.95, 500, 0.01, 0.019, True)
    report = build_report(safe_rows(40, 0.0, 0), Policy(50.0, promise=promise), ())
    figures, exact = report.figures["policy"], 1 - 0.025 ** (1 / 40)  # Clopper and Pearson
    assert figures["bad_downgrade"].value == 0.0
    assert figures["bad_downgrade"].high == pytest.approx(exact)
    assert figures["quality"].low == pytest.approx(1 - exact)
    assert figures["quality_of_top"].low == pytest.approx(1 - exact)
    assert report.figures["always top"]["bad_downgrade"].high == 0.0  # by definition
    assert verdict.promise(report)["text"].endswith("so it is kept in the estimate.")
    against = {one.rival: one for one in report.comparisons if "chosen" in one.measure.words}
    assert report.against["always top"]["quality"].low == pytest.approx(-exact)
    assert "the same" not in {against["always top"].answer, against["best constant"].answer}


def test_the_slider_at_the_chosen_point_shows_its_figures():
    report = build_report(safe_rows(60, 0.0, 0), Policy(50.0), ())
    shown = views.dial(report, Volume(60, None), report.names)
    assert shown["rows"][shown["start"]][:2] == shown["chosen"][:2]


def test_a_signal_is_no_hard_traffic_and_beats_random(report):
    assert not any("tier a" in note and "hardly" in note for note in report.notes)
    assert not any("not shown to beat" in note for note in report.notes)
    assert report.against["random"]["apgr"].low > 0


def test_noise_is_called_hardly_predictable():
    found = build_report(rows_of(signal=False), Policy(50.0), ())
    assert any("tier a: whether it suffices is hardly predictable" in n for n in found.notes)
    assert any("not shown to beat" in note for note in found.notes)


def test_the_oracle_is_above_everything(report):
    best = report.figures["oracle"]
    for name in (GAIN, DOLLAR, "kNN", "random", "prompt length"):
        for metric in ("aiq", "saving_99"):
            assert report.figures[name][metric].value <= best[metric].value + 1e-9


def test_three_tiers_have_a_report_too(tmp_path):
    found = build_report(rows_of(tiers=3), Policy(20.0), ())
    json.dumps(found.as_json(), allow_nan=False)
    assert {"share_0", "share_1", "share_2"} <= set(found.figures["policy"])
    assert set(found.figures) >= BASELINES | {GAIN, DOLLAR, "policy"}
    assert [path.name for path in save_plots(found, tmp_path)] == [
        "cost_quality.png",
        "reliability.png",
    ]  # rows_of makes no slices
    assert all(path.stat().st_size > 10_000 for path in tmp_path.iterdir())


def test_tables_show_the_figures(report):
    text = "\n".join(report_tables(report))
    assert "Suffice, chosen" in text
    assert f"{report.figures[GAIN]['apgr'].value:.3f}" in text


def test_evaluate_leaves_out_what_was_fitted_and_only_that(job, tmp_path):
    seen, fresh = (pd.read_parquet(path) for path in (job.traffic, job.fresh))
    both = pd.concat([seen, fresh]).sample(frac=1.0, random_state=1)
    rows = job.trained.report.rows  # its test rows were not used for fitting or choosing
    report, left_out = evaluate(job.artifact, write_log(tmp_path / "b.parquet", both), None, None)
    assert left_out == 780 - rows
    assert report.rows == 120 + rows
    # Exactly the unseen ones: the same figures as on a table of them alone.
    used = seen["request_id"].drop_duplicates().tolist()[780 - rows :]
    alone = both[both["request_id"].isin([*used, *fresh["request_id"]])]
    again, none = evaluate(job.artifact, write_log(tmp_path / "a.parquet", alone), None, None)
    assert none == 0
    assert again.figures["policy"]["quality"].value == report.figures["policy"]["quality"].value


def test_evaluate_repeats_the_report_of_training(job, tmp_path):
    """The original boosters there, the exported forests here."""
    report, _ = evaluate(job.artifact, job.traffic, tmp_path / "new" / "r.json", tmp_path / "p")
    for method in ("policy", GAIN, DOLLAR):
        for metric, found in job.trained.report.figures[method].items():
            assert report.figures[method][metric].value == pytest.approx(found.value, rel=1e-9)
    told = json.loads((tmp_path / "new" / "r.json").read_text(encoding="utf-8"))
    assert told["artifact"] == job.trained.version
    assert told["left_out"] == 780 - told["rows"]
    drawn = {path.name for path in (tmp_path / "p").iterdir()}
    assert drawn == {"cost_quality.png", "reliability.png", "slices.png"}


def test_evaluate_with_nothing_new_is_refused(job, tmp_path):
    seen = pd.read_parquet(job.traffic)
    old = write_log(tmp_path / "old.parquet", seen[:400])
    with pytest.raises(BadInput, match=r"without the 200 .*0 requests.*newer traffic"):
        evaluate(job.artifact, old, tmp_path / "r.json", tmp_path / "plots")
    assert [path.name for path in tmp_path.iterdir()] == ["old.parquet"]


def test_score_has_one_row_per_request_in_the_contract_s_columns(job, tmp_path):
    rows = make_rows(30, seed=9)
    rows[4]["status"] = "error"
    rows[7]["score"] = None
    traffic = write_log(tmp_path / "t.parquet", rows[:55])
    assert score(job.artifact, traffic, tmp_path / "out" / "s.parquet") == 28
    found = pd.read_parquet(tmp_path / "out" / "s.parquet")
    assert found.columns.tolist() == [
        "request_id",
        "p_suffices__small",
        "p_suffices__large",
        "expected_cost_usd__small",
        "expected_cost_usd__large",
        "tier",
    ]
    assert found["request_id"].tolist() == [f"r{i}" for i in range(28)]
    assert (found.dtypes.iloc[1:5] == np.float64).all()
    assert found.iloc[:, 1:3].to_numpy().min() > 0
    assert found.iloc[:, 1:3].to_numpy().max() < 1
    router = Router.load(job.artifact)
    messages = read_traffic(traffic).frame.drop_duplicates("request_id")["messages"]
    for text, row in zip(messages, found.itertuples(), strict=True):
        decision = router.route(json.loads(text))
        assert decision.tier == row.tier
        assert decision.p_suffices == {
            "small": row.p_suffices__small,
            "large": row.p_suffices__large,
        }
        assert decision.expected_cost_usd["large"] == row.expected_cost_usd__large


def test_score_needs_neither_scores_nor_known_tiers(job, tmp_path):
    rows = [
        {"request_id": f"q{i}", "messages": f"hello {i}", "model": "another/model"}
        for i in range(3)
    ]
    assert score(job.artifact, write_log(tmp_path / "t.parquet", rows), tmp_path / "s.parquet") == 3
