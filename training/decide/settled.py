"""An operating point, and what it was chosen by."""

from dataclasses import dataclass
from pathlib import Path

from router.policy import Policy
from training.decide.evidence import FILE, Basis, Evidence, save_evidence
from training.decide.goals import Goal
from training.decide.operating import Course
from training.learn.stages import Pace


@dataclass(frozen=True, slots=True)
class Settled:
    """An operating point and what it was chosen by; None of what is lost, or was never kept.

    Attributes:
        policy: the operating point.
        goal: what was asked for.
        course: in which order operating points were tried.
        evidence: what the choose rows know.
        basis: what the fit rows say of the course.
        notes: what a one-sided log never tried, in words.
    """

    policy: Policy
    goal: Goal | None
    course: Course | None
    evidence: Evidence | None
    basis: Basis | None
    notes: tuple[str, ...] = ()

    def save(self, folder: Path) -> str | None:
        """Write the evidence and its basis; returns the file's sha256, None without both."""
        if self.evidence is None or self.basis is None:
            return None
        return save_evidence(folder / FILE, self.evidence, self.basis)

    def stage_facts(self, pace: Pace) -> dict[str, float] | None:
        """What the gate does on the choose rows; None without evidence or a second stage."""
        return None if self.evidence is None else self.evidence.stage_facts(self.policy, pace)
