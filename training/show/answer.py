"""What a report comes to, in words: the lines that a terminal shows before the tables."""

from training.measure.report import Report
from training.measure.valuation import Valuation
from training.show import verdict, verdict_one_sided


def answer_lines(report: Report | Valuation) -> list[str]:
    """What is saved at what quality, how sure that is, and what became of the promise."""
    if isinstance(report, Valuation):
        said, badges = verdict_one_sided.headline(report), verdict_one_sided.badges(report)
        promise = verdict_one_sided.promise(report)["text"]
    else:
        said, badges = verdict.headline(report), verdict.badges(report)
        promise = verdict.promise(report)["text"]
    told = " ".join(f"{badge['word']}." for badge in badges)
    return [f"{said['answer']} {told}", said["sure"], promise]
