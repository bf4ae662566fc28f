"""What a replay would ask: requests that some tier has not answered, a sample, and its price."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from router.artifact import load_artifact
from router.prompt import Prompt
from router.tier import Tier
from training.ask import sampling
from training.ask.calls import Call, estimate
from training.errors import BadInput
from training.log.requests import CHARS_PER_TOKEN, thinning, tier_index

UNKNOWN_OUTPUT = 300.0  # tokens of an answer where the log knows no answer's length
PER_MESSAGE = 4.0  # tokens that a chat format adds to each message


@dataclass(frozen=True, slots=True)
class Candidates:
    """n requests that m of k tiers have not answered.

    Attributes:
        first: int64[n], the frame's row that stands for the request (an answered one if any).
        missing: bool[n, k], tiers to ask.
        input_tokens: float64[n], as logged or from the text's length.
        skipped: reasons in words, with how many requests or calls each took out.
    """

    first: NDArray[np.int64]
    missing: NDArray[np.bool_]
    input_tokens: NDArray[np.float64]
    skipped: dict[str, int]


@dataclass(frozen=True, slots=True)
class Plan:
    """The calls to make, in random order of their requests, and what was left out, in words.

    like_traffic: the share of the requests that figures may rest on (training.measure.world).
    """

    calls: tuple[Call, ...]
    requests: int
    candidates: int
    skipped: dict[str, int]
    like_traffic: float

    @property
    def usd(self) -> float:
        """The estimated price of all calls."""
        return estimate(self.calls)

    def as_json(self) -> dict[str, Any]:
        """Requests, calls and estimated USD, in all and per tier."""
        tiers: dict[str, dict[str, Any]] = {}
        for call in self.calls:
            each = tiers.setdefault(call.tier.name, {"calls": 0, "estimated_usd": 0.0})
            each["calls"] += 1
            each["estimated_usd"] += call.usd
        return {
            "candidates": self.candidates,
            "requests": self.requests,
            "calls": len(self.calls),
            "estimated_usd": self.usd,
            "tiers": tiers,
            "skipped": self.skipped,
        }


def _find_candidates(frame: pd.DataFrame, tiers: Sequence[Tier]) -> Candidates:
    """The requests that some tier has not answered and that can be asked again as they were.

    Raises:
        BadInput: a row is of no tier in the tiers file.
    """
    tier = tier_index(frame, tiers)
    row, _ = pd.factorize(frame["request_id"])
    ok = (frame["status"] != "error").to_numpy()
    answered = np.zeros((row.max() + 1, len(tiers)), bool)
    answered[row[ok], tier[ok]] = True
    order = np.lexsort((np.arange(len(row)), ~ok, row))
    first = order[np.unique(row[order], return_index=True)[1]]
    missing = ~answered
    skipped: Counter[str] = Counter()
    texts = frame["messages"].to_numpy()[first]
    lossy = np.array(["_characters" in text and _lost_bytes(text) for text in texts])
    skipped["images or files that the log does not hold"] = int((lossy & missing.any(axis=1)).sum())
    logged = frame["input_tokens"].where(ok).groupby(row).mean().to_numpy()
    tokens = np.where(np.isnan(logged), [_tokens(text) for text in texts], logged)
    for k, one in enumerate(tiers):
        too_long = missing[:, k] & ~lossy & (tokens > (one.context_window or np.inf))
        skipped[f"longer than the context window of {one.name}"] = int(too_long.sum())
        missing[too_long, k] = False
    keep = np.flatnonzero(missing.any(axis=1) & ~lossy)
    return Candidates(
        first[keep],
        missing[keep],
        tokens[keep],
        {reason: count for reason, count in skipped.items() if count},
    )


def make_plan(
    frame: pd.DataFrame,
    tiers: Sequence[Tier],
    how: sampling.Sampling,
    max_output_tokens: int,
) -> Plan:
    """Sample the candidates of a checked traffic frame and price a call for each missing answer.

    Raises:
        BadInput: a row is of no tier in the tiers file, or nothing can be drawn as `how` says.
    """
    found = _find_candidates(frame, tiers)
    drawn = _draw(frame, tiers, found, how)
    output = _output_tokens(frame, tiers)
    ids, users = frame["request_id"].to_numpy(), frame["user_id"].to_numpy()
    texts, strategy = frame["messages"].to_numpy(), how.strategy if how.size else "all"
    calls = []
    for i, chance in zip(drawn.rows.tolist(), drawn.probability.tolist(), strict=True):
        row = found.first[i]
        messages = json.loads(texts[row])
        # In journals the key of the inclusion probability is "propensity", since the first.
        facts = {"user_id": users[row], "propensity": chance, "strategy": strategy}
        for k in np.flatnonzero(found.missing[i]).tolist():
            got = min(output[k], max_output_tokens)
            sent = found.input_tokens[i]
            usd = tiers[k].input_usd_per_mtok * sent + tiers[k].output_usd_per_mtok * got
            calls.append(Call(ids[row], tiers[k], messages, usd / 1e6, max_output_tokens, facts))
    share = float(thinning(drawn.probability).mean()) if len(drawn.rows) else 1.0
    return Plan(tuple(calls), len(drawn.rows), len(found.first), found.skipped, share)


def _draw(
    frame: pd.DataFrame,
    tiers: Sequence[Tier],
    found: Candidates,
    how: sampling.Sampling,
) -> sampling.Draw:
    if how.strategy not in sampling.STRATEGIES:
        raise BadInput(f"--strategy {how.strategy}: choose one of {', '.join(sampling.STRATEGIES)}")
    if (how.strategy == "informative") != (how.artifact is not None):
        raise BadInput("--strategy informative and --artifact belong together")
    n, size, rng = len(found.first), how.size, np.random.default_rng(how.seed)
    if size is None or size >= n:
        return sampling.everything(n, rng)
    rows = frame.iloc[found.first]
    if how.strategy == "stratified":
        kinds = rows["source"].fillna("").astype(str) + "\0" + tier_index(rows, tiers).astype(str)
        return sampling.stratified(pd.factorize(kinds)[0].astype(np.int64), size, rng)
    if how.artifact is not None:
        use = _usefulness(how.artifact, tiers, rows["messages"].tolist())
        return sampling.informative(use, size, rng)
    return sampling.uniform(n, size, rng)


def _usefulness(path: Path, tiers: Sequence[Tier], texts: list[str]) -> NDArray[np.float64]:
    artifact = load_artifact(path)
    names, known = [t.name for t in tiers], [t.name for t in artifact.predictor.tiers]
    if names != known:
        raise BadInput(f"{path}: its tiers are {', '.join(known)}, not {', '.join(names)}")
    estimates = artifact.predictor.estimate([Prompt.of(json.loads(text)) for text in texts])
    return sampling.usefulness(estimates.p, estimates.usd, artifact.policy.mu)


def _output_tokens(frame: pd.DataFrame, tiers: Sequence[Tier]) -> list[float]:
    """Mean tokens of each tier's answers; of a tier that has none logged, of all of them."""
    length = frame["response"].map(len, na_action="ignore").astype("float64") / CHARS_PER_TOKEN
    tokens = frame["output_tokens"].fillna(length).to_numpy(np.float64)
    by_tier = pd.Series(tokens).groupby(tier_index(frame, tiers)).mean()
    means = by_tier.reindex(range(len(tiers))).to_numpy()
    overall = np.nanmean(tokens) if (~np.isnan(tokens)).any() else UNKNOWN_OUTPUT
    return [float(overall if np.isnan(mean) else mean) for mean in means]


def _tokens(messages: str) -> float:
    prompt = Prompt.of(json.loads(messages))
    return prompt.chars / CHARS_PER_TOKEN + PER_MESSAGE * (prompt.turns + 1)


def _lost_bytes(messages: str) -> bool:
    """Whether a part of a message had data that `training.log.messages` left out."""
    return any(
        isinstance(part, dict) and _has_mark(part)
        for message in json.loads(messages)
        if isinstance(message.get("content"), list)
        for part in message["content"]
    )


def _has_mark(part: dict[str, Any]) -> bool:
    return any(
        name.endswith("_characters") or (isinstance(value, dict) and _has_mark(value))
        for name, value in part.items()
    )
