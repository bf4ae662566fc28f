"""Two stages: fitting the gate between them, and what both say of many prompts.

Three things are fitted on cross-fitted probabilities of the fit rows: the weight of the second
stage's answer; how far it is likely to move the first's, by the first stage's vector; and, for
every dial that may be served, the floor of gain per token above which it is asked. Floors let it
read `BUDGET` of the fit rows' tokens. On new prompts heads are less sure, so it reads more;
with the first stage's own time that comes to about 30 % of the second stage's mean latency.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from time import perf_counter

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit
from sklearn.linear_model import GammaRegressor
from sklearn.preprocessing import StandardScaler

from router.gate import Gate
from router.predictor import Predictor
from router.prompt import Prompt
from router.vectorizer import text_tokens
from training.learn.blending import routing_loss
from training.learn.members import Matrix
from training.learn.memory import Remembering
from training.learn.vectorize import vectorize

Floats = NDArray[np.float64]
BUDGET = 0.22  # share of the fit rows' tokens; of new prompts' it is about 0.26
PENALTY = 1.0
SHARES = (0.25, 0.375, 0.5, 0.625, 0.75, 0.875, 1.0)  # weights of the second stage
_TO_SCALE = 1.0 / (2.0 * np.log(2.0))  # mean absolute value of a logistic error → its scale


@dataclass(frozen=True, slots=True)
class Stages:
    """What two stages say of n prompts if the second is asked, and what decides whether it is.

    Attributes:
        p: float64[n, k], P(tier suffices) where the second stage is asked, by both.
        spread: float64[n], scale of the error that the first stage may make (see `router.gate`).
        tokens: float64[n], that the second stage would read.
        dials, floors: float64[m], of the gate.
    """

    p: Floats
    spread: Floats
    tokens: Floats
    dials: Floats
    floors: Floats

    def asked(self, first: Floats, usd: Floats, mu: float) -> NDArray[np.bool_]:
        """bool[n]: the second stage is asked at a dial, after the first's float64[n, k]."""
        floor = np.interp(mu, self.dials, self.floors)
        return np.asarray(_per_token(first, usd, mu, self.spread, self.tokens) > floor)

    def mixed(self, first: Floats, usd: Floats, mu: float) -> Floats:
        """P(tier suffices) as served at a dial, float64[n, k]."""
        return np.where(self.asked(first, usd, mu)[:, None], self.p, first)

    def at_floors(self, dials: Floats, floors: Floats) -> "Stages":
        """The same prompts before another gate's dials and floors, float64[m]."""
        return replace(self, dials=dials, floors=floors)


@dataclass(frozen=True, slots=True)
class Pace:
    """How long the stages take, measured where the artifact was made: another machine differs.

    Attributes:
        first_us: the first stage's microseconds for a prompt.
        second_us: the second's for each token that it reads.
    """

    first_us: float
    second_us: float

    def facts(self, asked: NDArray[np.bool_], tokens: Floats) -> dict[str, float]:
        """What a gate does on n prompts, as kept in the manifest: shares, and mean microseconds.

        Args:
            asked: bool[n], whether the second stage reads the prompt.
            tokens: float64[n], that it reads or would read.
        """
        return {
            "first_us": self.first_us,
            "second_us_per_token": self.second_us,
            "asked": float(asked.mean()),
            "mean_us": self.first_us + self.second_us * float((tokens * asked).mean()),
            "second_alone_us": self.second_us * float(tokens.mean()),
        }


def stages_in_words(facts: Mapping[str, float], which: str) -> str:
    """`Pace.facts` in a sentence; `which` are the prompts."""
    mean, alone = facts["mean_us"], facts["second_alone_us"]
    return (
        f"two stages: the first reads every prompt, the second {facts['asked']:.1%} of {which}, "
        f"where it may well change the decision: {mean / 1e3:.2f} ms a prompt on average, "
        f"{mean / alone:.0%} of the {alone / 1e3:.2f} ms that the second alone would take (as "
        "timed on the machine of the training)"
    )


def measure_pace(first: Predictor, second: Predictor, prompts: Sequence[Prompt]) -> Pace:
    """Time both stages on some prompts, in turn; medians, so that a busy moment does not count."""
    vectorizer = second.vectorizer
    if isinstance(vectorizer.embedder, Remembering):
        vectorizer = replace(vectorizer, embedder=vectorizer.embedder.embedder)
    first, second = replace(first, second=None), replace(second, vectorizer=vectorizer)
    limit = float(vectorizer.embedder.entry["max_tokens"])
    took, each = [], []
    for prompt in prompts:
        times = []
        for stage in (first, second):
            started = perf_counter()
            stage.estimate_one(prompt)
            times.append(1e6 * (perf_counter() - started))
        tokens = text_tokens(prompt, first.vectorizer.vector(prompt).tokens)
        took.append(times[0])
        each.append(times[1] / min(max(tokens, 1.0), limit))
    return Pace(float(np.median(took)), float(np.median(each)))


def read_stages(
    gate: Gate,
    dense: NDArray[np.float32],
    first: Floats,
    second: Floats,
    prompts: Sequence[Prompt],
    counted: Floats,
) -> Stages:
    """What both stages need to know of n prompts.

    Args:
        gate: between them.
        dense: float32[n, dim], of the first stage.
        first, second: float64[n, k], P(tier suffices) by each.
        prompts: as the features see them.
        counted: float64[n], input tokens of the whole requests.
    """
    spread = np.array([gate.spread(row) for row in dense])
    tokens = read_tokens(prompts, counted, gate.limit)
    p = averaged(first, second, gate.share)
    return Stages(p, spread, tokens, gate.dials, gate.floors)


def averaged(first: Floats, second: Floats, share: float) -> Floats:
    """`router.gate.both` of n prompts, float64[n, k]."""
    return np.asarray(expit((1.0 - share) * _odds(first) + share * _odds(second)))


def _odds(p: Floats) -> Floats:
    return np.asarray(logit(np.clip(p, 1e-12, 1.0 - 1e-12)))


def stages_of(predictor: Predictor, x: Matrix, prompts: Sequence[Prompt]) -> Stages | None:
    """What the stages of an artifact say of prompts, whose vectors by the first are x.

    None where there is one stage only.
    """
    if predictor.second is None:
        return None
    reader = predictor.second.predictor
    vectors = vectorize(reader.vectorizer, prompts).vectors()
    first = np.array([predictor.probabilities(vector) for vector in x.vectors()])
    second = np.array([reader.probabilities(vector) for vector in vectors])
    return read_stages(predictor.second.gate, x.dense, first, second, prompts, x.tokens)


def read_tokens(prompts: Sequence[Prompt], counted: Floats, limit: float) -> Floats:
    """Tokens that the second stage reads, float64[n]: the text's, at most `limit`."""
    own = [text_tokens(prompt, n) for prompt, n in zip(prompts, counted, strict=True)]
    return np.clip(np.array(own), 1.0, limit)


def fit_gate(
    first: Floats,
    second: Floats,
    score: Floats,
    weight: Floats,
    dense: NDArray[np.float32],
    limit: float,
) -> Gate:
    """Fit the gate on the fit rows; its floors come later (`with_floors`).

    Args:
        first, second: float64[n, k], cross-fitted probabilities by both stages.
        score, weight: float64[n, k], NaN where not observed.
        dense: float32[n, dim], of the first stage.
        limit: tokens that the second stage reads at most.
    """
    losses = [
        routing_loss(_odds(averaged(first, second, share)), score, weight) for share in SHARES
    ]
    share = SHARES[int(np.argmin(losses))]
    # Of two tiers the change of their lead; of more its root mean square over all pairs.
    change = averaged(first, second, share) - first
    error = np.maximum(np.sqrt(2.0) * np.std(change, axis=1, ddof=1), 1e-6)
    scaler = StandardScaler().fit(dense.astype(np.float64))
    rows = scaler.transform(dense.astype(np.float64))
    model = GammaRegressor(alpha=PENALTY, max_iter=500).fit(rows, error)
    weights = model.coef_ / scaler.scale_
    bias = float(model.intercept_ - scaler.mean_ @ weights + np.log(_TO_SCALE))
    low, high = np.quantile(model.predict(rows) * _TO_SCALE, (0.01, 0.99)).tolist()
    return Gate(weights, bias, low, high, share, limit, np.zeros(1), np.zeros(1))


def with_floors(
    gate: Gate, first: Floats, usd: Floats, spread: Floats, tokens: Floats, dials: Floats
) -> Gate:
    """The gate with floors for dials, which it needs before it serves; arguments as `fit_floors`.

    dials: float64[m], rising, that may be served.
    """
    return replace(gate, dials=dials, floors=fit_floors(first, usd, spread, tokens, dials))


def fit_floors(first: Floats, usd: Floats, spread: Floats, tokens: Floats, dials: Floats) -> Floats:
    """For each dial, the gain per token above which the second stage reads `BUDGET` of tokens.

    first, usd: float64[n, k]; spread, tokens: float64[n]; dials: float64[m]. Returns float64[m].
    """
    floors = np.empty(len(dials))
    for i, mu in enumerate(dials):
        worth = _per_token(first, usd, float(mu), spread, tokens)
        order = np.argsort(-worth, kind="stable")
        within = np.cumsum(tokens[order]) <= BUDGET * tokens.sum()
        floors[i] = worth[order[min(int(within.sum()), len(order) - 1)]]
    return floors


def _per_token(first: Floats, usd: Floats, mu: float, spread: Floats, tokens: Floats) -> Floats:
    """`router.gate.gain` of n prompts, for each token read: float64[n]."""
    value = np.sort(first - mu * usd, axis=1)
    lead = value[:, -1] - value[:, -2]
    return np.asarray(spread * np.log1p(np.exp(-lead / spread)) / tokens)
