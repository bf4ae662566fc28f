"""The card and the summary: words for people, and what may help."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from rich.table import Table

from router.policy import Policy, Promise
from tests.test_report import rows_of
from tests.traffic_makers import TIERS
from training.console import WIDTH, render
from training.decide.operating import NOTHING_CHEAPER
from training.measure.report import build_report
from training.show.card import describe_policy, model_card, next_step
from training.show.inspect import describe

TOP = Policy(
    0.0,
    len(TIERS) - 1,
    Promise("min_quality", 0.99, 0.95, 150, 1.0, 1.0, True, "by definition"),
    NOTHING_CHEAPER,
)


@pytest.mark.parametrize(
    ("dial", "said"),
    [
        (49.55, "valued at $0.0202, and a prompt goes to the tier with the largest (probability"),
        (0.0, "likeliest to suffice, at any cost: why"),
        (-3.0, "cheaper tier only where that is likelier to suffice"),
    ],
)
def test_a_dial_in_words(dial, said):
    assert said in describe_policy(Policy(dial, why="why"), TIERS)


@pytest.mark.parametrize(
    ("rule", "target", "laxer"),
    [
        ("min_quality", 0.99, "min_quality=0.95"),
        ("max_bad_downgrade", 0.02, "max_bad_downgrade=0.04"),
        ("max_bad_downgrade", 0.8, "max_bad_downgrade=0.9"),
    ],
)
def test_always_top_says_what_may_help(rule, target, laxer):
    policy = replace(TOP, promise=replace(TOP.promise, rule=rule, target=target))
    [line] = next_step(policy, Path("artifacts/current"))
    assert f"suffice policy artifacts/current --traffic NEWER.parquet --set {laxer}" in line
    assert "independent choose rows than 150" in line


def test_what_a_promise_counts_is_told():
    """Of sessions of one and of twenty requests, each counts once: requests may fare otherwise."""
    made = Promise("min_quality", 0.98, 0.95, 150, 0.99, 0.985, True)
    told = describe_policy(Policy(50.0, None, made, "why"), TIERS)
    assert "on 150 independent choose rows, a session counting once however long" in told


def test_where_something_was_certified_nothing_needs_help():
    assert next_step(Policy(50.0, None, TOP.promise, "the cheapest step"), Path("a")) == ()
    assert next_step(replace(TOP, why="not dearer than routing"), Path("a")) == ()


def test_what_only_tuners_read_is_in_the_summary_and_not_on_the_card(job):
    card = (job.artifact / "CARD.md").read_text(encoding="utf-8")
    for jargon in ("how much each member counts", "thousandths of a nat"):
        assert jargon not in card
        assert any(jargon in line for line in job.trained.summary)
        assert any(jargon in line for line in describe(job.artifact))
    assert "labelled rows" in card


def test_a_figure_that_does_not_exist_is_told_in_words(job):
    """The cheap tier costs nothing, the top tier never scores."""
    rows = rows_of()
    paid, score = rows.paid * [0.0, 1.0], rows.score * [1.0, 0.0]
    rows = replace(rows, paid=paid, score=score, sufficed=score >= 0.5)
    facts = json.loads((job.artifact / "manifest.json").read_text(encoding="utf-8"))
    policy = Policy(0.0, constant=0)
    card = model_card(TIERS, policy, facts, build_report(rows, policy, ()))
    assert "share of the top tier's quality: does not exist on these rows" in card
    assert "cost of always-top ÷ its cost: does not exist on these rows" in card
    assert not {"inf", "inf%", "nan", "nan%"} & set(card.split())


def test_a_table_is_as_wide_as_the_terminal(monkeypatch):
    table = Table("words", "more words")
    table.add_row("a " * 100, "b " * 100)
    assert max(map(len, render(table).splitlines())) == WIDTH
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "80")
    assert max(map(len, render(table).splitlines())) == 80


def test_what_stands_in_a_table_is_text():
    table = Table("[b]tier[/b]", title="[x] against :rocket:")
    table.add_row("small [x] / [/red]")
    told = render(table)
    for text in ("[b]tier[/b]", "[x] against :rocket:", "small [x] / [/red]"):
        assert text in told


def test_the_card_names_the_rules_that_come_first(job, tmp_path):
    facts = json.loads((job.artifact / "manifest.json").read_text(encoding="utf-8"))
    facts["rules"] = {"deny": {"tag": {"batch": ["large"]}}}
    card = model_card(TIERS, TOP, facts, None)
    assert "Rules come first" in card and "- rule deny: tag batch never gets large" in card
    assert "Rules come first" not in model_card(TIERS, TOP, facts | {"rules": None}, None)


def test_the_card_says_once_that_a_log_has_no_times(job):
    facts = json.loads((job.artifact / "manifest.json").read_text(encoding="utf-8"))
    timed = model_card(TIERS, TOP, facts, None)
    facts["training"] |= {"since": None, "until": None}
    assert "- no times in the log\n" in model_card(TIERS, TOP, facts, None)
    assert "- window 20" in timed and "no times in the log" not in timed
