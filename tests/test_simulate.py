"""What a log of one answer each is left of a paired one, and how decisions turned out."""

from pathlib import Path

import numpy as np
import pytest

from tests.traffic_makers import TIERS, make_rows, write_log
from training.errors import BadInput
from training.label.rule import LabelRule, load_requests
from training.measure.hindsight import BAD, LOST, NEEDED, NEEDLESS, SAVED, cases_of
from training.measure.metrics import bad_downgrades
from training.measure.offpolicy import always, ips_terms
from training.measure.simulate import observe
from training.measure.world import logged


@pytest.fixture(scope="module")
def requests(tmp_path_factory: pytest.TempPathFactory):
    path = write_log(tmp_path_factory.mktemp("log") / "log.parquet", make_rows(400, seed=3))
    return load_requests(Path(path), TIERS, LabelRule())[0]


def test_one_answer_is_left_with_its_chance(requests) -> None:
    chance = np.tile([0.2, 0.8], (len(requests), 1))
    left = observe(requests, chance, seed=1)
    seen = ~np.isnan(left.score)
    assert (seen.sum(axis=1) == 1).all()
    assert 0.13 < seen[:, 0].mean() < 0.27
    np.testing.assert_array_equal(left.score[seen], requests.score[seen])
    np.testing.assert_array_equal(left.propensity[seen], chance[seen])
    np.testing.assert_allclose(left.weight[seen], 1 / chance[seen])
    for name in ("propensity", "output_tokens", "input_tokens"):
        assert np.isnan(getattr(left, name)[~seen]).all()
    assert not np.isnan(requests.score).any()  # the paired log is as it was


def test_draws_differ_by_seed_and_are_right_on_average(requests) -> None:
    n = len(requests)
    chance = np.tile([0.3, 0.7], (n, 1))
    values = [
        ips_terms(logged(observe(requests, chance, seed)), always(0, n, 2)).mean()
        for seed in range(60)
    ]
    assert len(set(values)) > 30
    error = np.std(values) / np.sqrt(len(values))
    assert abs(np.mean(values) - requests.score[:, 0].mean()) < 4 * error


def test_a_certain_choice_is_certain(requests) -> None:
    n = len(requests)
    left = observe(requests, always(1, n, 2), seed=0)
    assert np.isnan(left.score[:, 0]).all()
    assert (left.propensity[:, 1] == 1).all()


def test_what_cannot_be_drawn_is_refused(requests) -> None:
    n = len(requests)
    with pytest.raises(BadInput, match="shape"):
        observe(requests, np.full((n, 3), 1 / 3), 0)
    with pytest.raises(BadInput, match="add up to 1"):
        observe(requests, np.full((n, 2), 0.4), 0)
    once = observe(requests, np.full((n, 2), 0.5), 0)
    with pytest.raises(BadInput, match=f"{n} requests lack"):
        observe(once, np.full((n, 2), 0.5), 0)


def test_cases_of_decisions() -> None:
    tier = np.array([0, 0, 0, 1, 1, 1, 1])
    good = np.array([[1, 1], [0, 1], [0, 0], [1, 1], [0, 1], [0, 0], [1, 0]], dtype=bool)
    found = cases_of(tier, good)
    assert found.tolist() == [SAVED, BAD, LOST, NEEDLESS, NEEDED, NEEDED, NEEDLESS]
    np.testing.assert_array_equal(found == BAD, bad_downgrades(tier, good))
