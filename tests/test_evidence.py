"""Evidence: kept without text, read back as it was, and the same rows at other prices."""

from pathlib import Path

import mlflow
import numpy as np
import pytest

from router.tier import Tier
from tests.traffic_makers import TIERS
from training.decide.evidence import Basis, Evidence, load_evidence, save_evidence
from training.errors import BadInput
from training.learn.costs import priced

CHEAPER = (TIERS[0], Tier("large", "vendor/large-1", 2.0, 3.0))


def make(n=40, **more):
    rng = np.random.default_rng(0)
    expected, used = (rng.uniform(1, 500, (n, 2, 2)) for _ in range(2))
    score = (rng.random((n, 2)) < 0.5) * 1.0
    return Evidence(
        p=rng.random((n, 2)), usd=priced(expected, TIERS), paid=priced(used, TIERS), score=score,
        session=np.arange(n) // 2, expected=expected, used=used, **more,
    )  # fmt: skip


def same(one, other):
    for name in Evidence.__dataclass_fields__:
        ours, theirs = getattr(one, name), getattr(other, name)
        if ours is None:
            assert theirs is None
        else:
            np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(
    "more",
    [{"sufficed": np.ones((40, 2), dtype=bool)}, {"sufficed": None, "low": -9.0, "high": 10.0}],
)
def test_there_and_back(tmp_path, more):
    evidence, basis = make(**more), Basis(np.ones((3, 2)), np.ones((3, 2, 2)))
    name = save_evidence(tmp_path / "e.npz", evidence, basis)
    read, ground = load_evidence(tmp_path / "e.npz", name)
    same(read, evidence)
    np.testing.assert_array_equal(ground.tokens, basis.tokens)
    assert save_evidence(tmp_path / "again.npz", evidence, basis) == name
    with np.load(tmp_path / "e.npz", allow_pickle=False) as arrays:
        assert {array.dtype.kind for array in arrays.values()} <= set("fib")


def test_another_file_is_refused(tmp_path):
    name = save_evidence(tmp_path / "e.npz", make(), Basis(np.ones((3, 2)), np.ones((3, 2, 2))))
    (tmp_path / "e.npz").write_bytes(b"PK")
    with pytest.raises(BadInput, match="sha256"):
        load_evidence(tmp_path / "e.npz", name)


def test_other_prices():
    evidence = make()
    same(evidence.repriced(TIERS, TIERS), evidence)
    cheaper = evidence.repriced(TIERS, CHEAPER)
    np.testing.assert_allclose(cheaper.usd, priced(evidence.expected, CHEAPER))
    np.testing.assert_allclose(cheaper.paid, priced(evidence.used, CHEAPER))
    np.testing.assert_array_equal(cheaper.score, evidence.score)


def test_a_discount_on_the_bill_stays_and_a_free_tier_gets_a_price():
    evidence = make()
    evidence.paid[:, 1] *= 0.5  # cached tokens, say
    cheaper = evidence.repriced(TIERS, CHEAPER)
    np.testing.assert_allclose(cheaper.paid[:, 1], 0.5 * priced(evidence.used, CHEAPER)[:, 1])
    free = (Tier("small", "vendor/small-1", 0.0, 0.0), TIERS[1])
    back = evidence.repriced(TIERS, free).repriced(free, TIERS)
    np.testing.assert_allclose(back.paid[:, 0], evidence.paid[:, 0])


def test_the_run_of_a_job_keeps_it(job, tmp_path):
    client = mlflow.MlflowClient(job.trained.store)
    run = client.get_run(job.trained.run_id)
    told = run.data.tags["suffice.evidence"]
    file = client.download_artifacts(job.trained.run_id, "evidence/evidence.npz", str(tmp_path))
    evidence, basis = load_evidence(Path(file), told)
    assert evidence.p.shape == (352, 2)
    assert basis.p.shape == (312, 2)
    assert not (job.artifact / "evidence.npz").exists()
