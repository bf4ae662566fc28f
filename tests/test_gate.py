"""The gate: what it lets through, what it refuses, and how often it errs."""

from dataclasses import replace

import numpy as np

from router.policy import Promise
from training.measure.reliability import debiased_ece
from training.measure.slices import Slice
from training.retrain.gate import Entrant, Holdout, Limits, judge
from training.retrain.verdict import GAIN

PRICE = np.array([0.1, 1.0])


def holdout(n: int, seed: int, quality: tuple[float, float] = (0.7, 0.9)) -> Holdout:
    rng = np.random.default_rng(seed)
    score = (rng.random((n, 2)) < quality).astype(float)
    paid = PRICE * rng.gamma(2.0, 0.5, (n, 1))
    return Holdout(("small", "large"), score, paid, np.arange(n), score, score >= 0.5)


def entrant(rows: Holdout, tier: np.ndarray, **more: object) -> Entrant:
    p = np.broadcast_to(rows.quality.mean(axis=0), rows.quality.shape)
    made = Entrant(tier, p, None, None, 0.0, np.full(50, 0.3))
    return replace(made, **more)  # type: ignore[arg-type]


def good(rows: Holdout, top: float, seed: int) -> np.ndarray:
    """Choices that know something: the small tier mostly where it suffices."""
    rng = np.random.default_rng(seed)
    known = np.where(rng.random(len(rows.session)) < 0.6, rows.quality[:, 0], rng.random())
    return (known < np.quantile(known, top)).astype(np.int64)


def failed(verdict: object) -> list[str]:
    return [check.name for check in verdict.checks if not check.passed]  # type: ignore[attr-defined]


def test_a_first_challenger_has_to_beat_blind_policies_only() -> None:
    rows = holdout(3000, 0)
    assert judge(rows, entrant(rows, good(rows, 0.5, 1)), {}, Limits()).passed
    blind = np.random.default_rng(2).integers(0, 2, 3000)
    assert "better than matched random" in failed(judge(rows, entrant(rows, blind), {}, Limits()))


def test_a_constant_is_compared_with_the_other_constants() -> None:
    rows = holdout(3000, 0, (0.9, 0.9))
    small = entrant(rows, np.zeros(3000, np.int64), constant=0)
    assert judge(rows, small, {}, Limits()).passed  # as good, and cheaper
    large = entrant(rows, np.ones(3000, np.int64), constant=1)
    assert failed(judge(rows, large, {}, Limits())) == ["better or cheaper than always small"]


def test_the_champion_s_equal_is_refused_for_that_alone() -> None:
    rows = holdout(3000, 0)
    tier = good(rows, 0.5, 1)
    verdict = judge(rows, entrant(rows, tier), {"champion": tier, "anchor": tier}, Limits())
    assert failed(verdict) == [GAIN]
    assert verdict.only_equal


def test_small_losses_do_not_add_up_against_the_anchor() -> None:
    rows = holdout(20_000, 0)
    tier = good(rows, 0.5, 1)
    lost = np.flatnonzero((tier == 1) & (rows.quality[:, 1] > rows.quality[:, 0]))[:400]
    worse = tier.copy()
    worse[lost] = 0  # 2 points below the anchor, level with the champion
    verdict = judge(rows, entrant(rows, worse), {"champion": worse, "anchor": tier}, Limits())
    assert "quality not below the anchor's" in failed(verdict)
    assert "quality not below the champion's" not in failed(verdict)


def test_a_slice_that_falls_is_named() -> None:
    rows = holdout(10_000, 0)
    tier = good(rows, 0.5, 1)
    inside = np.arange(1000)
    rows = replace(
        rows, slices=(Slice("source", "billing", inside), Slice("source", "x", inside[:9]))
    )
    worse = tier.copy()
    worse[inside] = np.where(rows.quality[inside, 0] < 1, 0, worse[inside])
    verdict = judge(rows, entrant(rows, worse), {"champion": tier}, Limits())
    assert any("billing" in name for name in failed(verdict))


def test_a_broken_promise_calibration_latency_and_replay_are_refused() -> None:
    rows = holdout(5000, 0)
    tier = good(rows, 0.3, 1)
    promise = Promise("min_quality", 1.0, 0.95, 500, 1.0, 1.0, True)
    p = np.full(rows.quality.shape, 0.3)
    bad = entrant(rows, np.zeros(5000, np.int64), promise=promise, p=p, golden=1e-3)
    names = failed(judge(rows, replace(bad, latency_ms=np.full(9, 50.0)), {}, Limits()))
    for part in ("promise", "calibration of small", "golden", "route()"):
        assert any(part in name for name in names), (part, names)
    fine = failed(judge(rows, entrant(rows, tier), {}, Limits()))
    assert not any("calibration" in name for name in fine)


def test_too_few_rows_decide_nothing() -> None:
    rows = holdout(1, 0)
    assert not judge(rows, entrant(rows, np.zeros(1, np.int64)), {}, Limits()).passed


def test_one_session_alone_shows_no_constant_cheaper() -> None:
    """Its limits are unknown; a constant that serves badly took the place for its lower price."""
    rows = replace(holdout(500, 0, (0.3, 0.9)), session=np.zeros(500, np.int64))
    small = entrant(rows, np.zeros(500, np.int64), constant=0)
    assert failed(judge(rows, small, {}, Limits())) == ["better or cheaper than always large"]


def test_the_debiased_error_is_near_zero_where_the_probabilities_are_true() -> None:
    rng = np.random.default_rng(0)
    p = rng.random(4000)
    true = [debiased_ece(p, (rng.random(4000) < p).astype(float)) for _ in range(50)]
    assert np.mean(true) < 0.01
    off = debiased_ece(p, (rng.random(4000) < np.clip(p + 0.1, 0, 1)).astype(float))
    assert 0.07 < off < 0.12


def test_it_seldom_promotes_what_is_equal_or_worse() -> None:
    """200 challengers that differ from the champion by chance alone, or for the worse."""
    promoted = 0
    for seed in range(200):
        rows = holdout(2000, seed)
        rng = np.random.default_rng(10_000 + seed)
        champion = good(rows, 0.5, seed)
        other = champion.copy()
        swap = rng.permutation(2000)[:600]  # the same mix of tiers, elsewhere
        other[swap] = champion[rng.permutation(swap)]
        if seed % 2:  # and some worse
            other[rng.permutation(2000)[:60]] = 0
        promoted += judge(rows, entrant(rows, other), {"champion": champion}, Limits()).passed
    assert promoted <= 10 + 2 * np.sqrt(200 * 0.05 * 0.95)


def test_it_seldom_takes_what_loses_more_than_the_margin_now_and_then() -> None:
    """One request in 190 is lost: of 500 none in 7 draws of 100, which a t interval takes for 0."""
    passed, price = 0, np.tile(PRICE, (500, 1))
    champion, cheaper = np.ones(500, np.int64), (np.arange(500) % 5 > 0).astype(np.int64)
    for seed in range(300):
        score = np.ones((500, 2))
        score[::5, 0] = np.random.default_rng(seed).random(100) >= 5 / 190
        rows = Holdout(("small", "large"), score, price, np.arange(500), score, score >= 0.5)
        found = judge(rows, entrant(rows, cheaper), {"champion": champion}, Limits())
        passed += "quality not below the champion's" not in failed(found)
    assert passed <= 300 * 0.025 + 2 * np.sqrt(300 * 0.025 * 0.975)
