"""The answer first, on terminal and page: what a router saves, at what quality, and its promise."""

from math import isfinite

from router.policy import Policy, Promise
from training.decide.promises import BY_DEFINITION
from training.measure.compare import MATCHED, NO, YES, Comparison
from training.measure.intervals import Interval
from training.measure.report import Report
from training.show.card import TOP_ITSELF
from training.show.words import change, count, limits, percent, times


def headline(report: Report) -> dict[str, str]:
    """What is saved, at what quality, on how much evidence."""
    figures, policy, names = report.figures["policy"], report.policy, report.names
    saving, kept = figures["saving"], figures["quality_of_top"]
    at = f"at {percent(kept.value)} of the top tier’s quality"
    if not isfinite(kept.value):
        at = "beside a top tier that scored 0 throughout"
    if policy.constant is not None:
        answer = f"Sends everything to {names[policy.constant]}."
        if policy.constant < len(names) - 1:
            answer = f"{answer[:-1]}: {times(saving.value)} cheaper {at}."
    elif not isfinite(saving.value):
        answer = f"Costs nothing {at}."
    elif saving.value >= 1:
        answer = f"Saves {times(saving.value)} {at}."
    else:
        answer = f"Costs {times(1 / saving.value)} as much {at}."
    top, own = (1000 * report.figures[one]["cost_usd"].value for one in ("always top", "policy"))
    sure = [count(report.rows, "request") + " that the router has not seen"]
    sure.append(f"costs {change(top, own)} per 1,000")
    for name, found, form in (("saving", saving, "times"), ("quality", kept, "percent")):
        if told := limits(found, form):
            sure.append(f"{name} {told}")
    return {"answer": answer, "sure": " · ".join(sure), "why": policy.why}


def badges(report: Report) -> list[dict[str, str]]:
    """What became of the promise, and whether chance is beaten."""
    above = report.figures["policy"]["above_random"]
    return [promise(report), *against_random(above, report.policy)]


def promise(report: Report) -> dict[str, str]:
    """What was promised, whether it could be certified, and what these rows say of it."""
    made = report.policy.promise
    if made is None or made.test == BY_DEFINITION:
        return unjudged(made)
    at_most = made.rule == "max_bad_downgrade"
    held = "certified" if made.certified else "could not be certified"
    text = (
        f"Promised: {promised(made)}. It {'was ' if made.certified else ''}{held} at "
        f"{percent(made.confidence, 0)} confidence on {count(made.n, 'independent request')} kept "
        f"aside for that choice, a session counting once however long (estimate "
        f"{percent(made.estimate, 2)}, limit {percent(made.bound, 2)})."
    )
    seen = report.figures["policy"]["bad_downgrade" if at_most else "quality_of_top"]
    word, mark, here = kept(seen, made.target, at_most)
    if not made.certified:
        word, mark = "Not certified", "no"
    span = f" ({told})" if (told := limits(seen, "percent")) else ""
    text += f" On these requests, each counting once: {percent(seen.value)}{span}, {here}."
    return {"word": word, "class": mark, "text": text}


def unjudged(made: Promise | None) -> dict[str, str]:
    """What is said where no row judges: there is no promise, or the top tier keeps it itself."""
    if made is None:
        return {"word": "No promise", "class": "open", "text": "The policy carries no promise."}
    told = f"Promised: {promised(made)}; {TOP_ITSELF}."
    return {"word": "Nothing to promise", "class": "open", "text": told}


def promised(made: Promise) -> str:
    """What was promised, in words."""
    if made.rule == "max_bad_downgrade":
        return f"at most {percent(made.target)} bad downgrades"
    return f"at least {percent(made.target)} of the top’s quality"


def against_random(above: Interval | None, policy: Policy) -> list[dict[str, str]]:
    """Whether routing is shown to beat sending the same share at random, as a badge.

    No badge of a policy that sends everything to one tier, as chance would.

    Args:
        above: quality minus that of the same share sent at random; None where it is not known.
        policy: whose it is.
    """
    if above is None or policy.constant is not None:
        return []
    answer = Comparison("", MATCHED, above).answer
    if answer == NO:
        return [{"word": "Worse than random: shown", "class": "no"}]
    shown = answer == YES
    word = f"Better than random: {'shown' if shown else 'not shown'}"
    return [{"word": word, "class": "yes" if shown else "open"}]


def kept(seen: Interval, target: float, at_most: bool = False) -> tuple[str, str, str]:
    """What some rows say of a promise: a badge's words, its CSS class, and half a sentence.

    Args:
        seen: the promised figure there.
        target: of the promise.
        at_most: whether the figure must stay below the target, and not above.
    """
    value, low, high = (-seen.value, -seen.high, -seen.low) if at_most else (
        seen.value, seen.low, seen.high)  # fmt: skip
    bar = -target if at_most else target
    if low >= bar:
        return "Promise holds", "yes", "so it is kept, and shown to be"
    if value >= bar:
        return "Promise holds in the estimate", "yes", "so it is kept in the estimate"
    if high < bar:
        return "Promise broken", "no", "so it is shown to be broken here"
    return (
        "Promise in doubt",
        "open",
        "so it is below in the estimate, though not shown to be broken",
    )
