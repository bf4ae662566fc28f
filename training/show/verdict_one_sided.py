"""The answer first, of a one-sided log: what a router is estimated to be worth, and its promise."""

from training.decide.promises import BY_DEFINITION
from training.measure.valuation import CHOSEN, LOGGING, RANDOM, Valuation
from training.show.verdict import against_random, kept, promised, unjudged
from training.show.words import count, dollars, limits, percent, rise, signed


def headline(found: Valuation) -> dict[str, str]:
    """The estimated value of the chosen point, and what it changes against what the log did."""
    policy, figures, against = found.policy, found.figures[CHOSEN], found.against[LOGGING]
    quality, cost = figures["quality"], 1000 * figures["cost_usd"].value
    change, extra = against["quality"], against["cost_usd"].times(1000)
    worth = f"{percent(quality.value)} mean quality for {dollars(cost)} per 1,000"
    spent = "the same as the log did"
    if extra.value:
        more = rise(cost - extra.value, cost)
        spent = f"{more} than the log did ({signed(extra.value)} per 1,000)"
    everything = policy.constant is not None
    what = f"Sends everything to {found.names[policy.constant or 0]}" if everything else worth
    points, least, most = (
        f"{100 * end:+.1f}".replace("-", "−") for end in (change.value, change.low, change.high)
    )
    sure = [
        *([worth] if everything else []),
        count(found.rows, "one-sided request"),
        f"{found.effective[CHOSEN]:,.0f} effective",
        *([f"quality {told}"] if (told := limits(quality, "percent")) else []),
        f"against what the log did: {points} points of quality ({least} to {most}), "
        f"{signed(extra.value)} per 1,000 ({signed(extra.low)} to {signed(extra.high)})",
    ]
    return {"answer": f"{what}; costs {spent}.", "sure": " · ".join(sure), "why": policy.why}


def badges(found: Valuation) -> list[dict[str, str]]:
    """That all is estimated, what became of the promise, and whether chance is beaten."""
    policy, told = found.policy, [{"word": "Estimated", "class": "open"}]
    if policy.promise is not None:
        told.append(promise(found))
    return told + against_random(found.against[RANDOM].get("quality"), policy)


def promise(found: Valuation) -> dict[str, str]:
    """What was promised, whether it could be certified, and what is estimated of it here."""
    made = found.policy.promise
    if made is None or made.test == BY_DEFINITION:
        return unjudged(made)
    held = "was certified" if made.certified else "could NOT be certified"
    text = (
        f"The promise ({promised(made)}) {held} at {percent(made.confidence, 0)} "
        f"confidence on {count(made.n, 'independent request')} kept aside for that choice."
    )
    seen = found.figures[CHOSEN].get("quality_of_top") if made.rule == "min_quality" else None
    if seen is None:
        word, mark = "Promise not judged here", "open"
        text += " Whether it is kept cannot be told from these requests."
    else:
        word, mark, here = kept(seen, made.target)
        span = f" ({told})" if (told := limits(seen, "percent")) else ""
        text += f" On these requests: an estimated {percent(seen.value)}{span}, {here}."
    if not made.certified:
        word, mark = "Not certified", "no"
    return {"word": word, "class": mark, "text": text}
