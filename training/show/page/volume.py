"""How many requests a month a log stands for."""

from dataclasses import dataclass

import pandas as pd

MONTH_DAYS = 30.44
MIN_DAYS = 1 / 24  # of less than an hour nobody can make a month


@dataclass(frozen=True, slots=True)
class Volume:
    """Requests of a log, and the days that they cover; None where the log has no times."""

    requests: int
    days: float | None

    @classmethod
    def of(cls, frame: pd.DataFrame) -> "Volume":
        """Count a checked traffic frame, labelled or not."""
        times = frame["at"].dropna()
        requests = int(frame["request_id"].nunique())
        if times.empty:
            return cls(requests, None)
        days = (times.max() - times.min()).total_seconds() / 86_400
        timed = int(frame.loc[frame["at"].notna(), "request_id"].nunique())
        return cls(timed, days) if days >= MIN_DAYS else cls(requests, None)

    @property
    def unit(self) -> float:
        """How many requests the page's dollars are for: a month's, or a thousand."""
        return 1000.0 if self.days is None else self.requests * MONTH_DAYS / self.days

    @property
    def words(self) -> str:
        """What the dollars are for."""
        return "per 1,000 requests" if self.days is None else "a month"

    @property
    def basis(self) -> str:
        """Where the volume comes from, as a sentence."""
        if self.days is None:
            return (
                "The log has no times (or less than an hour of them), so no month can be worked "
                "out: dollars are per 1,000 requests."
            )
        span = f"{self.days:,.1f} days" if self.days >= 2 else f"{24 * self.days:,.1f} hours"
        return (
            f"Dollars a month are for {self.unit:,.0f} requests: the log has {self.requests:,} in "
            f"{span}."
        )
