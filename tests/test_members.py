"""What members add: what helps is shown to help, what is noise is not."""

import numpy as np
import pytest
from scipy.special import expit

from router.head import Constant, Head
from tests.builders import make_predictor
from training.golden import golden_prompts
from training.learn.heads import FittedHeads
from training.measure.members import as_metrics, microseconds, worth

N = 1500


def fitted(margins, heads=2):
    """Heads of which only the margins are looked at."""
    one = object.__new__(Head)
    return FittedHeads(
        heads=(one,) * heads,
        blend=None,
        neighbours=None,
        boosters=(),
        growths=(),
        p=expit(margins.mean(axis=0)),
        whole=np.ones(margins.shape[1], dtype=bool),
        margins=margins,
        notes=(),
        choices={},
    )


@pytest.fixture(scope="module")
def drawn():
    """Outcomes of two tiers; a member that sees half of the truth, one that sees it all, noise."""
    rng = np.random.default_rng(0)
    hidden, more = rng.normal(size=(2, N, 2)) * 1.5
    score = (rng.random((N, 2)) < expit(hidden + more + [-0.5, 1.0])) * 1.0
    told = [-0.5, 1.0]  # the large tier is better, which all of them know
    return np.stack([hidden, hidden + more, rng.normal(size=(N, 2))]) + told, score


def weigh(margins, score, **changes):
    usd = np.tile([1.0, 20.0], (len(score), 1))
    told = {"weight": np.ones_like(score), "firm": np.ones_like(score, dtype=bool)}
    told |= {"usd": usd, "sessions": np.arange(len(score))}
    return worth(fitted(margins), score, **(told | changes))


def test_what_helps_is_shown_to_help_and_noise_is_not(drawn):
    half, whole, noise = weigh(*drawn)
    assert [one.name for one in (half, whole, noise)] == ["linear", "forest", "neighbours"]
    assert whole.nats.low > 20 and whole.apgr.low > 0.02
    assert abs(half.nats.value) < 5 and abs(noise.nats.value) < 5
    assert whole.describe().startswith("forest adds +")
    assert as_metrics([whole])["members.forest.nats.low"] == whole.nats.low


def test_rows_that_a_member_knows_are_left_out(drawn):
    """The fourth member, an encoder, says nothing of the rows that it learned from."""
    margins, score = drawn
    encoder = margins[1].copy()
    encoder[: N // 2] = np.nan
    heads = fitted(np.concatenate([margins[[0, 2, 2]], encoder[None]]))
    whole = ~np.isnan(encoder).any(axis=1)
    object.__setattr__(heads, "whole", whole)
    usd = np.tile([1.0, 20.0], (int(whole.sum()), 1))
    firm = np.ones_like(score, dtype=bool)
    found = worth(heads, score, np.ones_like(score), firm, usd, np.arange(N))
    assert found[-1].name == "encoder" and found[-1].nats.low > 20


def test_one_sided_rows_have_losses_but_no_curve(drawn):
    margins, score = drawn
    score = score.copy()
    score[np.arange(N), np.random.default_rng(1).integers(0, 2, N)] = np.nan
    found = weigh(margins, score)
    assert all(one.apgr is None for one in found)
    assert found[1].nats.low > 20


def test_one_session_has_no_intervals(drawn):
    assert weigh(*drawn, sessions=np.zeros(N, dtype=np.int64)) == ()


def test_each_member_is_timed():
    predictor = make_predictor()
    assert isinstance(predictor.heads[-1], Constant)
    times = microseconds(predictor, golden_prompts()[:5])
    assert list(times) == ["linear", "forest", "neighbours"]
    assert all(0 < value < 1e5 for value in times.values())


def test_tiers_that_hardly_differ_have_no_share_of_a_gap(drawn):
    """Where the top tier is no better in many resamples, an interval of APGR does not exist."""
    margins, score = drawn
    score = np.column_stack([score[:, 1], np.roll(score[:, 1], 1)])
    score[0] = [0, 1]
    found = weigh(margins, score)
    assert all(one.apgr is None and "nan" not in one.describe() for one in found)
