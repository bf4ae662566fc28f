"""What a job stands on: labelled requests, divided, before anything is learned from them."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from router.tier import Tier
from training.config import Config, check_rules, unknown_capabilities
from training.decide.operating import check_units, choice_world
from training.errors import BadInput
from training.learn.costs import check_prices
from training.learn.heads import sort_tiers
from training.learn.splits import Splits, split
from training.log.requests import Requests
from training.measure.world import World, judging


@dataclass(frozen=True, slots=True)
class Ground:
    """Labelled requests, divided: what every challenger of a job is fitted, chosen and judged on.

    Attributes:
        tiers: cheapest first.
        requests: all of them.
        splits: which are for fitting, choosing and the report.
        world: of the choose rows, its `rows` counted among them.
        notes: what was left out or assumed.
    """

    tiers: tuple[Tier, ...]
    requests: Requests
    splits: Splits
    world: World
    notes: tuple[str, ...]

    @property
    def fit_rows(self) -> Requests:
        """The requests that heads are fitted on."""
        return self.requests.take(self.splits.fit)

    @property
    def chosen(self) -> NDArray[np.int64]:
        """int64[m], the requests on which the operating point is chosen."""
        return np.asarray(self.splits.choose[self.world.rows])

    @property
    def tested(self) -> NDArray[np.int64]:
        """int64[m], the test requests that can be judged by, in the world of the choice."""
        test = self.splits.test
        return np.asarray(test[judging(self.requests, self.world.paired)[test]])


def lay_out(
    requests: Requests,
    notes: tuple[str, ...],
    tiers: tuple[Tier, ...],
    config: Config,
    shares: tuple[float, float, float],
    seed: int,
    twin: NDArray[np.int64] | None = None,
) -> Ground:
    """Divide requests, and refuse before the work what cannot be learned from (BadInput).

    `twin` is that of `split`.
    """
    told = (*check_prices(tiers), *unknown_capabilities(tiers))
    check_rules(config, tiers)
    splits = split(requests, shares, seed, twin)
    _check_sizes(splits)
    fit_rows, choose_rows = requests.take(splits.fit), requests.take(splits.choose)
    sort_tiers(fit_rows.score, tuple(tier.name for tier in tiers))
    try:
        world = choice_world(config.policy, config.label, choose_rows)
    except BadInput as error:
        raise BadInput(f"of the choose part's {len(choose_rows)} requests: {error}") from None
    check_units(config.policy, splits.units[:, splits.choose][:, world.rows], world.paired)
    return Ground(
        tiers, requests, splits, world, (f"{world.note} (in the choose part)", *told, *notes)
    )


def _check_sizes(splits: Splits) -> None:
    largest = int(np.unique(splits.group, return_counts=True)[1].max())
    for part, least in (("fit", 100), ("choose", 20)):
        rows = splits.sizes[part]
        if rows < least:
            tied = (
                f"; {largest} of {len(splits.group)} stay in one part, tied by their session_id or "
                "as near-duplicates of each other"
            ) * (2 * largest > len(splits.group))
            raise BadInput(
                f"the {part} part has {rows} labelled requests, at least {least} are needed (what "
                f"users did next counts for fit only){tied}: give more rows, or another --split"
            )
