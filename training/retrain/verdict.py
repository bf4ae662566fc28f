"""What the gate found: one check a row, and whether the challenger may pass."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isnan

GAIN = "cheaper or better than the champion"  # the check that an equal of the champion fails


@dataclass(frozen=True, slots=True)
class Check:
    """One row of the gate: what was measured, what it had to reach, and how sure that is."""

    name: str
    value: float
    limit: float
    passed: bool
    sure: str = ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """All checks; the challenger may pass where every one of them does."""

    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        """Whether nothing was refused."""
        return all(check.passed for check in self.checks)

    @property
    def only_equal(self) -> bool:
        """Whether all that is missing is to be shown cheaper or better than the champion."""
        failed = [check.name for check in self.checks if not check.passed]
        return failed == [GAIN]

    @property
    def reasons(self) -> tuple[str, ...]:
        """What was refused, in words."""
        return tuple(
            f"{check.name}: {check.value:.4g} against {check.limit:.4g}"
            f"{f' ({check.sure})' if check.sure else ''}"
            for check in self.checks
            if not check.passed
        )


def as_table(checks: Sequence[Check]) -> list[dict[str, object]]:
    """Checks as JSON rows."""
    return [
        {
            "check": check.name,
            "value": None if isnan(check.value) else check.value,
            "limit": check.limit,
            "passed": check.passed,
            "sure": check.sure,
        }
        for check in checks
    ]
