"""What a backtest found, period by period."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from training.show.plots import save


@dataclass(frozen=True, slots=True)
class Period:
    """What one period came to, served by the champion of its beginning.

    Attributes:
        since, until: UTC.
        requests: paired ones, on which it is judged.
        champion: number of the step that trained it; None: always the top tier.
        status: what the gate said of the challenger of the period's beginning.
        usd, usd_top: cost of all requests, as routed and had the top tier answered all.
        quality, quality_top: mean scores.
        broken: whether the promise is shown to be broken in this period (one-sided 95 %).
    """

    since: str
    until: str
    requests: int
    champion: int | None
    status: str
    usd: float
    usd_top: float
    quality: float
    quality_top: float
    broken: bool


@dataclass(frozen=True, slots=True)
class Backtest:
    """All periods, and what they add up to."""

    periods: tuple[Period, ...]

    def as_json(self) -> dict[str, Any]:
        """For a machine."""
        return {"total": self.total, "periods": [asdict(period) for period in self.periods]}

    @property
    def total(self) -> dict[str, float]:
        """Money saved, quality kept, promotions and broken promises over all periods."""
        usd, top = (sum(getattr(p, name) for p in self.periods) for name in ("usd", "usd_top"))
        weight = sum(p.requests for p in self.periods)
        quality, best = (
            sum(getattr(p, name) * p.requests for p in self.periods) / weight
            for name in ("quality", "quality_top")
        )
        return {
            "usd": usd,
            "usd_always_top": top,
            "saved": 1 - usd / top if top > 0 else 0.0,
            "quality": quality,
            "quality_always_top": best,
            "promotions": sum(p.status == "promoted" for p in self.periods),
            "broken_promises": sum(p.broken for p in self.periods),
        }

    def as_text(self) -> list[str]:
        """For a terminal."""
        lines = [
            f"{p.since[:10]} to {p.until[:10]}: {p.requests} requests, challenger {p.status}, "
            f"champion {'always top' if p.champion is None else f'of step {p.champion}'}: "
            f"{p.usd:.4g} USD of {p.usd_top:.4g}, quality {p.quality:.4f} of {p.quality_top:.4f}"
            + (", PROMISE BROKEN" if p.broken else "")
            for p in self.periods
        ]
        told = self.total
        return [
            *lines,
            f"in all: {told['saved']:.1%} of {told['usd_always_top']:.4g} USD saved, quality "
            f"{told['quality']:.4f} of {told['quality_always_top']:.4f}, {told['promotions']:g} "
            f"promotions, {told['broken_promises']:g} broken promises",
        ]

    def draw(self, path: Path) -> None:
        """Quality and the share of cost over time, promotions marked."""
        from matplotlib.figure import Figure

        at = pd.to_datetime([p.since for p in self.periods])
        figure = Figure(figsize=(8, 6), layout="constrained")
        above, below = figure.subplots(2, 1, sharex=True)
        above.step(at, [p.quality for p in self.periods], where="post", label="as routed")
        above.step(at, [p.quality_top for p in self.periods], where="post", label="always top")
        above.set_ylabel("mean score")
        shares = [p.usd / p.usd_top if p.usd_top > 0 else 1.0 for p in self.periods]
        below.step(at, shares, where="post")
        below.set_ylabel("cost, share of always top")
        below.set_ylim(0, 1.05)
        for period, time in zip(self.periods, at, strict=True):
            if period.status == "promoted":
                below.axvline(time, color="grey", linewidth=0.8, linestyle=":")
            if period.broken:
                above.axvline(time, color="tab:red", linewidth=0.8)
        above.legend(frameon=False)
        above.set_title("What retraining would have done (dotted: promotions; red: promise broken)")
        save(figure, path, dpi=120)
