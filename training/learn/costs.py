"""Token models fitted to a log, and the account: what each tier's answer did cost or would."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import PoissonRegressor
from sklearn.model_selection import GroupKFold
from sklearn.preprocessing import StandardScaler

from router.cost import TokenModel
from router.tier import Tier
from training.errors import BadInput
from training.learn.members import Matrix
from training.log.requests import Requests

MIN_ROWS = 50
PENALTIES = (0.3, 3.0)  # for standardised features and tokens divided by their mean
FOLDS = 3
TUNED_ON = 4000  # the penalty is picked on so many rows at most: more pick no better


def fit_tokens(
    x: Matrix, requests: Requests, names: Sequence[str] = ()
) -> tuple[tuple[TokenModel, ...], tuple[str, ...]]:
    """Fit one token model per tier on the fit rows; a tier with few answers uses all tiers'.

    Returns:
        The models, and notes: on what the log does not say, and on the error of each named tier's
        model on its own answers that it was not fitted on.
    """
    notes: list[str] = []
    tiers = requests.score.shape[1]
    if np.isnan(requests.output_tokens).all():
        notes.append("the log holds no answer lengths: costs count input tokens only")
    sessions = requests.sessions
    models = []
    for k in range(tiers):
        base, slope = _input_line(x.tokens, requests.input_tokens[:, k])
        known = ~np.isnan(requests.output_tokens[:, k])
        rows, columns = np.flatnonzero(known), np.full(known.sum(), k)
        if known.sum() < MIN_ROWS:
            rows, columns = np.nonzero(~np.isnan(requests.output_tokens))
        tokens = requests.output_tokens[rows, columns]
        weights, bias, error = _lengths(x.dense[rows], tokens, sessions[rows])
        flat = not weights.any()
        low, high = (tokens.mean(),) * 2 if flat and len(tokens) else _ends(tokens)
        models.append(TokenModel(base, slope, weights, bias, float(low), float(high)))
        if error is not None and k < len(names) and known.sum() >= MIN_ROWS:
            notes.append(f"tier {names[k]}: {error} (cross-fitted)")
    return tuple(models), tuple(notes)


def _ends(tokens: NDArray[np.float64]) -> tuple[float, float]:
    return (float(tokens.min()), float(tokens.max())) if len(tokens) else (0.0, 0.0)


def length_notes(
    x: Matrix, requests: Requests, models: Sequence[TokenModel], names: Sequence[str]
) -> tuple[str, ...]:
    """How far expected answer lengths are from logged ones, tier by tier, in words."""
    expected = expected_tokens(x, models)[:, :, 1]
    logged = requests.output_tokens
    return tuple(
        f"tier {name}: {_error(expected[known, k], logged[known, k])}"
        for k, name in enumerate(names)
        if (known := ~np.isnan(logged[:, k])).sum() >= MIN_ROWS
    )


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


def _lengths(
    dense: NDArray[np.float32], tokens: NDArray[np.float64], sessions: NDArray[np.int64]
) -> tuple[NDArray[np.float64], float, str | None]:
    """Weights and bias of log E[tokens], and the error in words.

    Poisson regression: what costs need is the mean, which it aims at and keeps. (A regression of
    log tokens with its mean restored aims at the median: on MMLU-Pro it was further from the logged
    lengths, in squared error, than a constant.) The penalty is picked by cross-fitting over whole
    sessions; a model that is no better than a constant there is one.
    """
    mean = float(tokens.mean()) if len(tokens) else 0.0
    level = float(np.log(mean)) if mean > 0 else 0.0
    constant = np.zeros(dense.shape[1]), level
    some = np.unique(np.linspace(0, len(tokens) - 1, TUNED_ON).astype(np.int64))
    if len(tokens) < MIN_ROWS or mean <= 0 or len(np.unique(sessions[some])) < FOLDS:
        return *constant, None
    x, y = dense[some], tokens[some]
    folds = list(GroupKFold(FOLDS).split(x, groups=sessions[some]))
    guesses = {None: np.empty(len(y))} | {penalty: np.empty(len(y)) for penalty in PENALTIES}
    for inside, outside in folds:
        guesses[None][outside] = y[inside].mean()
        for penalty in PENALTIES:
            weights, bias = _poisson(x[inside], y[inside], penalty)
            z = np.minimum(x[outside] @ weights + bias, np.log(max(y[inside].max(), 1.0)))
            guesses[penalty][outside] = np.exp(z)
    best = min(guesses, key=lambda penalty: float(((guesses[penalty] - y) ** 2).sum()))
    if best is None:
        return *constant, f"answers have {mean:.0f} tokens on average; lengths not predictable"
    weights, bias = _poisson(dense, tokens, best)
    return weights, bias, _error(guesses[best], y)


def _poisson(
    x: NDArray[np.float32], tokens: NDArray[np.float64], penalty: float
) -> tuple[NDArray[np.float64], float]:
    """Weights float64[dim] and bias of the log of the mean; `penalty` does not depend on units.

    In single precision, which halves the time and tells the same to six digits.
    """
    scaler = StandardScaler().fit(x)
    mean = tokens.mean()
    model = PoissonRegressor(alpha=penalty, solver="newton-cholesky")
    model.fit(scaler.transform(x), tokens / mean)
    weights = model.coef_.astype(np.float64) / scaler.scale_
    return weights, float(model.intercept_ + np.log(mean) - scaler.mean_ @ weights)


def _error(expected: NDArray[np.float64], logged: NDArray[np.float64]) -> str:
    """How far expected lengths are from logged ones, in words."""
    spread = float(((logged - logged.mean()) ** 2).mean())
    explained = 1.0 - float(((expected - logged) ** 2).mean()) / spread if spread > 0 else 1.0
    return (
        f"expected output tokens are off by {np.abs(expected - logged).mean():.0f} on average "
        f"(answers have {logged.mean():.0f}), {round(explained, 2) + 0.0:.0%} of the variance "
        "explained"
    )


def account(
    x: Matrix, requests: Requests, models: Sequence[TokenModel], tiers: Sequence[Tier]
) -> NDArray[np.float64]:
    """The account: USD of each request on each tier, float64[n, k].

    As billed where the log says so, else prices × tokens. Tokens are as logged; where a tier did
    not answer, or the log does not say, they are those that its token model expects.
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
            "prices (`suffice init` leaves out those that the log does not tell)"
        )
    return tuple(
        f"tier {name}: both prices are 0, it counts as free; fill them in if it is not"
        for name in free
    )
