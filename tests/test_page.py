"""The report page: the answer in words, every text escaped, and what cannot be known left out."""

import json
import re
from dataclasses import replace
from datetime import timedelta
from math import inf, nan

import numpy as np
import pandas as pd
import pytest

from router.policy import Policy, Promise
from tests.builders import make_booster
from tests.test_report import rows_of
from tests.traffic_makers import call, make_rows, write_log
from training.learn.flatten import flatten
from training.measure.intervals import Interval
from training.measure.report import build_report
from training.measure.slice_report import OWN
from training.measure.slices import Slice
from training.measure.subject import measure_paired, prepare
from training.report_page import report
from training.show import verdict, words
from training.show.answer import answer_lines
from training.show.page import charts, examples, importance, views
from training.show.page.html import render
from training.show.page.volume import Volume
from training.show.tables import report_tables

HOSTILE = (
    "<script>window.hacked = 1</script>",
    "</script><script>window.hacked = 2</script>",
    "<!--<script>window.hacked = 3",
    "<img src=x onerror='window.hacked = 4'>",
    '"><svg onload=window.hacked=5>',
    "{{ 7 * 7 }} {% raw %} ${window.hacked = 6}",
    "\u202eright to left \u2066 and never closed",
    "\u2028\u2029\x00\x1b[31m ]]> &amp;",
)


def hostile_rows(n=60, seed=5):
    """Later requests whose prompts, sources, tags and ids try to become markup or code."""
    rows = make_rows(n, seed=seed, session=1)
    for row in rows:
        i = int(row["request_id"][1:])
        text = HOSTILE[i % len(HOSTILE)]
        said = json.loads(row["messages"])[0]["content"]
        row["messages"] = json.dumps([{"role": "user", "content": f"{text} {said}"}])
        row["request_id"] = f"{text} {i}"
        row["source"] = HOSTILE[i % 2]
        row["tags"] = [HOSTILE[i % len(HOSTILE)]]
        row["at"] = row["at"] + timedelta(days=30)
    return rows


@pytest.fixture(scope="module")
def page(job, tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    traffic = write_log(folder / "</title><script>alert(1)</script>.parquet".replace("/", "_"),
                        hostile_rows())  # fmt: skip
    written = report(job.artifact, traffic, folder / "new" / "report.html")
    measured = measure_paired(prepare(job.artifact, traffic, False))
    return folder / "new" / "report.html", measured, written.run


def data_of(text, name):
    [found] = re.findall(rf'<script type="application/json" id="{name}">(.*?)</script>', text, re.S)
    return json.loads(found)


# --- one file, no network, no markup of users -------------------------------------------------


def test_no_text_of_a_user_becomes_markup(page):
    text = page[0].read_text(encoding="utf-8")
    assert len(re.findall(r"<script\b", text)) == 3  # two blocks of data, one of code
    assert text.count("</script>") == 3
    assert "<img" not in text
    assert "<svg onload" not in text
    assert "&lt;script&gt;window.hacked" in text  # a source's name, as text
    prompts = data_of(text, "prompt-data")["prompts"]
    shown = " ".join(prompt["text"] for prompt in prompts)
    assert "<script>window.hacked = 1</script>" in shown
    assert "\u202e" in shown


def test_what_was_left_out_is_told_as_it_is_on_the_console(page):
    text = page[0].read_text(encoding="utf-8")
    assert "0 were left out, as the artifact was fitted or chosen on them" in text


def test_nothing_is_fetched(page):
    text = page[0].read_text(encoding="utf-8")
    code = text[: text.index('<script type="application/json"')] + text.rsplit("<script>", 1)[1]
    assert not re.search(r"\b(?:https?:)?//[a-z]", code)
    assert re.findall(
        r"<(?:link|img|iframe|object|embed|audio|video|source|base)\b[^>]*", code
    ) == ['<link rel="icon" href="data:,"']
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', text)[1]
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe" not in policy
    assert " style=" not in code and " onclick=" not in code  # the policy would block them


def test_the_page_is_small_and_in_mlflow(page):
    path, _, run = page
    assert path.stat().st_size < 1_000_000
    from mlflow.tracking import MlflowClient

    files = {file.path for file in MlflowClient().list_artifacts(run, "report")}
    assert files == {"report/report.html", "report/report.json"}
    told = MlflowClient().get_run(run).data.params
    assert told["embedder"] == "static"
    assert [file.name for file in path.parent.iterdir()] == ["report.html"]


def test_the_slider_has_words_for_every_position(page):
    path, measured, _ = page
    moves = data_of(path.read_text(encoding="utf-8"), "dial-data")
    dial = measured.report.dial
    assert len(moves["rows"]) == len(moves["positions"]) == len(dial.mu)
    start = moves["rows"][moves["start"]]
    policy = measured.report.figures["policy"]
    assert start[0][0] == words.percent(policy["quality"].value)
    assert start[2][0] == words.dollars(1000 * policy["cost_usd"].value)
    assert [float(v) for v in start[5]] == pytest.approx(
        [100 * policy[f"share_{k}"].value for k in range(2)], abs=0.06
    )
    assert moves["rows"][-1][1][0] == words.percent(1.0)


def test_prompts_have_neighbours_other_than_themselves(page):
    prompts = data_of(page[0].read_text(encoding="utf-8"), "prompt-data")
    for prompt in prompts["prompts"]:
        assert 1 <= len(prompt["near"]) <= 6
        assert all(other["text"] != prompt["text"] for other in prompt["near"])
        likeness = [float(other["near"]) for other in prompt["near"]]
        assert likeness == sorted(likeness, reverse=True)
    bad = next(one for one in prompts["lists"] if "bad downgrades" in one["title"])
    for at in bad["rows"]:
        prompt = prompts["prompts"][at]
        assert prompt["good"][prompt["tier"]] == 0
        assert prompt["good"][-1] == 1


# --- the command ------------------------------------------------------------------------------


def test_the_command_writes_a_page_that_says_what_is_saved(job, workdir, capsys):
    outcome = call(capsys, "report", job.artifact, "--traffic", job.fresh, "--out", "r.html")
    assert outcome.code == 0, outcome.err
    assert "r.html: 120 requests (paired); 0 left out; MLflow run" in outcome.out
    assert "Saves" in (workdir / "r.html").read_text(encoding="utf-8")


def one_sided_rows(job):
    """Each fresh request answered by one tier, drawn with the probability that is logged."""
    rng = np.random.default_rng(0)
    rows = pd.read_parquet(job.fresh).to_dict("records")
    pairs = zip(rows[::2], rows[1::2], rng.random(len(rows) // 2), strict=True)
    return [(small if draw < 0.5 else large) | {"propensity": 0.5} for small, large, draw in pairs]


def test_a_one_sided_log_gets_estimates_and_what_cannot_be_shown(job, workdir, capsys):
    write_log(workdir / "one.parquet", one_sided_rows(job))
    outcome = call(capsys, "report", job.artifact, "--traffic", "one.parquet", "--out", "r.html")
    assert outcome.code == 0, outcome.err
    assert "120 requests (one-sided)" in outcome.out
    text = (workdir / "r.html").read_text(encoding="utf-8")
    for said in ("doubly robust", "What cannot be shown", "always large", "logging policy", "SHAP"):
        assert said in text
    assert 'id="dial"' not in text
    assert "Traceback" not in text


def test_prompts_of_a_one_sided_log_show_the_score_that_is_known_and_no_mistakes(job, workdir):
    given = {row["request_id"]: row for row in one_sided_rows(job)}
    traffic = write_log(workdir / "one.parquet", list(given.values()))
    report(job.artifact, traffic, workdir / "r.html")
    prompts = data_of((workdir / "r.html").read_text(encoding="utf-8"), "prompt-data")
    assert [one["title"] for one in prompts["lists"]] == ["Nearest the threshold"]
    assert prompts["pool"] == "Neighbours are looked for among all 120 labelled prompts."
    assert len(prompts["prompts"]) == 12
    for prompt in prompts["prompts"]:
        row = given[prompt["id"]]
        at = ("small", "large").index(row["tier"])
        assert float(prompt["score"][at]) == row["score"]
        assert prompt["score"][1 - at] == "–"
        assert prompt["good"][at] == int(row["score"] >= 0.5)
        assert prompt["good"][1 - at] is None
        assert len(prompt["near"]) == 6


def test_the_page_says_how_many_prompts_neighbours_are_looked_for_among(job, workdir, monkeypatch):
    monkeypatch.setattr(examples, "POOL", 50)
    traffic = write_log(workdir / "one.parquet", one_sided_rows(job))
    report(job.artifact, traffic, workdir / "r.html")
    text = (workdir / "r.html").read_text(encoding="utf-8")
    assert "among 50 of 120 labelled prompts, spread evenly over the log" in text


def test_a_top_tier_that_never_scores_has_no_quality_to_keep_a_share_of(job, workdir):
    rows = [row | {"score": 0.0} for row in pd.read_parquet(job.fresh).to_dict("records")]
    report(job.artifact, write_log(workdir / "none.parquet", rows), workdir / "r.html")
    text = (workdir / "r.html").read_text(encoding="utf-8")
    assert re.search(r"<h1>.* beside a top tier that scored 0 throughout\.</h1>", text)


def test_without_propensities_a_one_sided_log_is_refused(job, workdir, capsys):
    rows = [row | {"propensity": None} for row in one_sided_rows(job)]
    write_log(workdir / "one.parquet", rows)
    call(capsys, "report", job.artifact, "--traffic", "one.parquet", "--out", "r.html").refused()
    assert not (workdir / "r.html").exists()


# --- words ------------------------------------------------------------------------------------


def report_for(policy, **more):
    return build_report(rows_of(**more), policy, ())


def promise(target=0.9, certified=True, rule="min_quality"):
    return Promise(rule, target, 0.95, 500, 0.95, 0.92, certified)


def test_the_headline_of_a_constant():
    told = verdict.headline(report_for(Policy(0.0, 1)))
    assert told["answer"] == "Sends everything to b."
    told = verdict.headline(report_for(Policy(0.0, 0)))
    assert re.fullmatch(r"Sends everything to a: [\d.]+× cheaper at .*", told["answer"])


@pytest.mark.parametrize(
    ("made", "word"),
    [
        (promise(0.5), "Promise holds"),
        (promise(0.999), "Promise broken"),
        (promise(0.5, certified=False), "Not certified"),
        (promise(0.99, rule="max_bad_downgrade"), "Promise holds"),
        (None, "No promise"),
    ],
)
def test_the_promise_in_a_word(made, word):
    policy = Policy(1e9, None, made)  # everything to the cheapest, which often fails
    assert verdict.promise(report_for(policy))["word"] == word


def at_the_top(names=("a", "b")):
    made = Promise("min_quality", 0.99, 0.95, 150, 1.0, 1.0, True, "by definition")
    return Policy(0.0, len(names) - 1, made, "no cheaper operating point could be certified")


def test_what_the_top_tier_keeps_by_definition_is_no_promise_that_holds():
    policy = at_the_top()
    found = report_for(policy)
    told = verdict.promise(found)
    assert (told["word"], told["class"]) == ("Nothing to promise", "open")
    assert "holds by definition, as this is the top tier itself" in told["text"]
    assert not any("not shown to beat" in note for note in found.notes)
    assert verdict.against_random(found.figures["policy"]["above_random"], policy) == []
    lines = "\n".join(answer_lines(found))
    assert lines.startswith("Sends everything to b. Nothing to promise.\n")
    assert "certified" not in lines and "()" not in lines


def test_without_limits_no_empty_parentheses():
    policy = Policy(0.0, 1, promise(0.9))
    assert "()" not in verdict.promise(report_for(policy))["text"]


@pytest.mark.parametrize(
    ("low", "high", "word", "mark"),
    [
        (0.001, 0.02, "Better than random: shown", "yes"),
        (-0.01, 0.02, "Better than random: not shown", "open"),
        (-0.02, -0.001, "Worse than random: shown", "no"),
    ],
)
def test_whether_chance_is_beaten_stands_beside_the_promise(low, high, word, mark):
    above = Interval((low + high) / 2, 0, low, high, 0)
    assert verdict.against_random(above, Policy(50.0)) == [{"word": word, "class": mark}]


def test_the_headline_says_dollars_beside_the_ratio():
    policy = Policy(50.0)
    found = report_for(policy)
    top, own = (found.figures[one]["cost_usd"].value for one in ("always top", "policy"))
    less = f"costs {100 * (1 - own / top):.0f}\u202f% less"
    dollars = f"({words.dollars(1000 * top)} → {words.dollars(1000 * own)}) per 1,000"
    assert f"{less} {dollars}" in verdict.headline(found)["sure"]


@pytest.mark.parametrize(
    ("before", "after", "text"),
    [
        (1.24, 0.835, "33\u202f% less ($1.24 → $0.835)"),
        (1.0, 1.1, "10\u202f% more ($1.00 → $1.10)"),
        (2.0, 2.0, "$2.00"),
        (0.0, 1.0, "more ($0 → $1.00)"),
        (8.0, 0.02, "99.8\u202f% less ($8.00 → $0.0200)"),
    ],
)
def test_a_change_of_cost_in_words(before, after, text):
    assert words.change(before, after) == text


def test_merely_below_is_in_doubt():
    policy = Policy(50.0)
    found = report_for(policy)
    kept = found.figures["policy"]["quality_of_top"]
    made = Policy(50.0, None, promise((kept.value + kept.high) / 2))
    assert verdict.promise(replace(found, policy=made))["word"] == "Promise in doubt"


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "$0"), (0.06123, "$0.0612"), (0.49, "$0.490"), (1.016, "$1.02"), (48.26, "$48.26"),
     (482.6, "$482.6"), (12340.4, "$12,340"), (-2, "−$2.00"), (nan, "–"), (inf, "–")],
)  # fmt: skip
def test_dollars(value, text):
    assert words.dollars(value) == text


def test_limits_are_silent_where_there_are_none():
    assert words.limits(Interval(1, 1, nan, nan, 0), "times") == ""
    assert words.limits(Interval(1, 1, 1, 1, 0), "times") == ""
    assert words.limits(Interval(0.5, 0.5, 0.4, 0.6, 0), "percent") == "40.0 to 60.0\u202f%"


def test_a_month_comes_from_the_log_s_own_window():
    at = pd.to_datetime(["2026-01-01", "2026-01-01", "2026-01-11"], utc=True)
    volume = Volume.of(pd.DataFrame({"request_id": ["a", "a", "b"], "at": at}))
    assert volume.unit == pytest.approx(2 * 30.44 / 10)
    assert (volume.words, "10.0 days" in volume.basis) == ("a month", True)
    for times in ([None] * 3, ["2026-01-01T00:00"] * 3):
        frame = pd.DataFrame({"request_id": list("abc"), "at": pd.to_datetime(times, utc=True)})
        assert (Volume.of(frame).unit, Volume.of(frame).words) == (1000.0, "per 1,000 requests")


def test_three_tiers_a_free_tier_and_slices_without_a_promise(job, page):
    """What is odd must still become a page: render with another report in the same frame."""
    found = report_for(Policy(0.0, 1), tiers=3)
    names = ("a", "b", "c")
    assert charts.curve_chart(found, names)["constants"][2]["name"] == "c"
    told = views.dial(found, Volume(3, None), names)
    assert told["start"] == int(np.abs(found.dial.cost_usd - found.chosen.cost_usd).argmin())
    assert all(len(row) == 6 and len(row[5]) == 3 for row in told["rows"])
    by_month = views.dial(found, Volume(3, 2.0), names)["labels"]
    assert by_month == [*told["labels"], "dollars a month"]  # no row that repeats "cost of 1,000"
    assert views.slices(found)["groups"] == []
    assert [row[0] for row in views.curves(found)].count("Suffice, by gain") == 0
    console = report_tables(found)[0]
    assert "Suffice, by gain per dollar" in console
    assert console.count("Suffice, by gain") == 1 and "CPT" not in console
    assert "CPT" in report_tables(report_for(Policy(0.0, 1)))[0]


def sliced_report(**slices):
    """A report of 400 rows, two to a session, with slices {name: rows}."""
    rows = rows_of(n=400)
    parts = tuple(Slice("source", name, np.arange(many)) for name, many in slices.items())
    return build_report(replace(rows, slices=parts), Policy(50.0, None, promise(0.9)), ())


def test_a_slice_with_too_few_independent_requests_says_how_many_it_has():
    [group] = views.slices(sliced_report(many=300, few=50, three=3))["groups"]
    assert group["few"] == [
        ("few", "50 requests, 25 independent"),
        ("three", "3 requests, 2 independent"),
    ]


def test_the_page_sums_up_slices_that_fall_below_by_their_own_interval(page):
    measured = page[1]
    part = next(one for one in measured.report.slices if one.metrics is not None)
    told = replace(measured.report, slices=(replace(part, verdict=OWN),))
    text = render(replace(measured, report=told), {}, "log")
    assert "In none of 1 slices is the promise shown to fail" in text
    assert "In 1 it is below by the slice’s own interval, but not after that correction" in text
    assert "happens by chance too" not in text


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (promise(0.9), "In none of 1 slices is the promise shown to fail"),
        (promise(0.05, rule="max_bad_downgrade"), "In none of 1 slices is the promise shown to"),
        (None, "There is no promise to judge 1 slices by."),
    ],
)
def test_the_page_says_by_which_promise_slices_are_judged(page, made, words):
    measured = page[1]
    report = measured.report
    part = next(one for one in report.slices if one.metrics is not None)
    told = replace(report, policy=replace(report.policy, promise=made), slices=(part,))
    text = render(replace(measured, report=told), {}, "log")
    assert words in text
    assert ("There is no promise" in text) == (made is None)


def test_verdicts_stand_before_the_figures(page):
    text = page[0].read_text(encoding="utf-8")
    for first, verdict_, later in (
        ("slice", "promise here", "requests"),
        ("than", "better?", "in"),
    ):
        heads = [re.sub("<[^>]*>", "", cell) for row in re.findall(r"<thead>(.*?)</thead>", text)
                 for cell in re.findall(r"<th[^>]*>(.*?)</th>", row)]  # fmt: skip
        at = heads.index(verdict_)
        assert (heads[at - 1], heads[at + 1]) == (first, later)


def test_labels_of_tiers_near_each_other_stand_apart():
    dots = [{"x": "100", "y": "50.0"}, {"x": "110", "y": "52.0"}, {"x": "600", "y": "50.0"}]
    labels = [float(dot["label"]) for dot in charts._apart(dots)]
    assert labels[1] - labels[0] >= charts.LINE
    assert labels[2] == labels[0]


def test_importance_is_lightgbm_s_own(job):
    """Of a booster whose growth an artifact holds: gain and contributions by LightGBM itself."""
    measured = measure_paired(prepare(job.artifact, job.fresh, False))
    predictor = measured.subject.artifact.predictor
    assert importance.importance(predictor, {}, measured.x.dense) is None
    dense = measured.x.dense
    booster = make_booster(dense, (dense[:, 0] > np.median(dense[:, 0])).astype(float))
    forest, growth = flatten(booster)
    heads = [type(head)(head.linear, forest, head.calibration) for head in predictor.heads]
    other = replace(predictor, heads=tuple(heads))
    grown = {"rows": growth.rows, "gain": growth.gain}
    arrays = {f"{k}.reference.{name}": part for k in range(2) for name, part in grown.items()}
    told = importance.importance(other, arrays, dense)
    assert told["tiers"] == ["small", "large"]
    best = max((row for row in told["rows"] if not row["group"]),
               key=lambda row: float(row["cells"][0]["shap"]))  # fmt: skip
    gains = booster.feature_importance("gain")
    assert best["name"] == "chars"
    assert best["cells"][0]["gain_words"] == words.percent(gains[0] / gains.sum(), 0)
    shap = np.abs(booster.predict(dense, pred_contrib=True)[:, 0]).mean()
    assert best["cells"][0]["shap_words"] == words.plain(shap, 2)


def test_an_old_artifact_s_page_says_what_it_lacks(page, job):
    text = render(page[1], {}, "log")
    assert "does not hold how its trees grew" in text
