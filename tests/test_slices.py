"""Slices: what belongs to one, what may be said of it, and what may not."""

import json
from dataclasses import replace

import numpy as np
import pytest

from router.features import surface
from router.policy import Policy, Promise
from tests.test_report import rows_of
from tests.traffic_makers import make_rows, requests_of
from training.measure.compare import NO, OPEN, SAME, YES, Comparison, Measure
from training.measure.intervals import Interval, bootstrap
from training.measure.limits import few_sessions, rate
from training.measure.report import build_report
from training.measure.rows import Rows
from training.measure.slice_report import (
    BELOW,
    FAILS,
    HOLDS,
    OWN,
    SLICES,
    TOO_FEW,
    UNJUDGED,
    SliceReport,
    judge_slices,
    promise_margins,
    slice_metrics,
    worst,
)
from training.measure.slices import MAX_NAMES, Slice, slice_rates, slices_of
from training.show.tables import report_tables

PROMISE = Promise("min_quality", 0.95, 0.95, 100, 0.97, 0.95, True)


def sliced(requests):
    features = np.array([surface(prompt) for prompt in requests.prompts])
    found = {}
    for part in slices_of(requests, features):
        found.setdefault(part.kind, {})[part.name] = part.rows.tolist()
    return found


def made(tmp_path, change, n=8):
    rows = make_rows(n)
    for row in rows:
        change(row, int(row["request_id"][1:]))
    return requests_of(rows, tmp_path)


def scored(slices, score, session=None):
    """Rows of these slices, of two tiers that cost the same."""
    n = len(score)
    same = np.ones((n, 2))
    session = np.arange(n) if session is None else session
    return Rows(
        names=("small", "large"),
        p=same / 2,
        usd=same,
        score=score,
        paid=same,
        sufficed=score >= 0.5,
        session=session,
        characters=same[:, 0],
        baselines={},
        slices=tuple(slices),
    )


def judged(slices, margins, session=None, score=None, promise=PROMISE, tier=0):
    """`judge_slices` of a policy of one tier, by default always right beside a top tier that is."""
    n = len(score) if margins is None else len(margins)
    rows = scored(slices, np.ones((n, 2)) if score is None else score, session)
    sent = np.full(n, tier)
    estimator = slice_metrics(rows, sent)
    drawn = bootstrap({SLICES: estimator}, n, groups=rows.session, resamples=200)
    return judge_slices(rows, sent, drawn, promise, margins)


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_a_slice_whose_top_tier_never_scores_is_infinitely_better():
    part = Slice("tag", "x", np.arange(60))
    score = np.column_stack([np.ones(60), np.zeros(60)])
    [found] = judged([part], np.zeros(60), score=score)
    assert found.metrics["quality_of_top"].value == np.inf


# --- what belongs to a slice ------------------------------------------------------------------


def test_sources_tags_and_hours(tmp_path):
    def change(row, i):
        row["source"] = ("chat", "mail", None)[i % 3]
        row["tags"] = [["a"], ["a", "b", "b"], []][i % 3]
        row["at"] = f"2026-03-01T{9 + i % 2:02d}:30:00+02:00"

    found = sliced(made(tmp_path, change))
    assert found["source"] == {"chat": [0, 3, 6], "mail": [1, 4, 7]}
    assert found["tag"] == {"a": [0, 1, 3, 4, 6, 7], "b": [1, 4, 7]}
    assert found["hour (UTC)"] == {"07:00": [0, 2, 4, 6], "08:00": [1, 3, 5, 7]}


def test_one_value_for_all_is_no_slice(tmp_path):
    def change(row, i):
        row.update(at=None, messages="what is the capital of France", tags=["all"])

    assert sliced(made(tmp_path, change)) == {}


def test_a_tag_on_some_requests_is_a_slice(tmp_path):
    found = sliced(made(tmp_path, lambda row, i: row.update(tags=["vip"] if i < 2 else [])))
    assert found["tag"] == {"vip": [0, 1]}


def test_rare_sources_are_one_slice_together(tmp_path):
    n = MAX_NAMES + 5

    def change(row, i):
        row["source"] = f"tenant {i}" if i < n else "tenant 0"

    found = sliced(made(tmp_path, change, n + 3))["source"]
    assert len(found) == MAX_NAMES + 1
    assert found["tenant 0"] == [0, n, n + 1, n + 2]
    assert len(found["5 rarer ones"]) == 5


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("What is the capital of France and why is it that", "English"),
        ("Wie heißt die Hauptstadt und warum ist das so", "another European language"),
        ("Reykjavik Oslo Kyiv", "Latin script, language unclear"),
        ("Какая столица у Франции?", "Greek or Cyrillic script"),
        ("ما هي عاصمة فرنسا؟", "Hebrew or Arabic script"),
        ("法国的首都是哪里？", "Chinese characters"),
        ("フランスのしゅとはどこですか", "Japanese or Korean script"),
        ("프랑스의 수도는 어디입니까", "Japanese or Korean script"),
        ("फ्रांस की राजधानी", "Indic script"),
        ("12 + 34 =", "no letters"),
    ],
)
def test_languages(text, language, tmp_path):
    """Beside a row in another script, so that there are two values."""
    other = "Γειά" if language != "Greek or Cyrillic script" else "hello and the world"
    found = sliced(
        made(tmp_path, lambda row, i: row.update(messages=text if i else other))
    )["language"]  # fmt: skip
    assert found[language] == list(range(1, 8))


def test_one_system_prompt_does_not_make_all_traffic_english(tmp_path):
    told = "You are a helpful assistant of Acme. Answer politely, and in the words of the user."

    def change(row, i):
        asked = "Какая столица у Франции?" if i < 3 else "What is the capital of this country?"
        chat = (("system", told * (1 + 9 * (i % 2))), ("user", asked))
        row["messages"] = json.dumps([{"role": role, "content": text} for role, text in chat])

    found = sliced(made(tmp_path, change))["language"]
    assert found == {"Greek or Cyrillic script": [0, 1, 2], "English": [3, 4, 5, 6, 7]}


def test_lengths_and_turns(tmp_path):
    sizes = (10, 199, 200, 999, 1000, 4999, 20_000, 50_000)

    def change(row, i):
        says = [{"role": "user", "content": "x"}] * (i + 4) if i > 5 else []
        rest = "y" * (sizes[i] - len(says))
        row["messages"] = json.dumps([*says, {"role": "user", "content": rest}])

    found = sliced(made(tmp_path, change))
    assert found["length"] == {
        "under 200 characters": [0, 1],
        "200 to 500": [2],
        "500 to 1,000": [3],
        "1,000 to 2,000": [4],
        "2,000 to 5,000": [5],
        "20,000 or more": [6, 7],
    }
    assert found["turns"] == {"1 turn": [0, 1, 2, 3, 4, 5], "over 10 turns": [6, 7]}


# --- what may be said of it -------------------------------------------------------------------


def test_three_rows_get_no_figures():
    n = 60
    [few, many] = judged(
        [Slice("source", "rare", np.arange(3)), Slice("source", "often", np.arange(3, n))],
        np.full(n, -0.5),
    )
    assert (few.verdict, few.metrics, few.rows) == (TOO_FEW, None, 3)
    assert few.as_json()["metrics"] is None
    assert few.as_json()["p_value"] is None
    assert many.verdict == FAILS


def test_many_rows_of_few_sessions_get_no_figures():
    n = 90
    [one] = judged([Slice("tag", "a", np.arange(n))], np.full(n, -0.5), session=np.arange(n) // 5)
    assert (one.verdict, one.rows, one.units) == (TOO_FEW, 90, 18)


def test_without_a_failure_the_interval_still_has_a_width():
    n = 40
    score = np.ones((n, 2))
    [found] = judged([Slice("tag", "a", np.arange(n))], np.zeros(n), score=score)
    assert found.metrics["bad_downgrade"].value == 0.0
    assert found.metrics["bad_downgrade"].high == pytest.approx(1 - 0.025 ** (1 / n))
    assert found.metrics["quality"].low == pytest.approx(0.025 ** (1 / n))


def test_shown_merely_below_and_holding():
    rng = np.random.default_rng(0)
    n = 300
    slices = [Slice("source", name, np.arange(i, n, 3)) for i, name in enumerate("abc")]
    margins = np.empty(n)
    for part, mean in zip(slices, (-0.5, -0.01, 0.2), strict=True):
        noise = rng.normal(size=100)
        margins[part.rows] = mean + noise - noise.mean()
    fails, below, holds = judged(slices, margins)
    assert [part.verdict for part in (fails, below, holds)] == [FAILS, BELOW, HOLDS]
    assert fails.p_value < 0.05 < below.p_value <= holds.p_value
    assert worst([holds, below, fails]) == [fails, below, holds]


def test_the_more_slices_the_harder_to_show():
    rng = np.random.default_rng(1)
    margins = rng.normal(size=100)
    margins += -0.2 - margins.mean()
    part = Slice("tag", "a", np.arange(100))
    [alone] = judged([part], margins)
    among = judged([part] * 60, margins)[0]
    assert alone.verdict == FAILS
    assert among.verdict == BELOW
    assert among.p_value == pytest.approx(60 * alone.p_value)


@pytest.mark.parametrize("wrong", [8, 13])
def test_below_by_its_own_interval_only_is_not_called_chance(wrong):
    """The interval that readers see excludes the promise; among 200 slices that shows nothing."""
    score = np.ones((100, 2))
    score[:wrong, 0] = 0.0
    part, margins = Slice("tag", "a", np.arange(100)), score[:, 0] - PROMISE.target
    among = judged([part] * 200, margins, score=score)[0]
    seen = among.metrics["quality_of_top"].high < PROMISE.target
    assert among.p_value > 0.05
    assert among.verdict == (OWN if seen else BELOW)
    assert seen == (wrong == 13)


def test_slices_below_by_their_own_interval_come_before_those_below_by_chance():
    parts = [
        SliceReport(
            "tag", word, 100, 100, {"quality_of_top": Interval(0.9, 0, 0.8, 0.94, 0)}, word, p
        )
        for word, p in ((HOLDS, 1.0), (BELOW, 0.3), (OWN, 0.9), (FAILS, 0.01))
    ]
    assert [part.name for part in worst(parts)] == [FAILS, OWN, BELOW, HOLDS]


def test_a_promise_that_holds_is_rarely_said_to_fail():
    """Of 400 draws of 20 slices in which it just holds, a false alarm in at most 5 % + 2 s.e."""
    rng = np.random.default_rng(2)
    slices = [Slice("tag", str(i), np.arange(50 * i, 50 * i + 50)) for i in range(20)]
    rows, sent = scored(slices, np.ones((1000, 2))), np.zeros(1000, np.int64)
    drawn = bootstrap({SLICES: slice_metrics(rows, sent)}, 1000, resamples=40)
    alarms = 0
    for _ in range(400):
        margins = 0.05 - (rng.random(1000) < 0.05)  # rare losses: its mean is 0
        found = judge_slices(rows, sent, drawn, PROMISE, margins)
        alarms += any(part.verdict == FAILS for part in found)
    assert alarms <= 400 * 0.05 + 2 * (400 * 0.05 * 0.95) ** 0.5


def test_margins_of_the_promises():
    score = np.array([[0.0, 1.0], [1.0, 1.0], [0.2, 0.6]])
    tier, good = np.array([0, 0, 1]), score >= 0.5
    quality = promise_margins(PROMISE, tier, score, good)
    assert quality == pytest.approx([-0.95, 0.05, 0.6 * 0.05])
    bad = Promise("max_bad_downgrade", 0.02, 0.95, 100, 0.01, 0.02, True)
    assert promise_margins(bad, tier, score, good) == pytest.approx([-0.98, 0.02, 0.02])
    assert promise_margins(None, tier, score, good) is None


def test_figures_of_a_slice_are_those_of_its_rows_alone():
    part = np.arange(100, 300)
    rows = replace(rows_of(n=400), slices=(Slice("tag", "x", part),))
    tier = Policy(50.0).choose(rows.p, rows.usd)
    metrics = slice_metrics(rows, tier)
    found = {name: float(value[0, 0]) for name, value in metrics(np.ones((1, 400))).items()}
    own, top = rows.score[part, tier[part]], rows.score[part, -1]
    assert found["quality"] == pytest.approx(own.mean())
    assert found["quality_of_top"] == pytest.approx(own.mean() / top.mean())
    assert found["saving"] == pytest.approx(
        rows.paid[part, -1].sum() / rows.paid[part, tier[part]].sum()
    )
    bad = ~rows.sufficed[part, tier[part]] & rows.sufficed[part, -1]
    assert found["bad_downgrade"] == pytest.approx(bad.mean())
    assert found["brier"] == pytest.approx(((rows.p[part] - rows.score[part]) ** 2).mean())
    whole = metrics(np.isin(np.arange(400), part)[None] * 1.0)
    assert {name: float(value[0, 0]) for name, value in whole.items()} == pytest.approx(found)


# --- in the report ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def report():
    rows = rows_of(n=400)
    slices = (
        Slice("source", "[bold]odd <name>", np.arange(300)),
        Slice("tag", "three", np.arange(3)),
    )
    fields = {name: getattr(rows, name) for name in rows.__dataclass_fields__}
    return build_report(type(rows)(**fields | {"slices": slices}), Policy(50.0, None, PROMISE), ())


def test_the_report_holds_them(report):
    told = json.loads(json.dumps(report.as_json(), allow_nan=False))["slices"]
    assert [part["name"] for part in told] == ["[bold]odd <name>", "three"]
    assert told[0]["metrics"]["quality"]["low"] < told[0]["metrics"]["quality"]["high"]
    assert told[1] == {
        "kind": "tag", "name": "three", "rows": 3, "sessions": 2, "metrics": None,
        "promise": TOO_FEW, "p_value": None,
    }  # fmt: skip
    assert not any("slice" in name for name in report.flat())


def test_the_terminal_shows_them_and_answers(report):
    text = "\n".join(report_tables(report))
    assert "source: [bold]odd <name>" in text
    assert "1 with too few rows to tell" in text
    assert "Is Suffice better than" in text
    for rival in ("matched random", "best constant", "kNN", "logistic regression", "always top"):
        assert rival in text


def test_without_a_promise_no_verdict():
    found = build_report(rows_of(), Policy(50.0), ())
    assert found.slices == ()
    assert judged([Slice("t", "a", np.arange(40))], np.zeros(40))[0].verdict == HOLDS
    part, score = Slice("t", "a", np.arange(40)), np.ones((40, 2))
    [told] = judged([part], None, score=score, promise=None)
    assert told.verdict == UNJUDGED


@pytest.mark.parametrize(
    ("low", "high", "more", "answer"),
    [
        (0.1, 0.3, True, YES),
        (-0.3, -0.1, True, NO),
        (-0.1, 0.3, True, OPEN),
        (-0.3, -0.1, False, YES),
        (0.1, 0.3, False, NO),
        (0.0, 0.0, True, SAME),
    ],
)
def test_a_comparison_is_answered_by_its_interval(low, high, more, answer):
    asked = Comparison("x", Measure("m", more, "+.1f"), Interval((low + high) / 2, 0, low, high, 0))
    assert asked.answer == answer


def test_rates_count_a_session_once() -> None:
    score = np.array([1.0, 1, 1, 1, 0, 0, 0, 0, np.nan])
    parts = (Slice("task", "all", np.arange(9)), Slice("task", "nobody", np.array([8])))
    alone = slice_rates(parts, score, np.arange(9)).loc["all"]
    together = slice_rates(parts, score, np.arange(9) // 4).loc["all"]
    assert slice_rates(parts, score, np.arange(9)).index.tolist() == ["all"]
    assert (alone["rows"], alone["sessions"], together["sessions"]) == (8, 8, 2)
    assert alone["value"] == together["value"] == 0.5
    assert together["low"] < alone["low"] < 0.5 < alone["high"] < together["high"]


def test_a_rate_of_zero_is_not_certain() -> None:
    parts = (Slice("task", "hard", np.arange(20)),)
    found = slice_rates(parts, np.zeros(20), np.arange(20)).loc["hard"]
    assert found["low"] == 0
    assert found["high"] == pytest.approx(1 - 0.025 ** (1 / 20))  # Clopper and Pearson


@pytest.mark.parametrize("sizes", [(500, *[1] * 40), (*[30] * 10, *[3] * 60), (10,) * 40])
def test_rates_cover_the_truth_where_sessions_are_of_unequal_size(sizes) -> None:
    """A session's requests all go alike, well in 7 of 10 sessions, whatever its size."""
    rng = np.random.default_rng(0)
    session = np.repeat(np.arange(len(sizes)), sizes)
    part, covered = Slice("task", "all", np.arange(len(session))), 0
    for _ in range(300):
        score = (rng.random(len(sizes)) < 0.7)[session].astype(float)
        found = slice_rates([part], score, session).loc["all"]
        covered += found["low"] <= 0.7 <= found["high"]
    assert covered >= 300 * 0.95 - 2 * (300 * 0.05 * 0.95) ** 0.5


@pytest.mark.parametrize("sizes", [(150, 150, *[1] * 200), (80, 80, 80, *[1] * 160)])
def test_rates_cover_the_truth_where_two_or_three_sessions_hold_most(sizes) -> None:
    """A session's chance of going well varies about .7 by .25 or so, whatever its size."""
    rng = np.random.default_rng(0)
    session, covered = np.repeat(np.arange(len(sizes)), sizes), 0
    for _ in range(400):
        chance = rng.beta(0.7 * 7 / 3, 0.3 * 7 / 3, len(sizes))[session]
        found = rate((rng.random(len(session)) < chance).astype(float), session)
        covered += found.low <= 0.7 <= found.high
    assert covered >= 400 * 0.95 - 2 * (400 * 0.05 * 0.95) ** 0.5


def test_sessions_are_called_few_where_the_largest_decide():
    assert few_sessions(np.arange(500)) == few_sessions(np.arange(500) // 50) == ()
    [told] = few_sessions(np.repeat(np.arange(241), (160, *[1] * 240)))
    assert "holds 40% of the requests" in told
    assert "all 241 tell as much as 6.2 of equal size" in told
    [told] = few_sessions(np.repeat(np.arange(3), 100))
    assert "holds 33% of the requests" in told
    assert "all 3 tell as much as 3 of equal size" in told


def test_figures_of_a_slice_that_is_mostly_one_session_are_wide():
    session = np.repeat(np.arange(41), (500, *[1] * 40))
    part, score = Slice("tag", "a", np.arange(540)), np.ones((540, 2))
    [found] = judged([part], np.zeros(540), session=session, score=score)
    assert found.metrics["bad_downgrade"].high > 0.5  # not the 8.6 % of 41 equal sessions


def test_what_all_goes_to_the_top_has_no_bad_downgrade_by_definition():
    n = 60
    score = (np.random.default_rng(0).random((n, 2)) < 0.7).astype(float)
    part = Slice("tag", "a", np.arange(n))
    [found] = judged([part], np.full(n, 0.1), score=score, tier=1)
    assert found.metrics["bad_downgrade"].high == 0.0
    assert found.metrics["quality_of_top"].low == found.metrics["quality_of_top"].high == 1.0


def test_limits_of_a_slice_of_everything_are_those_of_everything():
    rows = rows_of(n=400)
    found = build_report(replace(rows, slices=(Slice("a", "b", np.arange(400)),)), Policy(50.0), ())
    [part] = found.slices
    for name in ("quality", "bad_downgrade", "quality_of_top"):
        assert part.metrics[name].as_json() == pytest.approx(
            found.figures["policy"][name].as_json()
        )


def test_calibration_of_a_slice_has_no_limits_as_that_of_the_whole_has_none(report):
    """Resamples of true probabilities are off by more than the rows are, all of them."""
    for part in report.slices:
        if part.metrics is not None:
            assert part.as_json()["metrics"]["ece"]["low"] is None
            assert part.metrics["ece"].value >= 0
