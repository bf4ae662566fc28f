"""Token models fitted to a log, and the account: what each tier's answer did cost or would."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import Ridge
from sklearn.preprocessing import StandardScaler

from router.cost import TokenModel
from router.tier import Tier
from training.errors import BadInput
from training.learn.members import Matrix
from training.log.requests import Requests

MIN_ROWS = 50
PENALTY = 200.0


def fit_tokens(x: Matrix, requests: Requests) -> tuple[tuple[TokenModel, ...], tuple[str, ...]]:
    """Fit one token model per tier on the fit rows; a tier with few answers uses all tiers'.

    Returns:
        The models, and notes on what the log does not say.
    """
    notes: list[str] = []
    tiers = requests.score.shape[1]
    if np.isnan(requests.output_tokens).all():
        notes.append("the log holds no answer lengths: costs count input tokens only")
    models = []
    for k in range(tiers):
        base, slope = _input_line(x.tokens, requests.input_tokens[:, k])
        known = ~np.isnan(requests.output_tokens[:, k])
        rows, columns = np.flatnonzero(known), np.full(known.sum(), k)
        if known.sum() < MIN_ROWS:
            rows, columns = np.nonzero(~np.isnan(requests.output_tokens))
        tokens = requests.output_tokens[rows, columns]
        models.append(_output_model(x.dense[rows], tokens, base, slope))
    return tuple(models), tuple(notes)


def _input_line(counted: NDArray[np.float64], billed: NDArray[np.float64]) -> tuple[float, float]:
    """Base and slope of billed on counted input tokens; 0 and 1 where none was logged."""
    known = ~np.isnan(billed) & (counted > 0)
    if known.sum() < 2:
        return 0.0, 1.0
    x, y = counted[known], billed[known]
    slope = float(np.cov(x, y)[0, 1] / np.var(x, ddof=1)) if np.ptp(x) > 0 else -1.0
    base = float(y.mean() - slope * x.mean())
    if slope <= 0 or base < 0:
        return 0.0, float(y.sum() / x.sum())
    return base, slope


def _output_model(
    dense: NDArray[np.float32], tokens: NDArray[np.float64], base: float, slope: float
) -> TokenModel:
    """Ridge regression on log(1 + tokens), with the mean restored (Duan's smearing, 1983)."""
    dim = dense.shape[1]
    if len(tokens) < MIN_ROWS:
        mean = float(tokens.mean()) if len(tokens) else 0.0
        bias = float(np.log(mean)) if mean > 0 else 0.0
        return TokenModel(base, slope, np.zeros(dim), bias, mean, mean)
    scaler = StandardScaler().fit(dense.astype(np.float64))
    rows = scaler.transform(dense.astype(np.float64))
    model = Ridge(alpha=PENALTY).fit(rows, np.log(np.maximum(tokens, 1.0)))
    weights = model.coef_ / scaler.scale_
    bias = float(model.intercept_ - scaler.mean_ @ weights)
    low, high = float(tokens.min()), float(tokens.max())
    predicted = np.clip(np.exp(model.predict(rows)), low, high)
    bias += float(np.log(max(tokens.mean(), 1e-9) / max(predicted.mean(), 1e-9)))
    return TokenModel(base, slope, weights, bias, low, high)


def account(
    x: Matrix, requests: Requests, models: Sequence[TokenModel], tiers: Sequence[Tier]
) -> NDArray[np.float64]:
    """USD of each request on each tier, float64[n, k].

    As billed where the log says so; else prices × logged tokens; and where a tier did not answer,
    or its tokens are unknown, its token model's.
    """
    usd = requests.cost_usd
    return np.where(np.isnan(usd), priced(used_tokens(x, requests, models), tiers), usd)


def expected(x: Matrix, models: Sequence[TokenModel], tiers: Sequence[Tier]) -> NDArray[np.float64]:
    """Expected USD as serving computes it, before the call: float64[n, k]."""
    return priced(expected_tokens(x, models), tiers)


def expected_tokens(x: Matrix, models: Sequence[TokenModel]) -> NDArray[np.float64]:
    """Input and output tokens that each tier's model expects: float64[n, k, 2]."""
    tokens = np.empty((len(x.tokens), len(models), 2))
    for k, model in enumerate(models):
        tokens[:, k, 0] = [model.input_tokens(count) for count in x.tokens]
        tokens[:, k, 1] = [model.output_tokens(vector) for vector in x.vectors()]
    return tokens


def used_tokens(x: Matrix, requests: Requests, models: Sequence[TokenModel]) -> NDArray[np.float64]:
    """Input and output tokens as logged, else as expected: float64[n, k, 2]."""
    logged = np.stack([requests.input_tokens, requests.output_tokens], axis=2)
    return np.where(np.isnan(logged), expected_tokens(x, models), logged)


def priced(tokens: NDArray[np.float64], tiers: Sequence[Tier]) -> NDArray[np.float64]:
    """USD of input and output tokens, float64[n, k, 2], at the tiers' prices: float64[n, k]."""
    prices = np.array([[tier.input_usd_per_mtok, tier.output_usd_per_mtok] for tier in tiers])
    return np.asarray((tokens[:, :, 0] * prices[:, 0] + tokens[:, :, 1] * prices[:, 1]) / 1e6)


def check_prices(tiers: Sequence[Tier]) -> tuple[str, ...]:
    """Notes on tiers that cost nothing.

    Raises:
        BadInput: every price is 0, so that every mix of tiers costs the same.
    """
    free = [t.name for t in tiers if t.input_usd_per_mtok == 0 and t.output_usd_per_mtok == 0]
    if len(free) == len(tiers):
        raise BadInput(
            "tiers: every price is 0, so no mix of tiers is cheaper than another: fill in the "
            "prices (`suffice init` leaves 0 where the log does not tell)"
        )
    return tuple(
        f"tier {name}: both prices are 0, it counts as free; fill them in if it is not"
        for name in free
    )
