"""What a report comes to, in words: the lines that a terminal shows before the tables."""

from training.measure.report import Report
from training.measure.valuation import Valuation
from training.show.page import one_sided, verdict


def answer_lines(report: Report | Valuation) -> list[str]:
    """What is saved at what quality, how sure that is, and what became of the promise."""
    policy = report.policy
    if isinstance(report, Valuation):
        said, badges = one_sided.headline(report, policy), one_sided.badges(report, policy)
        promise = one_sided.promise(policy)
    else:
        said, kept = verdict.headline(report, policy, report.names), verdict.promise(report, policy)
        above = report.figures["policy"]["above_random"]
        badges, promise = [kept, *verdict.against_random(above, policy)], kept["text"]
    told = " ".join(f"{badge['word']}." for badge in badges)
    return [f"{said['answer']} {told}", said["sure"], promise]
