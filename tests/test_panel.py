"""Members side by side answer as each head's own do, and as training computed them."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from router.artifact import load_artifact
from router.forest import Forest, Trees
from router.head import Head
from router.panel import Panel
from router.prompt import Prompt
from router.vectorizer import SURFACE
from tests.builders import make_artifact, make_booster, make_forest
from training.learn.flatten import flatten
from training.learn.linear import linear_margins
from training.learn.vectorize import vectorize


def grown(seed: int, dim: int, leaves: int) -> Forest:
    """A forest of its own number and size of trees, some of which saw missing values."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(300, dim))
    x[rng.random(x.shape) < 0.1] = np.nan
    y = (np.nan_to_num(x[:, seed % dim]) + rng.normal(size=300) > 0).astype(float)
    return flatten(make_booster(x, y, rounds=3 + seed, num_leaves=leaves))[0]


@pytest.fixture(scope="module")
def heads(artifact) -> list[Head]:
    """Heads whose members differ in all that may differ; one has a forest without a tree."""
    predictor = artifact.predictor
    head = predictor.heads[predictor.learned[0]]
    dim, rng = predictor.vectorizer.dim, np.random.default_rng(0)
    full = make_forest(dim)
    nothing = {name: getattr(full, name)[:0] for name in Forest.__slots__ if name != "bias"}
    bare = replace(full, **nothing, bias=0.7)
    found = []
    for seed, forest in enumerate((grown(0, dim, 5), bare, grown(2, dim, 31))):
        low = rng.normal(-1, 0.2, dim).astype(np.float32)
        linear = replace(
            head.linear,
            weights=rng.normal(size=dim),
            terms=rng.normal(size=head.linear.terms.shape).astype(np.float32),
            bias=float(seed),
            low=low,
            high=low + np.float32(1.5),
        )
        found.append(replace(head, linear=linear, forest=forest))
    return found


@pytest.fixture(scope="module")
def rows(artifact):
    texts = ("", "the cat of the mat", "the list of france " * 40)
    return vectorize(artifact.predictor.vectorizer, [Prompt.of(text) for text in texts])


@pytest.mark.parametrize("count", [1, 2, 3])
def test_linear_members_say_what_training_computed(heads, rows, count):
    panel = Panel.of(heads[:count])
    served = [panel.linear_margins(vector) for vector in rows.vectors()]
    fitted = [linear_margins(head.linear, rows) for head in heads[:count]]
    np.testing.assert_allclose(served, np.transpose(fitted), atol=1e-12)


@pytest.mark.parametrize("order", [(0, 1, 2), (1, 2, 0), (2, 0, 1), (1,)])
def test_each_forest_says_what_it_says_alone_on_any_row(heads, order):
    chosen = [heads[k] for k in order]
    panel, rng = Panel.of(chosen), np.random.default_rng(1)
    dim = len(chosen[0].linear.weights)
    dense: NDArray[np.float32] = rng.normal(size=(200, dim)).astype(np.float32)
    dense[rng.random(dense.shape) < 0.1] = np.nan
    dense[rng.random(dense.shape) < 0.05] = np.inf
    dense[rng.random(dense.shape) < 0.05] = -np.inf
    dense[:20] = rng.choice([0.0, -0.0, 1e-36, 3e38], size=(20, dim))
    for row in dense:
        alone = [Trees.of([head.forest]).leaves(row).sum() + head.forest.bias for head in chosen]
        assert panel.forest_margins(row) == alone


def test_the_predictor_serves_the_panel(tmp_path):
    predictor = load_artifact(make_artifact(tmp_path / "artifact")).predictor
    assert predictor.vectorizer.dim > SURFACE and predictor.panel is not None
    assert len(predictor.panel.forest_bias) == len(predictor.learned)
    assert replace(predictor, second=None).panel is not None
