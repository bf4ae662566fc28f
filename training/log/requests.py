"""The traffic table seen by request: one row per prompt, one column per tier."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from router.prompt import Prompt
from router.tier import Tier
from training.errors import BadInput
from training.log.imprint import RESPONSE_CHARS, Imprint
from training.log.models import tiers_by_model

CHARS_PER_TOKEN = 4.0  # where a log keeps the answer's text but not its tokens
FIRM = 0.65  # labels of less weight are for fitting only
SIGNALS = ("escalation", "retry", "complaint", "thanked", "abandoned", "went_on")  # so are these
MAX_WEIGHT = 20.0  # a logged propensity below 1/20 counts as 1/20


@dataclass(frozen=True, slots=True)
class Requests:
    """n requests and what is known of each of k tiers on them; NaN is "not observed".

    Attributes:
        ids: object[n], request ids.
        prompts: object[n], `Prompt`s, or `Imprint`s of a features-only table.
        at: datetime64[us][n], UTC; NaT where unknown.
        session: object[n], session id or None.
        source: object[n], application, task or tenant, or None.
        tags: object[n], tuples of texts.
        score: float64[n, k] in [0, 1].
        propensity: float64[n, k] in (0, 1], with which the logging policy chose the tier that
            answered; NaN where the log does not say.
        weight: float64[n, k], 1/propensity of the logging policy, clipped, times the label's own
            weight; 1 where unknown. Where every tier's score is known nothing was left to chance,
            and only the label's own counts.
        label_weight: float64[n, k], how far a score is trusted; 1 where the log does not say.
        input_tokens, output_tokens: float64[n, k].
        cost_usd: float64[n, k], as billed.
        sample_probability: float64[n] in (0, 1], with which a sample took the request to have it
            answered by other tiers; NaN where none did.
        signal: bool[n, k], the label rests on nothing but what users did next (`SIGNALS`), and its
            weight says how far.
    """

    ids: NDArray[np.object_]
    prompts: NDArray[np.object_]
    at: NDArray[np.datetime64]
    session: NDArray[np.object_]
    source: NDArray[np.object_]
    tags: NDArray[np.object_]
    score: NDArray[np.float64]
    propensity: NDArray[np.float64]
    weight: NDArray[np.float64]
    label_weight: NDArray[np.float64]
    input_tokens: NDArray[np.float64]
    output_tokens: NDArray[np.float64]
    cost_usd: NDArray[np.float64]
    sample_probability: NDArray[np.float64]
    signal: NDArray[np.bool_]

    def __len__(self) -> int:
        """Number of requests."""
        return len(self.ids)

    def take(self, rows: NDArray[np.int64]) -> "Requests":
        """The requests at `rows`, int64[m]."""
        return Requests(*(getattr(self, part.name)[rows] for part in fields(self)))

    @property
    def paired(self) -> NDArray[np.bool_]:
        """bool[n]: every tier's score is known."""
        return np.asarray(~np.isnan(self.score).any(axis=1))

    @property
    def firm(self) -> NDArray[np.bool_]:
        """bool[n]: every score is trusted enough for a promise or a report to rest on it.

        Signals label failures, hardly successes: a mean over such labels is no quality.
        """
        return np.asarray((self.trusted | np.isnan(self.score)).all(axis=1))

    @property
    def trusted(self) -> NDArray[np.bool_]:
        """bool[n, k]: the label's own weight is at least FIRM, and more than signals speak."""
        return np.asarray((self.label_weight >= FIRM) & ~self.signal)

    @property
    def sessions(self) -> NDArray[np.int64]:
        """int64[n], numbers of the sessions; a request without one is its own."""
        own = [(s is None, s or i) for s, i in zip(self.session, self.ids, strict=True)]
        return np.asarray(pd.factorize(_objects(own))[0], dtype=np.int64)


def by_time(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows of a traffic frame by time, then by request, tier and model, numbered anew.

    Folds, splits and resamples are drawn by position: the same log must give the same router,
    whatever the order of its rows.
    """
    return frame.sort_values(["at", "request_id", "tier", "model"], ignore_index=True)


def gather(frame: pd.DataFrame, tiers: Sequence[Tier]) -> Requests:
    """Turn a checked traffic frame into requests, in the order in which they first appear.

    Failed calls (status error) say nothing of an answer's quality and are left out.

    Raises:
        BadInput: a tier or model that the tiers do not name, no answered call at all, or
            propensities that cannot be the chances of one choice.
    """
    frame = frame[frame["status"] != "error"].reset_index(drop=True)
    if frame.empty:
        raise BadInput(
            "column status: every row is an error; there is no answered call to learn from"
        )
    column = tier_index(frame, tiers)
    _check_propensities(frame)
    row, ids = pd.factorize(frame["request_id"])
    first = np.unique(row, return_index=True)[1]
    shape = (len(ids), len(tiers))

    def spread(values: pd.Series) -> NDArray[np.float64]:
        matrix = np.full(shape, np.nan)
        matrix[row, column] = values.to_numpy(dtype=np.float64)
        return matrix

    score = spread(frame["score"])
    partly = np.asarray(np.isnan(score).any(axis=1))
    chance = frame["propensity"].where(partly[row]).fillna(1.0).clip(lower=1.0 / MAX_WEIGHT)
    trusted = frame["label_weight"].fillna(1.0)
    length = _response_chars(frame) / CHARS_PER_TOKEN
    heads = frame.iloc[first]
    return Requests(
        ids=np.asarray(ids, dtype=object),
        prompts=_objects(prompts_of(heads)),
        at=heads["at"].dt.tz_convert("UTC").dt.tz_localize(None).to_numpy("datetime64[us]"),
        session=_objects(_texts(heads["session_id"])),
        source=_objects(_texts(heads["source"])),
        tags=_objects([tuple(tags) for tags in heads["tags"]]),
        score=score,
        propensity=spread(frame["propensity"]),
        weight=np.nan_to_num(spread(trusted / chance), nan=1.0),
        label_weight=np.nan_to_num(spread(trusted), nan=1.0),
        input_tokens=spread(frame["input_tokens"]),
        output_tokens=spread(frame["output_tokens"].fillna(length)),
        cost_usd=spread(frame["cost_usd"]),
        sample_probability=frame.groupby(row)["sample_probability"].min().to_numpy(np.float64),
        signal=spread(_of_signals(frame)) == 1.0,
    )


def _of_signals(frame: pd.DataFrame) -> "pd.Series[float]":
    """1 where only signals speak for a label, and with a stated weight; else 0."""
    alone = {
        text: all(name in SIGNALS for name in text.split("+"))
        for text in frame["score_source"].dropna().unique()
    }
    known = frame["score_source"].map(alone, na_action="ignore").eq(True)
    return (known & frame["label_weight"].notna()).astype("float64")


def prompts_of(frame: pd.DataFrame) -> list[Prompt] | list[Imprint]:
    """The prompt of each row of a checked traffic frame."""
    if "imprint" in frame:
        return list(frame["imprint"])
    return [Prompt.of(json.loads(text)) for text in frame["messages"]]


def of_tiers(frame: pd.DataFrame, tiers: Sequence[Tier]) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """The rows that a tier of the file answered, and a note on how many others are left out.

    Nothing is left out, and `tier_index` will refuse the other rows, in two cases: a tier of the
    file has no row at all (its name may be misspelt), or one of the other rows has a propensity
    (without it the chances of the choice among tiers would not add up).
    """
    index = _tiers_of(frame, tiers)
    lost = index.isna() & (frame["status"] != "error")
    count = int(lost.sum())
    whole = index.nunique() == len(tiers)
    if not count or not whole or frame.loc[lost, "propensity"].notna().any():
        return frame, ()
    told = f"{count} rows are of no tier in the tiers file and are left out: {_seen(frame[lost])}"
    return frame[~lost].reset_index(drop=True), (told,)


def tier_index(frame: pd.DataFrame, tiers: Sequence[Tier]) -> NDArray[np.int64]:
    """Which tier answered each row, int64[rows]: by the tier's name, else by the model's.

    Raises:
        BadInput: a row names neither, or a model that stands for two tiers.
    """
    found = _tiers_of(frame, tiers)
    if found.isna().any():
        lost = frame[found.isna()]
        raise BadInput(
            f"columns tier and model: {len(lost)} rows are of no tier in the tiers file "
            f"({', '.join(tier.name for tier in tiers)}); tier / model seen: {_seen(lost)}. Add a "
            "[[tier]] table for each, or leave those rows out"
        )
    return np.asarray(found, dtype=np.int64)


def _tiers_of(frame: pd.DataFrame, tiers: Sequence[Tier]) -> pd.Series:
    """Index of each row's tier, float64, NaN where it is none of these."""
    by_name = {tier.name: k for k, tier in enumerate(tiers)}
    named = frame["tier"].map(by_name, na_action="ignore").astype("float64")
    by_model = tiers_by_model(frame.loc[named.isna(), "model"].dropna().unique(), tiers)
    return named.fillna(frame["model"].map(by_model, na_action="ignore").astype("float64"))


def _seen(rows: pd.DataFrame) -> str:
    """Tiers and models of some rows, in words."""
    pairs = zip(_texts(rows["tier"]), _texts(rows["model"]), strict=True)
    seen = sorted({f"{tier or '–'} / {model or '–'}" for tier, model in pairs})
    return ", ".join(seen[:8])


def propensity_notes(requests: Requests) -> tuple[str, ...]:
    """What was made of the propensities, in words: what was clipped, what is missing."""
    answered = ~np.isnan(requests.score) & ~requests.paired[:, None]
    known = answered & ~np.isnan(requests.propensity)
    if not known.any():
        return ()
    notes = []
    weight = 1.0 / requests.propensity[known]
    clipped = weight > MAX_WEIGHT * (1 + 1e-9)
    if clipped.any():
        lost = 1.0 - np.minimum(weight, MAX_WEIGHT).sum() / weight.sum()
        notes.append(
            f"{int(clipped.sum())} answers had propensities below {1 / MAX_WEIGHT:g}, the least "
            f"{1 / weight.max():.3g}: for fitting they count as {1 / MAX_WEIGHT:g}, which takes "
            f"{lost:.1%} of all weight away; estimates of a policy's value do not clip"
        )
    missing = answered & ~known
    if missing.any():
        notes.append(
            f"{int(missing.sum())} answers carry no propensity beside {int(known.sum())} that do: "
            "they count once in fitting, and not at all in the value of a policy"
        )
    return tuple(notes)


def thinning(chance: NDArray[np.float64]) -> NDArray[np.float64]:
    """Probabilities, float64[n], of keeping the requests of a sample so that it becomes uniform.

    chance: float64[n] in (0, 1], the probability with which the sample took each request.
    """
    return np.asarray(chance.min(initial=1.0) / chance)


def bill_notes(requests: Requests, tiers: Sequence[Tier]) -> tuple[str, ...]:
    """A note for each tier that has a price although all its logged bills are 0."""
    notes = []
    for tier, bills in zip(tiers, requests.cost_usd.T, strict=True):
        known = bills[~np.isnan(bills)]
        if len(known) and not known.any() and tier.input_usd_per_mtok + tier.output_usd_per_mtok:
            notes.append(
                f"column cost_usd: all {len(known)} answers of {tier.name} cost 0, beside a price "
                "in the tiers file: it counts as free; where 0 means unknown, leave it empty"
            )
    return tuple(notes)


def _check_propensities(frame: pd.DataFrame) -> None:
    """Chances of one choice add up to 1 at most, over the tiers that answered one request."""
    total = frame.groupby("request_id", sort=False)["propensity"].sum()
    wrong = total[total > 1.0 + 1e-6]
    if len(wrong):
        raise BadInput(
            f"column propensity: request {wrong.index[0]!r}: the propensities of its answers add "
            f"up to {wrong.iloc[0]:.4g}, above 1 ({len(wrong)} such requests). A propensity is the "
            "chance with which the log's own choice fell on this tier: leave it empty on the rows "
            "of shadow calls and replays, which nobody chose"
        )


def _response_chars(frame: pd.DataFrame) -> pd.Series:
    if RESPONSE_CHARS in frame:
        return frame[RESPONSE_CHARS]
    return frame["response"].map(len, na_action="ignore").astype("float64")


def _texts(column: pd.Series) -> list[str | None]:
    return [value if isinstance(value, str) else None for value in column]


def _objects(values: Sequence[object]) -> NDArray[np.object_]:
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array
