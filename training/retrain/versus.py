"""`suffice compare`: two routers on the same rows, which neither was fitted or chosen on."""

import tempfile
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from rich.table import Table

from router.artifact import Artifact, read_artifact
from training.console import render
from training.errors import BadInput
from training.label.rule import LabelRule, firm_requests, load_requests
from training.learn.costs import account
from training.learn.seen import known_ids, recognise
from training.learn.splits import several_units
from training.learn.vectorize import estimate, vectorize
from training.measure.intervals import Floats, Interval
from training.measure.limits import allowing, few_sessions
from training.measure.metrics import bad_downgrades
from training.measure.offpolicy import interval, pseudo_outcomes
from training.measure.world import logged, pick_world, unseen
from training.retrain.registry import ALIASES, Registry
from training.show.words import change
from training.tracking import connected

LEAST = 30
QUALITY, USD, BAD = "quality", "USD per request", "bad downgrades"
RARE = (QUALITY, BAD)


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure of both routers, and the second minus the first with its 95 % interval."""

    name: str
    first: float
    second: float
    difference: Interval

    def per_1k(self) -> "Figure":
        """A cost of one request as that of 1,000."""
        known = (1000 * self.first, 1000 * self.second, self.difference.times(1000))
        return Figure("USD per 1,000", *known)


@dataclass(frozen=True, slots=True)
class SideBySide:
    """What two routers differ by: on how many requests, in which world, and how sure."""

    names: tuple[str, str]
    world: str
    requests: int
    rows: tuple[Figure, ...]
    notes: tuple[str, ...]

    def as_text(self) -> list[str]:
        """For a terminal."""
        title = f"{self.requests} requests that neither knew ({self.world})"
        table = Table(title=title)
        for column in ("", *self.names, "second − first", "95 %"):
            table.add_column(column, justify="left" if not column else "right")
        for row in self.rows:
            told = row.per_1k() if row.name == USD else row
            found = told.difference
            limits = f"{found.low:+.4f} to {found.high:+.4f}"
            cells = (f"{told.first:.4f}", f"{told.second:.4f}", f"{found.value:+.4f}", limits)
            table.add_row(told.name, *cells)
        return [self.verdict, render(table), *self.notes]

    @property
    def verdict(self) -> str:
        """Whether the second is cheaper, and whether it is better, as far as the intervals show."""
        rows = {row.name: row for row in self.rows}
        cost, quality = rows[USD].per_1k(), rows[QUALITY].difference
        first, second = self.names
        price = _shown(cost.difference, "dearer", "cheaper", "cost")
        worth = _shown(quality, "higher quality", "lower quality", "quality")
        return (
            f"{second} against {first} – {price}: {change(cost.first, cost.second)} per 1,000; "
            f"{worth}: {quality.value:+.4f} ({quality.low:+.4f} to {quality.high:+.4f})"
        )

    def as_frame(self) -> pd.DataFrame:
        """A row a figure: `first`, `second`, and `value`, `low`, `high` of second minus first.

        Costs are of 1,000 requests, everything else is in points (hundredths).
        """
        found = {}
        for row in self.rows:
            usd = row.name == USD
            ends = (getattr(row.difference, end) for end in ("value", "low", "high"))
            numbers = (row.first, row.second, *ends)
            name = "USD per 1,000 requests" if usd else f"{row.name}, points"
            found[name] = [(1000 if usd else 100) * number for number in numbers]
        columns = ["first", "second", "value", "low", "high"]
        return pd.DataFrame.from_dict(found, orient="index", columns=columns)

    def as_json(self) -> dict[str, Any]:
        """For a machine."""
        rows = {
            row.name: {
                "first": row.first,
                "second": row.second,
                "difference": row.difference.as_json(),
            }
            for row in self.rows
        }
        told: dict[str, Any] = {"names": list(self.names), "world": self.world}
        return told | {"requests": self.requests, "figures": rows, "notes": list(self.notes)}


def compare(first: str, second: str, traffic: Path, model: str) -> SideBySide:
    """Compare two routers, paired.

    Args:
        first, second: an artifact folder, the id of an MLflow run, or a version or alias of the
            registered model.
        traffic: the table; rows that either was fitted or chosen on are left out.
        model: name in the registry.

    Raises:
        BadInput: there is no such router, their tiers differ, or too few rows are left.
        ArtifactError: an artifact is refused.
        EnvironmentProblem: MLflow cannot be reached.
    """
    with tempfile.TemporaryDirectory() as scratch:
        pair = [
            read_artifact(_folder(name, model, Path(scratch) / str(number)))
            for number, name in enumerate((first, second))
        ]
    (one, known), (other, known_too) = pair
    tiers = one.predictor.tiers
    if [tier.name for tier in tiers] != [tier.name for tier in other.predictor.tiers]:
        raise BadInput(f"{first} and {second} route between different tiers")
    rule = LabelRule(**one.manifest["label"])
    requests, notes = load_requests(traffic, tiers, rule)
    requests, weak = firm_requests(requests)
    seen = known_ids(known, requests) | known_ids(known_too, requests)
    world = unseen(requests, seen, partial(pick_world, least=LEAST), str(traffic))
    used = requests.take(world.rows)
    unit = several_units(used)
    names = (_called(first, one), _called(second, other))
    known_again = [recognise(router, arrays, used) for router, arrays in pair]
    again = [
        f"{name}: {found.note}" for name, found in zip(names, known_again, strict=True) if found
    ]
    estimates = [estimate(router.predictor, list(used.prompts)) for router in (one, other)]
    x = vectorize(one.predictor.vectorizer, list(used.prompts))
    paid = account(x, used, one.predictor.tokens, tiers)
    mean = (estimates[0].p + estimates[1].p) / 2
    quality = used.score if world.paired else pseudo_outcomes(logged(used), mean)
    choices = [
        router.policy.choose(found.p, found.usd)
        for router, found in zip((one, other), estimates, strict=True)
    ]
    sufficed = rule.sufficed(used.score) if world.paired else None
    figures = _figures(choices, quality, paid, [tier.name for tier in tiers], sufficed)
    rare = world.paired and bool((choices[0] != choices[1]).any())
    told = [f"{left} requests left out: one of them knew them"] if (left := int(seen.sum())) else []
    return SideBySide(
        names=names,
        world=world.name,
        requests=len(used),
        rows=_rows(figures, unit, RARE if rare else ()),
        notes=(*dict.fromkeys(again), *told, world.note, *notes, *weak, *few_sessions(unit)),
    )


def _figures(
    choices: Sequence[NDArray[np.int64]],
    quality: Floats,
    paid: Floats,
    names: Sequence[str],
    sufficed: NDArray[np.bool_] | None,
) -> dict[str, list[Floats]]:
    """What the choices of each router, int64[n], come to on every request: float64[n] each.

    quality, paid: float64[n, k]. sufficed: bool[n, k], None of one-sided requests.
    """
    rows = np.arange(len(quality))
    found = {
        QUALITY: [quality[rows, tier] for tier in choices],
        USD: [paid[rows, tier] for tier in choices],
    }
    for k, name in enumerate(names):
        found[f"share to {name}"] = [np.asarray(tier == k, np.float64) for tier in choices]
    if sufficed is not None:
        bad = [bad_downgrades(tier, sufficed) for tier in choices]
        found[BAD] = [one.astype(np.float64) for one in bad]
    return found


def _shown(found: Interval, more: str, less: str, what: str) -> str:
    """What an interval of a difference shows, in a word or two."""
    if found.low == found.high == 0.0:
        return f"the same {what}"
    if found.excludes(0.0):
        return more if found.low > 0 else less
    return f"{what} not shown to differ"


def _rows(
    figures: Mapping[str, list[Floats]], session: NDArray[np.int64], rare: Collection[str]
) -> tuple[Figure, ...]:
    """A figure a row; those named `rare` allow for changes too rare to have been seen."""
    found = []
    for name, (a, b) in figures.items():
        change = interval(b - a, session)
        if name in rare:
            change = allowing(change, b - a, session)
        found.append(Figure(name, float(a.mean()), float(b.mean()), change))
    return tuple(found)


def _called(name: str, artifact: Artifact) -> str:
    return f"{name} ({artifact.version})" if name != artifact.version else name


def _folder(name: str, model: str, scratch: Path) -> Path:
    """The artifact folder that a name means."""
    if (Path(name) / "manifest.json").is_file():
        return Path(name)
    with connected("did not give the artifact", making=False) as (mlflow, _):
        registry = Registry(mlflow, model)
        if name in ALIASES or name.isdigit():
            return registry.fetch(registry.version(name), scratch)
        return registry.of_run(name, scratch)
