"""An explanation in words and tables, for people who do not know the model."""

from collections.abc import Iterator
from math import expm1, isinf

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from rich.table import Table

from router.features import NAMES
from training.console import render
from training.show.changes import Rival
from training.show.contributions import NEIGHBOURS, READ, SURFACE_GROUPS, WORDING
from training.show.explain import Explanation
from training.show.words import count

MOST_WORDS = 4
MOST_TIERS = 3  # are taken apart: a table of more columns than these is read by nobody
MEANINGS = {
    "length": "how long the prompt is",
    "numbers and maths": "digits, formulas",
    "code": "code, blanks to fill in",
    "form of the question": "questions, options, quotes",
    "language and script": "language, capitals, alphabet",
    "conversation": "turns, instructions, images, tools",
    "meaning": "what it is about (embedding)",
    WORDING: "its words and pairs of words",
    NEIGHBOURS: "how past requests like it went",
    READ: "the prompt read as a whole",
}
_STAGES = {
    1: "Of two stages the first decided alone: asking the second was not worth its time.",
    2: "Of two stages the second was asked, too; its part in the answer is taken apart here.",
}


def lines(explanation: Explanation) -> Iterator[str]:
    """Everything, ready to print."""
    yield render(_decision(explanation))
    yield from _dial(explanation)
    if explanation.stage is not None:
        yield _STAGES[explanation.stage]
    if explanation.artifact.rules is not None:
        yield "Rules come before all this, and may decide otherwise; `suffice inspect` lists them."
    if explanation.contributions is not None:
        yield ""
        shown = _nearest(explanation)
        yield render(_groups(explanation, shown))
        if left := len(explanation.learned) - len(shown):
            yield f"{count(left, 'more tier')}, farther from being chosen: see --json."
        yield f"Compared with: {explanation.reference}."
        yield from _words(explanation, shown)
        yield from _neighbours(explanation, shown)
    yield ""
    yield from _changes(explanation)


def parts_frame(e: Explanation) -> pd.DataFrame:
    """What each part of the prompt moves, in points of probability, the largest first.

    One row per part, one column per learned tier; empty where no tier is learned.
    """
    parts = e.contributions.by_group if e.contributions else {}
    points = {name: 100 * part.sum(axis=0) * e.points for name, part in parts.items()}
    frame = pd.DataFrame.from_dict(points, orient="index", columns=e.learned, dtype=np.float64)
    order = frame.abs().max(axis=1).sort_values(ascending=False, kind="stable").index
    return frame.loc[order]


def _decision(e: Explanation) -> Table:
    table = Table(title=f"{e.names[e.chosen]} is chosen", title_justify="left")
    for name in ("tier", "suffices with", "average request", "USD per 1,000", ""):
        table.add_column(name, justify="right" if name not in ("tier", "") else "left")
    for k, name in enumerate(e.names):
        average = f"{e.p_reference[k]:.1%}" if name in e.learned else "always the same"
        cost = f"{1000 * e.usd[k]:.4g}"
        chosen = "← chosen" if k == e.chosen else ""
        table.add_row(name, f"{e.p[k]:.1%}", average, cost, chosen)
    return table


def _dial(e: Explanation) -> Iterator[str]:
    policy = e.artifact.policy
    if policy.constant is not None:
        yield f"Every request goes to {e.names[policy.constant]}, whatever it says: {policy.why}."
    elif policy.mu > 0:
        yield (
            f"The operating point values an answer that suffices at {_usd(1 / policy.mu)}. The "
            "tier with the largest (probability × that value − cost) is chosen."
        )
    elif policy.mu == 0:
        yield "The operating point does not look at cost: the likeliest to suffice is chosen."
    else:
        yield (
            f"The operating point's dial is {policy.mu:.4g}, below 0: a cheaper tier is chosen "
            "only where it is likelier to suffice, by more the more it saves."
        )


def _nearest(e: Explanation) -> list[int]:
    """Places among the learned tiers of the chosen one and of those that came closest to it."""
    worth = e.p - e.artifact.policy.mu * e.usd
    worth[e.chosen] = np.inf
    order = np.argsort(-worth[e.artifact.predictor.learned], kind="stable")
    return sorted(order[:MOST_TIERS].tolist())


def _groups(e: Explanation, shown: list[int]) -> Table:
    assert e.contributions is not None
    learned = [e.artifact.predictor.learned[j] for j in shown]
    start = ", ".join(f"{e.names[k]} {e.p_reference[k]:.1%} to {e.p[k]:.1%}" for k in learned)
    table = Table(
        title=f"What moves P(suffices) from an average request to this one: {start}",
        title_justify="left",
    )
    table.add_column("part of the prompt")
    for k in learned:  # wide enough for a cell such as +1.6 (+0.07)
        table.add_column(f"{e.names[k]}, points (log-odds)", justify="right", min_width=12)
    table.add_column("most of it")
    slopes = e.points[shown]
    totals = {name: part.sum(axis=0)[shown] for name, part in e.contributions.by_group.items()}
    for name, total in sorted(totals.items(), key=lambda item: -float(np.abs(item[1]).max())):
        cells = _cells(total, slopes)
        table.add_row(f"{name}: {MEANINGS[name]}", *cells, _features(e, name, shown))
    everything = np.sum(list(totals.values()), axis=0)
    table.add_row("all together", *_cells(everything, slopes), end_section=True)
    return table


def _cells(pushes: NDArray[np.float64], slopes: NDArray[np.float64]) -> Iterator[str]:
    for push, slope in zip(pushes, slopes, strict=True):
        yield f"{100 * push * slope:+.1f} ({push:+.2f})"


def _features(e: Explanation, group: str, shown: list[int]) -> str:
    """The two surface features of a group that push most, with their values."""
    assert e.contributions is not None
    names = SURFACE_GROUPS.get(group, ())
    moved = e.contributions.columns[:, shown]
    push = {name: np.abs(moved[NAMES.index(name)]).max() for name in names}
    strongest = sorted((name for name in names if push[name] > 0.005), key=lambda n: -push[n])[:2]
    return ", ".join(_feature(name, float(e.surface[NAMES.index(name)])) for name in strongest)


def _feature(name: str, value: float) -> str:
    """A surface feature in words: counts as counts, shares in percent."""
    plain = name.replace("_", " ")
    if name.startswith("log_"):
        return f"{plain.removeprefix('log ')}: {expm1(value):.0f}"
    if name.startswith("share_"):
        return f"{plain.removeprefix('share ')} characters: {value:.0%}"
    if name == "longest_word":
        return f"{plain}: {expm1(value):.0f}"
    if name in ("english_words", "european_words"):
        return f"common {plain}: {value:.0%}".replace("european", "other European")
    if name in ("opens_as_question", "ends_as_question"):
        return f"{plain}: {'yes' if value else 'no'}"
    return f"{plain}: {value:.3g}"


def _words(e: Explanation, shown: list[int]) -> Iterator[str]:
    for j in shown:
        told = [(text, push[j]) for text, push in e.tokens if abs(push[j]) >= 0.005]
        told.sort(key=lambda item: -abs(item[1]))
        if told:
            words = ", ".join(f"{text!r} {push:+.2f}" for text, push in told[:MOST_WORDS])
            yield f"Words that say most about {e.learned[j]} (log-odds): {words}."


def _neighbours(e: Explanation, shown: list[int]) -> Iterator[str]:
    for j in shown:
        yield (
            f"Past requests most like this one: {e.learned[j]} scored {e.near_rate[j]:.0%} on "
            f"average, over about {e.near_rows[j]:.0f} of them (weighted by likeness)."
        )


def _changes(e: Explanation) -> Iterator[str]:
    yield "What would change the decision:"
    if e.artifact.policy.constant is not None:
        yield "- nothing in the prompt: only another operating point (suffice policy)"
        return
    chosen = e.names[e.chosen]
    for rival in e.rivals:
        name = e.names[rival.tier]
        yield f"- {name} would be chosen {_dials(e, rival)}"
        if rival.p_own is not None and chosen in e.learned:
            yield f"- or {name}, if P({chosen} suffices) fell below {rival.p_own:.1%}"
        if rival.p_rival is not None and name in e.learned:
            yield f"- or {name}, if P({name} suffices) rose above {rival.p_rival:.1%}"
        if rival.usd_rival is not None:
            share = f" ({rival.usd_rival / e.usd[rival.tier]:.0%} of it now)"
            yield f"- or {name}, if it cost less than {_usd(rival.usd_rival)}{share}"
        if rival.usd_own is not None:
            times = f" ({rival.usd_own / e.usd[e.chosen]:.3g} × now)" if e.usd[e.chosen] else ""
            yield f"- or {name}, if {chosen} cost more than {_usd(rival.usd_own)}{times}"
    yield from _parts(e)


def _dials(e: Explanation, rival: Rival) -> str:
    """At which worth of an answer a rival wins: the reciprocal of the dial, where it is above 0."""
    if rival.dials is None:
        return "at no operating point: another tier is better or cheaper at each"
    low, high = rival.dials
    if low < 0:  # a negative dial rewards cost: no worth of an answer says that
        bound = f"below {high:.4g}" if isinf(low) else f"from {low:.4g} to {high:.4g}"
        if high <= 0:
            return f"only at an operating point that pays to spend (dial {bound})"
        return f"if an answer that suffices were worth more than {_usd(1 / high)}"
    if isinf(high):
        least = f"less than {_usd(1 / low)}" if low > 0 else "anything at all"
        return f"if an answer that suffices were worth {least}"
    if low == 0:
        return f"if an answer that suffices were worth more than {_usd(1 / high)}"
    return f"if an answer that suffices were worth {_usd(1 / high)} to {_usd(1 / low)}"


def _parts(e: Explanation) -> Iterator[str]:
    if e.alone:
        yield f"- or another tier, if only one of these were as on average: {', '.join(e.alone)}"
    elif e.together:
        yield f"- or another tier, if all of these were as on average: {', '.join(e.together)}"
    elif e.contributions is not None:
        yield (
            "- no part of the prompt: an average request of this cost would go to "
            f"{e.names[e.chosen]}, too"
        )


def _usd(each: float) -> str:
    return f"${1000 * each:.4g} per 1,000"
