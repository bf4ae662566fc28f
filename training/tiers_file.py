"""A tiers file from a log: its models, cheapest first, and prices as far as bills tell them."""

import json
from dataclasses import dataclass
from math import inf, isfinite
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.linear_model import QuantileRegressor

from training.errors import BadInput
from training.files import check_file, write_text
from training.log.models import plain_model
from training.log.traffic import read_traffic

MIN_BILLS = 5
AGREES = 0.1  # of a bill: how far off a price may be that it agrees with
MOST_BILLS = 2000  # evenly spaced; of 100,000 the linear program takes minutes
_CHECK = "# Tiers, cheapest first. Check every price before training."
_UNKNOWN = "# ORDER AND PRICES UNKNOWN: fill in, cheapest first"
_PRICES = ("input_usd_per_mtok", "output_usd_per_mtok")


@dataclass(frozen=True, slots=True)
class _Seen:
    """A tier of a log.

    Attributes:
        usd: its mean bill, inf where there is none.
        name, model: of the tier.
        calls: that the tier answered, in words.
        prices: of a million input and output tokens; None where the log does not tell.
        why: what the prices rest on, or why there are none.
    """

    usd: float
    name: str
    model: str
    calls: str
    prices: tuple[float, float] | None
    why: str


def write_tiers(traffic: Path, out: Path) -> list[str]:
    """Write a tiers file with the models of a log, cheapest first by what their calls were billed.

    Prices are those that most bills with token counts agree with; where there are none they are
    left out, so that no job takes the file before they are filled in. Models without a bill come
    last, and the file says that their order is unknown.

    Raises:
        BadInput: no model in the log, or the file exists.
    """
    check_file(out)
    if out.exists():
        raise BadInput(f"{out} exists; remove it or give another --out")
    frame = read_traffic(traffic).frame
    frame = frame[frame["model"].notna() & (frame["status"] != "error")]
    if frame.empty:
        raise BadInput(f"{traffic}: column model: no answered call names a model")
    frame = frame.assign(plain=frame["model"].map(plain_model))
    seen = [_seen(str(name), rows) for name, rows in frame.groupby(_tier_names(frame))]
    seen.sort(key=lambda one: one.usd)
    ordered = isfinite(seen[-1].usd)
    tables = [line for one in seen for line in ("", *_table(one))]
    write_text(out, "\n".join([_CHECK if ordered else _UNKNOWN, *tables, ""]))
    return _told(out, seen, ordered)


def _tier_names(frame: pd.DataFrame) -> pd.Series:
    """Of each call, as the log says it, else as it mostly says it of the model; else the model."""
    named = frame[frame["tier"].notna()]
    mostly = named.groupby("plain")["tier"].agg(lambda names: names.mode().iloc[0])
    return frame["tier"].fillna(frame["plain"].map(mostly)).fillna(frame["plain"])


def _told(out: Path, seen: list[_Seen], ordered: bool) -> list[str]:
    """What the user still has to do, and why prices are unknown."""
    unknown: dict[str, list[str]] = {}
    for one in seen:
        if one.prices is None:
            unknown.setdefault(one.why, []).append(one.name)
    left = "prices unknown: fill them in" if unknown else "prices are estimates: check them"
    return [
        f"{out}: {len(seen)} tiers; {'' if ordered else 'order and '}{left} before training",
        *(f"{', '.join(names)}: {why}" for why, names in unknown.items()),
    ]


def _table(one: _Seen) -> list[str]:
    """The lines of a tier; prices that are not known are comments, for the reader of the file."""
    lines = [
        "[[tier]]",
        f"name = {_quoted(one.name)}",
        f"model = {_quoted(one.model)}  # {one.calls}",
    ]
    if one.prices is None:
        return [*lines, f"# prices: {one.why}", *(f"# {key} =  # FILL IN" for key in _PRICES)]
    return [
        *lines,
        *(f"{key} = {usd:g}  # {one.why}" for key, usd in zip(_PRICES, one.prices, strict=True)),
    ]


def _quoted(text: str) -> str:
    """A text as a TOML string: JSON's escapes are among TOML's."""
    return json.dumps(text, ensure_ascii=False)


def _seen(name: str, rows: pd.DataFrame) -> _Seen:
    """What the answered calls of one tier say of it: of the model that answered most of them."""
    own = rows[rows["plain"] == rows["plain"].mode().iloc[0]]
    bills = own[own["cost_usd"] > 0]
    mean = float(bills["cost_usd"].mean()) if len(bills) else inf
    others = len(rows) - len(own)
    calls = f"{len(rows)} calls" + f", {others} of them by other models" * bool(others)
    return _Seen(mean, name, str(own["model"].mode().iloc[0]), calls, *_prices(bills))


def _prices(bills: pd.DataFrame) -> tuple[tuple[float, float] | None, str]:
    """Prices per million tokens that most bills agree with, and what they rest on.

    By least absolute deviations of what a bill is of its price, so that neither a long call at
    another price (cached tokens, a batch) nor a few of them move the others'.
    """
    counted = bills.dropna(subset=["input_tokens", "output_tokens"])
    if bills.empty:
        return None, "no bills in the log (cost_usd)"
    if counted.empty:
        return None, "bills are there, token counts are not: map input_tokens, output_tokens"
    if len(counted) < MIN_BILLS:
        return None, f"{len(counted)} bills with token counts are too few to tell"
    used = np.unique(np.linspace(0, len(counted) - 1, MOST_BILLS).astype(np.int64))
    tokens = counted[["input_tokens", "output_tokens"]].to_numpy(dtype=float)[used]
    usd = counted[["cost_usd"]].to_numpy(dtype=float)[used] * 1e6
    fit = QuantileRegressor(quantile=0.5, alpha=0.0, fit_intercept=False)
    found = fit.fit(tokens / usd, np.ones(len(used))).coef_
    told = f"{len(used)} of {len(counted)}" if len(used) < len(counted) else f"{len(used)}"
    if not (found > 0).all():
        return None, f"{told} bills do not tell input from output tokens"
    agree = int((np.abs(tokens @ found / usd[:, 0] - 1) < AGREES).sum())
    if agree < len(used) / 2:
        return None, f"no price fits most bills ({agree} of {told} within 10 %)"
    paid, made = (float(f"{price:.3g}") for price in found)  # a fit is no more exact
    return (paid, made), f"estimated from {told} bills; check against the list price"
