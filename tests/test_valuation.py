"""One-sided logs through the command line: which world, what it says, and when it refuses."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest

from router.policy import Policy, Promise
from router.predictor import Estimates
from tests.traffic_makers import call, make_rows, one_sided, requests_of, write_log
from training.errors import BadInput
from training.measure.intervals import Interval
from training.measure.offpolicy import Logged, doubly_robust_terms, fixed, interval
from training.measure.valuation import value_policies
from training.measure.world import pick_world
from training.show.verdict_one_sided import badges, headline, promise

NAMES = ("small", "large")


def told(path):
    return json.loads(path.read_text(encoding="utf-8"))


def fresh_rows(n, seed=11):
    """Later requests that the artifact of `job` has not seen."""
    rows = make_rows(n, seed)
    return [row | {"request_id": f"later-{row['request_id']}"} for row in rows]


def small_world(n, seed, explore=0.3):
    """A log of two tiers, estimates, the account, and P(suffices): policy `Policy(0)` routes."""
    rng = np.random.default_rng(seed)
    truth = np.stack([rng.beta(2, 1.5, n), np.full(n, 0.85)], axis=1)
    p = np.clip(truth + rng.normal(0, 0.1, truth.shape), 0, 1)
    score, asked = np.full((n, 2), np.nan), np.full((n, 2), np.nan)
    tier = (rng.random(n) >= explore).astype(np.int64)
    rows = np.arange(n)
    score[rows, tier] = rng.random(n) < truth[rows, tier]
    asked[rows, tier] = np.where(tier == 0, explore, 1 - explore)
    usd = np.tile([0.001, 0.01], (n, 1))
    return Logged(score, asked, rows), Estimates(p, usd), usd, truth


# --- in words ---------------------------------------------------------------------------------


def test_the_top_tier_s_headline_says_that_it_is_dearer_and_promises_nothing():
    logged, estimates, usd, _ = small_world(600, 0)
    made = Promise("min_quality", 0.99, 0.95, 150, 1.0, 1.0, True, "by definition")
    found = value_policies(logged, estimates, usd, Policy(0.0, 1, made), NAMES, ())
    told = headline(found)
    extra = 1000 * found.against["logging policy"]["cost_usd"].value
    assert extra > 0
    share = 100 * extra / (10 - extra)
    assert told["answer"] == (
        f"Sends everything to large; costs {share:.0f}\u202f% more than the log did "
        f"(+${extra:.2f} per 1,000)."
    )
    assert f"+${extra:.2f} per 1,000 (+$" in told["sure"]
    words = [badge["word"] for badge in badges(found)]
    assert words == ["Estimated", "Nothing to promise"]
    assert "certified" not in promise(found)["text"]
    assert not any("not shown to beat" in note for note in found.notes)


def test_a_cheaper_router_s_headline_says_by_how_much():
    logged, estimates, usd, _ = small_world(600, 0, explore=0.1)
    found = value_policies(logged, estimates, usd, Policy(20.0), NAMES, ())
    told = headline(found)
    assert re.search(r"; costs \d+\u202f% less than the log did \(−\$", told["answer"])
    assert badges(found)[1]["word"].startswith("Better than random")


@pytest.mark.parametrize(
    ("mu", "target", "word"),
    [(10.0, 0.8, "Promise holds"), (1e3, 0.7, "Promise in doubt"), (1e3, 0.9, "Promise broken")],
)
def test_what_became_of_the_promise_is_estimated(mu, target, word):
    policy = Policy(
        mu, None, Promise("min_quality", target, 0.95, 150, 0.97, 0.93, True, "betting")
    )
    logged, estimates, usd, truth = small_world(4000, 0)
    found = value_policies(logged, estimates, usd, policy, NAMES, ())
    tier = policy.choose(estimates.p, usd)
    seen = found.figures["policy"]["quality_of_top"]
    assert seen.low < truth[np.arange(4000), tier].mean() / truth[:, 1].mean() < seen.high
    parts = (found.figures[name]["quality"].value for name in ("policy", "always large"))
    assert seen.value == pytest.approx(next(parts) / next(parts))
    told = promise(found)
    assert told["word"] == word
    assert f"an estimated {100 * seen.value:.1f}\u202f% (" in told["text"]
    assert [badge["word"] for badge in badges(found)][:2] == ["Estimated", word]
    assert found.as_json()["policies"]["policy"]["quality_of_top"]["value"] == seen.value


def test_bad_downgrades_are_not_judged_on_one_sided_rows():
    logged, estimates, usd, _ = small_world(600, 0)
    made = Promise("max_bad_downgrade", 0.05, 0.95, 150, 0.01, 0.04, True, "binomial")
    found = value_policies(logged, estimates, usd, Policy(10.0, None, made), NAMES, ())
    told = promise(found)
    assert told["word"] == "Promise not judged here"
    assert "cannot be told from these requests" in told["text"]


def test_one_sided_promises_are_in_the_words_of_the_paired_page():
    logged, estimates, usd, _ = small_world(600, 0)
    for rule, said in (
        ("min_quality", "at least 90.0\u202f% of the top’s quality"),
        ("max_bad_downgrade", "at most 90.0\u202f% bad downgrades"),
    ):
        for test in ("betting", "by definition"):
            made = Promise(rule, 0.9, 0.95, 150, 1.0, 1.0, True, test)
            found = value_policies(logged, estimates, usd, Policy(0.0, 1, made), NAMES, ())
            assert said in promise(found)["text"]


def test_failures_too_rare_to_be_seen_are_allowed_for():
    """None of some 130 answers of the small tier failed: up to 2.8 % may, for all that is known."""
    logged, estimates, usd, _ = small_world(260, 0, explore=0.5)
    seen = ~np.isnan(logged.score[:, 0])
    logged.score[seen, 0] = 1.0
    estimates.p[:, 0] = 0.999
    found = value_policies(logged, estimates, usd, Policy(0.0, 0), NAMES, ())
    for name in ("policy", "always small", "matched random"):
        assert found.figures[name]["quality"].low == pytest.approx(1 - 3.7 / seen.sum(), abs=0.005)
    kept = found.figures["policy"]["quality_of_top"]
    top = found.figures["always large"]["quality"].value
    assert kept.low <= kept.value - 3.5 / seen.sum() / top
    assert "quality  " not in headline(found)["sure"]
    top = value_policies(logged, estimates, usd, Policy(0.0, 1), NAMES, ())
    assert top.figures["policy"]["quality_of_top"].low == 1.0


def test_where_failures_are_seen_the_limits_are_those_of_the_terms():
    logged, estimates, usd, _ = small_world(2000, 1)
    found = value_policies(logged, estimates, usd, Policy(20.0), NAMES, ())
    terms = doubly_robust_terms(logged, fixed(Policy(20.0).choose(estimates.p, usd), 2),
                                estimates.p)  # fmt: skip
    assert found.figures["policy"]["quality"] == interval(terms, logged.session)


def test_a_headline_without_limits_names_none():
    logged, estimates, usd, _ = small_world(600, 0)
    found = value_policies(logged, estimates, usd, Policy(0.0, 0), NAMES, ())
    one = found.figures["policy"]["quality"]
    sure = Interval(one.value, one.value, one.value, one.value, 0.0)
    figures = found.figures | {"policy": found.figures["policy"] | {"quality": sure}}
    assert "quality  " not in headline(replace(found, figures=figures))["sure"]


def test_matched_random_has_the_shares_that_the_policy_happens_to_have():
    """Nine in ten go to the top, mostly paired: with shares taken as known 89 of 100 limits cover.

    The top tier gains 0.2 where the policy uses it, and loses 0.1 elsewhere: 0.027 over random.
    """
    covered = 0
    for seed in range(300):
        rng = np.random.default_rng(seed)
        top, n = rng.random(500) < 0.9, 500
        truth = np.stack([np.where(top, 0.7, 1.0), np.full(n, 0.9)], axis=1)
        score, asked = (rng.random((n, 2)) < truth) * 1.0, np.full((n, 2), np.nan)
        alone, tier = rng.random(n) < 0.05, rng.integers(0, 2, n)
        asked[alone, tier[alone]] = 0.5
        score[alone, 1 - tier[alone]] = np.nan
        usd = np.tile([0.001, 0.01], (n, 1))
        logged = Logged(score, asked, np.arange(n))
        found = value_policies(logged, Estimates(truth, usd), usd, Policy(1.0), NAMES, ())
        gap = found.against["matched random"]
        covered += gap["quality"].low <= 0.9 * 0.1 * 0.3 <= gap["quality"].high
        assert gap["cost_usd"].low == pytest.approx(0.0, abs=1e-12)  # the same share, and price
    assert covered >= 300 * 0.95 - 2 * (300 * 0.05 * 0.95) ** 0.5


# --- which world ------------------------------------------------------------------------------


def test_the_world_is_that_in_which_the_rarest_tier_is_seen_more_often(tmp_path):
    paired = make_rows(60)
    few = [row | {"request_id": f"o{row['request_id']}"} for row in make_rows(30, seed=1)]
    many = [row | {"request_id": f"o{row['request_id']}"} for row in make_rows(900, seed=1)]
    world = pick_world(requests_of(paired + one_sided(few, 0.5), tmp_path), 20)
    assert world.paired and len(world.rows) == 60
    assert "30 without left out" in world.note
    world = pick_world(requests_of(paired + one_sided(many, 0.5), tmp_path), 20)
    assert not world.paired and len(world.rows) == 960
    assert "900 requests that one tier answered" in world.note
    only_large = one_sided(many, 0.0)
    assert pick_world(requests_of(paired + only_large, tmp_path), 20).paired


def test_without_propensities_there_is_no_one_sided_world(tmp_path):
    requests = requests_of(one_sided(make_rows(60), 0.5, logged=False), tmp_path)
    with pytest.raises(
        BadInput, match=r"0 requests .* 20 are needed: .*; the other 60 carry no prop"
    ):
        pick_world(requests, 20)


# --- values -----------------------------------------------------------------------------------


def test_values_lie_near_the_truth_and_differences_are_paired():
    logged, estimates, usd, truth = small_world(4000, 0)
    found = value_policies(logged, estimates, usd, Policy(0.0), NAMES, ("first",))
    tier = estimates.p.argmax(axis=1)
    for name, true in {
        "policy": truth[np.arange(4000), tier].mean(),
        "always small": truth[:, 0].mean(),
        "always large": truth[:, 1].mean(),
    }.items():
        for metric in ("quality", "ips", "snips"):
            assert found.figures[name][metric].low < true < found.figures[name][metric].high, name
    gap = found.against["always large"]["quality"]
    apart = (
        found.figures["policy"]["quality"].value - found.figures["always large"]["quality"].value
    )
    assert gap.value == pytest.approx(apart)
    observed = np.nansum(logged.score, axis=1).mean()
    assert found.figures["logging policy"]["quality"].value == pytest.approx(observed)
    share = (tier == 1).mean()
    assert found.figures["policy"]["cost_usd"].value == pytest.approx(0.001 + 0.009 * share)
    assert found.figures["matched random"]["cost_usd"].value == pytest.approx(0.001 + 0.009 * share)
    assert found.against["matched random"]["quality"].low > 0
    assert found.notes == ("first",)
    assert found.effective["always small"] == pytest.approx(1200, rel=0.1)


def test_what_the_log_cannot_speak_of_has_no_value():
    logged, estimates, usd, _ = small_world(2000, 1)
    gain = estimates.p[:, 1] - estimates.p[:, 0]
    never = gain > np.quantile(gain, 0.7)
    score, asked = logged.score.copy(), logged.propensity.copy()
    small = never & ~np.isnan(score[:, 0])
    score[never, 0], asked[never, 0] = np.nan, np.nan
    score[small, 1], asked[small, 1] = 1.0, 0.7
    found = value_policies(
        Logged(score, asked, logged.session), estimates, usd, Policy(0.0), NAMES, ()
    )
    assert list(found.missing) == ["always small", "matched random"]
    assert set(found.figures["always small"]) == {"cost_usd"}
    assert found.as_json()["policies"]["policy"]["quality"]["value"] > 0
    with pytest.raises(BadInput, match=r"the policy sends .* to tier 'small' .*at least 5% of"):
        value_policies(
            Logged(score, asked, logged.session), estimates, usd, Policy(0.0, 0), NAMES, ()
        )


def test_propensities_that_do_not_fit_the_log_are_noticed():
    logged, estimates, usd, _ = small_world(3000, 2)
    wrong = Logged(logged.score, np.minimum(1.6 * logged.propensity, 0.9), logged.session)
    found = value_policies(wrong, estimates, usd, Policy(0.0, 0), NAMES, ())
    assert any("propensities do not fit the log" in note for note in found.notes)


def test_few_effective_rows_are_told():
    logged, estimates, usd, _ = small_world(150, 3)
    found = value_policies(logged, estimates, usd, Policy(0.0, 0), NAMES, ())
    assert any("effective rows of 150" in note for note in found.notes)


# --- the command ------------------------------------------------------------------------------


def test_evaluate_says_which_world_and_values_policies(job, workdir, capsys):
    log = write_log(workdir / "log.parquet", one_sided(fresh_rows(600), 0.3))
    made = call(capsys, "evaluate", job.artifact, "--traffic", log, "--json", workdir / "r.json")
    assert made.code == 0, made.err
    for words in (
        "mean quality for $",
        "Estimated. ",
        "world: one-sided",
        "doubly robust",
        "SNIPS",
        "logging policy",
        "Who was tried",
    ):
        assert words in made.out
    report = told(workdir / "r.json")
    assert report["world"] == "one-sided"
    assert report["rows"] == 600
    assert report["left_out"] == 0
    names = ["policy", "always small", "always large", "matched random", "logging policy"]
    assert list(report["policies"]) == names
    assert list(report["suffice_minus"]) == names[1:]
    value = report["policies"]["policy"]["quality"]
    assert value["low"] < value["value"] < value["high"]
    assert report["overlap"][0]["share"]["small"] == pytest.approx(0.3, abs=0.15)
    paired = call(
        capsys, "evaluate", job.artifact, "--traffic", job.fresh, "--json", workdir / "p.json"
    )
    assert "world: paired, 120 requests" in paired.out
    assert re.search(r"^Saves .* of the top tier’s quality\. Promise \w+", paired.out, re.M)
    assert told(workdir / "p.json")["world"] == "paired"


def test_evaluate_refuses_where_the_cheap_tier_was_never_tried(job, workdir, capsys):
    log = write_log(workdir / "log.parquet", one_sided(fresh_rows(600), 0.0))
    outcome = call(capsys, "evaluate", job.artifact, "--traffic", log, "--json", workdir / "r.json")
    outcome.refused("'small'", "never", "Explore: send at least", "propensity")
    assert not (workdir / "r.json").exists()


def test_evaluate_estimates_propensities_only_when_asked(job, workdir, capsys):
    rows = one_sided(fresh_rows(600), 0.3, logged=False)
    log = write_log(workdir / "log.parquet", rows)
    command = ("evaluate", job.artifact, "--traffic", log, "--json", workdir / "r.json")
    call(capsys, *command).refused("600 carry no propensity", "--estimate-propensities", "replay")
    made = call(capsys, *command, "--estimate-propensities")
    assert made.code == 0, made.err
    assert "ESTIMATED, not logged: the propensities of 600 requests" in made.out
    report = told(workdir / "r.json")
    assert any(note.startswith("ESTIMATED") for note in report["notes"])
    assert report["policies"]["always small"]["snips"]["value"] == pytest.approx(0.55, abs=0.12)
    only = write_log(workdir / "only.parquet", one_sided(fresh_rows(600), 0.0, logged=False))
    refused = call(capsys, "evaluate", job.artifact, "--traffic", only, "--estimate-propensities")
    refused.refused("--estimate-propensities: 0, 600 answers", "explore")


def test_estimated_propensities_see_what_the_policy_looked_at(job, tmp_path):
    """Hard prompts went to large with 0.9, easy ones with 0.4: the estimates tell them apart."""
    from router.artifact import load_artifact
    from training.measure.propensities import estimate_propensities

    rng, rows = np.random.default_rng(5), fresh_rows(1500)
    truth, left = [], []
    for cheap, top in zip(rows[::2], rows[1::2], strict=True):
        large = 0.9 if cheap["output_tokens"] > 100 else 0.4  # hard ones are answered at length
        taken = rng.random() < large
        truth.append(large if taken else 1 - large)
        left.append(top if taken else cheap)
    embedder = load_artifact(job.artifact).predictor.vectorizer.embedder
    found, notes = estimate_propensities(requests_of(left, tmp_path), embedder)
    guess = np.nanmax(found.propensity, axis=1)
    assert np.corrcoef(guess, truth)[0, 1] > 0.7
    assert np.mean(1 / guess) == pytest.approx(np.mean(1 / np.array(truth)), rel=0.1)
    np.testing.assert_allclose(np.nanmax(found.weight * (found.weight != 1), axis=1), 1 / guess)
    assert len(notes) == 1
