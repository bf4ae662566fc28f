"""The model card of an artifact, for people."""

from collections.abc import Mapping, Sequence
from math import isfinite
from pathlib import Path
from typing import Any

from router.policy import Policy
from router.rules_file import stated_rules
from router.tier import Tier
from training.decide.operating import NOTHING_CHEAPER
from training.decide.promises import BY_DEFINITION
from training.label.rule import LabelRule
from training.learn.stages import stages_in_words
from training.measure.intervals import Interval
from training.measure.report import Report
from training.measure.valuation import Valuation
from training.show.words import dollars

TOP_ITSELF = "it holds by definition, as this is the top tier itself"


def model_card(
    tiers: Sequence[Tier],
    policy: Policy,
    facts: Mapping[str, Any],
    report: Report | Valuation | None,
) -> str:
    """Write the card in Markdown: what it decides, on what it rests, what to be careful of.

    Args:
        tiers: cheapest first.
        policy: the operating point.
        facts: of the manifest (`training.record`).
        report: on rows it was neither fitted nor chosen on, if there is one.
    """
    training = facts["training"]
    counts = training["rows"]
    lines = [
        "# Suffice router",
        "",
        "Chooses a model tier for each prompt. Trained on this team's own log; it says nothing of "
        "other traffic.",
        "",
        "| tier | model | USD per million tokens, input / output |",
        "|---|---|---|",
        *(
            f"| {tier.name} | {tier.model} | {tier.input_usd_per_mtok:g} / "
            f"{tier.output_usd_per_mtok:g} |"
            for tier in tiers
        ),
        "",
        "## Operating point",
        f"{describe_policy(policy, tiers)}",
        *_stages(facts),
        *_rules(facts, tiers),
        "",
        "## Data",
        f"- requests: {counts['fit']} to fit, {counts['choose']} to choose the operating point, "
        f"{counts['test']} to report",
        f"- {describe_window(training['since'], training['until'])}",
        f"- label rule: {describe_rule(LabelRule(**facts['label']))}",
        "",
        "## Notes",
        *(f"- {note}" for note in training["notes"]),
    ]
    if report is not None:
        lines += ["", f"## On {report.rows} later or unseen requests", *_figures(report)]
    return "\n".join(lines) + "\n"


def describe_stages(facts: Mapping[str, Any]) -> str | None:
    """How many prompts the second of two stages reads, and what that costs; None of one stage."""
    stages = facts.get("stages")
    return None if stages is None else stages_in_words(stages, "the choose rows") + "."


def _stages(facts: Mapping[str, Any]) -> tuple[str, ...]:
    words = describe_stages(facts)
    return () if words is None else ("", words[0].upper() + words[1:])


def _rules(facts: Mapping[str, Any], tiers: Sequence[Tier]) -> list[str]:
    rules = stated_rules(facts.get("rules"), tiers)
    if rules is None:
        return []
    told = [f"- {line}" for line in rules.describe()]
    return ["", "Rules come first, which the promise and the figures here do not know:", "", *told]


def describe_policy(policy: Policy, tiers: Sequence[Tier]) -> str:
    """The operating point and its promise in two sentences."""
    if policy.constant is not None:
        what = f"Always {tiers[policy.constant].name}: {policy.why}."
    else:
        what = f"{_dial(policy.mu)}: {policy.why}."
    promise = policy.promise
    if promise is None:
        return what
    held = "holds" if promise.certified else "could NOT be certified"
    if promise.rule == "max_bad_downgrade":
        said, limit = (
            f"at most {promise.target:.2%} of requests go to a tier that fails where the top tier "
            "suffices",
            "upper",
        )
    else:
        said, limit = f"mean quality at least {promise.target:.1%} of the top tier's", "lower"
    if promise.test == BY_DEFINITION:
        return f"{what} Promise: {said}; {TOP_ITSELF}."
    return (
        f"{what} Promise: {said}; it {held} at {promise.confidence:.0%} confidence on {promise.n} "
        "independent choose rows, a session counting once however long, and what is asked again "
        "counting as so many sessions (estimate "
        f"{promise.estimate:.2%}, {limit} limit {promise.bound:.2%}, {promise.test})."
    )


def _dial(mu: float) -> str:
    if mu > 0:
        return (
            f"An answer that suffices is valued at {dollars(1 / mu)}, and a prompt goes to the "
            "tier with the largest (probability × that value − cost)"
        )
    if mu == 0:
        return "A prompt goes to the tier that is likeliest to suffice, at any cost"
    return (
        "A prompt goes to a cheaper tier only where that is likelier to suffice, by more the more "
        f"it saves (dial {mu:.4g})"
    )


def next_step(policy: Policy, artifact: Path) -> tuple[str, ...]:
    """What may help where nothing cheaper than the top tier could be certified."""
    made = policy.promise
    if made is None or policy.why != NOTHING_CHEAPER:
        return ()
    target = made.target
    laxer = 0.96 * target if made.rule == "min_quality" else min(2 * target, (1 + target) / 2)
    return (
        f"What may help: more independent choose rows than {made.n} (a larger log, or a larger "
        "second part of --split); or a laxer goal, on labelled rows that it has not seen: "
        f"suffice policy {artifact} --traffic NEWER.parquet --set {made.rule}={laxer:.2g}",
    )


def describe_rule(rule: LabelRule) -> str:
    """The label rule in words."""
    if rule.assume_top_suffices:
        return (
            f"score at least {rule.sufficed_at:g}; ASSUMED: the top tier always suffices (it was "
            "never observed), so every figure for it is an assumption, not a measurement"
        )
    if rule.margin is not None:
        return f"score at least the top tier's minus {rule.margin:g}"
    return f"score at least {rule.sufficed_at:g}"


def describe_window(since: str | None, until: str | None) -> str:
    """The times of a log's first and last request, in words."""
    return f"window {since[:16]} to {until[:16]} UTC" if since and until else "no times in the log"


def _figures(report: Report | Valuation) -> list[str]:
    policy = report.figures["policy"]
    if isinstance(report, Valuation):
        shown = {"mean quality, doubly robust estimate": (policy["quality"], ".4f")}
        for name, gap in report.against.items():
            if "quality" in gap:
                shown[f"quality minus that of: {name}"] = (gap["quality"], "+.4f")
    else:
        shown = {
            "mean quality": (policy["quality"], ".4f"),
            "share of the top tier's quality": (policy["quality_of_top"], ".2%"),
            "cost of always-top ÷ its cost": (policy["saving"], ".2f"),
            "bad downgrades": (policy["bad_downgrade"], ".2%"),
        }
        if report.policy.constant is None:
            above = policy["above_random"]
            shown["quality above the same share sent at random"] = (above, "+.4f")
    return [f"- {name}: {_figure(one, form)}" for name, (one, form) in shown.items()]


def _figure(one: Interval, form: str) -> str:
    """A figure with its limits: a tier that is free, or a top one that never scores, has none."""
    if not isfinite(one.value):
        return "does not exist on these rows"
    if not (isfinite(one.low) and isfinite(one.high)):
        return f"{one.value:{form}} (limits unknown)"
    return f"{one.value:{form}} (95 %: {one.low:{form}} to {one.high:{form}})"
