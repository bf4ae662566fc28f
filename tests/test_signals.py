"""Implicit signals on made-up logs whose truth is known: each planted one, and nothing else."""

import json

import numpy as np
import pandas as pd
import pytest

from training.label.ladder import build_ladder
from training.label.signals import find_signals, similarity
from training.label.turns import TurnReader, user_turns
from training.log.layout import to_arrow
from training.log.normalise import normalise
from training.log.requests import SIGNALS

ASK = "How many litres of paint do I need for a room of 4 by 5 metres?"
OTHER = "What is the capital of the country north of Peru?"
REPHRASED = "Please: how many litres of paint do I need for a room of 4 by 5 metres"
NEIGHBOUR = "How many litres of water do I need for a room of 4 by 5 metres?"
OTHER_NUMBERS = "How many litres of paint do I need for a room of 4 by 6 metres?"
WRONG = "That is not right. Check it and try again."


def user(text):
    return {"role": "user", "content": text}


def chat(*texts):
    """A conversation: user and assistant by turns."""
    roles = ("user", "assistant")
    return [{"role": roles[i % 2], "content": text} for i, text in enumerate(texts)]


def pictured(url):
    """A question about a picture."""
    parts = [{"type": "text", "text": ASK}, {"type": "image_url", "image_url": {"url": url}}]
    return [{"role": "user", "content": parts}]


def row(minute, model, messages, **more):
    """A call at a minute; one session and one user unless told otherwise."""
    messages = [user(messages)] if isinstance(messages, str) else messages
    start = pd.Timestamp("2026-03-01T12:00:00.123Z")
    return {
        "at": start + pd.Timedelta(minutes=minute),
        "model": model,
        "messages": json.dumps(messages),
        "session_id": "s",
        "user_id": "u",
        "latency_ms": 2000.0,
        "response": "…",
    } | more


def read(rows):
    """Turns and last turns of rows, by the way they take in the command."""
    rows = [{"request_id": f"r{i}"} | given for i, given in enumerate(rows)]
    names = {name for given in rows for name in given}
    frame, problems = normalise({n: [r.get(n) for r in rows] for n in names}, len(rows))
    assert not problems
    reader = TurnReader()
    reader.add(to_arrow(frame))
    return reader, [user_turns(json.loads(text))[-1] for text in frame["messages"]]


def signals(rows, minutes=10.0):
    """Signal → positions of rows → score; without those of silence, which most rows are."""
    reader, texts = read(rows)
    ladder = build_ladder(reader.answerers, [0.0] * len(reader.answerers))
    found = find_signals(
        reader.turns(), ladder.above, minutes, lambda wanted: {i: texts[i] for i in wanted}
    )
    assert set(found) == set(SIGNALS)
    return {
        name: {int(i): float(scores[i]) for i in np.flatnonzero(~np.isnan(scores))}
        for name, scores in found.items()
        if name not in ("abandoned", "went_on") and not np.isnan(scores).all()
    }


SMALL, LARGE = "gpt-4o-mini", "gpt-4o"
ESCALATED = {"escalation": {0: 0.0}}


@pytest.mark.parametrize(
    ("rows", "found"),
    [
        pytest.param([row(0, SMALL, ASK), row(1, LARGE, ASK)], ESCALATED, id="same prompt"),
        pytest.param(
            [row(0, SMALL, ASK), row(1, LARGE, f"  {ASK.upper()} ")], ESCALATED, id="normalised"
        ),
        pytest.param([row(0, SMALL, ASK), row(1, LARGE, REPHRASED)], ESCALATED, id="rephrased"),
        pytest.param(
            [row(0, SMALL, ASK), row(1, LARGE, chat(ASK, "40", ASK))], ESCALATED, id="once more"
        ),
        pytest.param(
            [row(0, SMALL, ASK), row(1, LARGE, chat(ASK, "40", WRONG))], ESCALATED, id="complaint"
        ),
        pytest.param(
            [row(0, SMALL, ASK), row(1, LARGE, WRONG)], ESCALATED, id="complaint without history"
        ),
        pytest.param(
            [row(0, SMALL, ASK), row(1, SMALL, ASK), row(2, LARGE, ASK)],
            {"escalation": {0: 0.0, 1: 0.0}},
            id="re-roll, then escalation",
        ),
        pytest.param(
            [row(0, SMALL, ASK), row(1, SMALL, chat(ASK, "4", WRONG))],
            {"complaint": {0: 0.0}},
            id="complaint on the same tier",
        ),
        pytest.param(
            [row(0, LARGE, ASK), row(1, LARGE, chat(ASK, "4", "Thanks, that helps"))],
            {"thanked": {0: 1.0}},
            id="thanks",
        ),
        pytest.param(
            [
                row(0, SMALL, ASK),
                row(1, SMALL, [user(ASK), {"role": "tool", "content": "12"}]),
                row(2, SMALL, chat(ASK, "4", "Thank you")),
            ],
            {"thanked": {1: 1.0}},
            id="thanks for the last step of a tool chain",
        ),
        pytest.param(
            [row(0, SMALL, ASK, session_id=None), row(1, LARGE, ASK, session_id=None)],
            {"retry": {0: 0.0}},
            id="no session, same user",
        ),
        pytest.param(
            [row(0, SMALL, ASK), row(1, LARGE, ASK, session_id="t")],
            {"retry": {0: 0.0}},
            id="another session, same user",
        ),
        pytest.param(
            [row(0, SMALL, ASK, user_id=None), row(1, LARGE, ASK, user_id=None)],
            ESCALATED,
            id="no user",
        ),
        pytest.param(
            [row(1, LARGE, ASK), row(0, SMALL, ASK)],
            {"escalation": {1: 0.0}},
            id="rows out of order",
        ),
    ],
)
def test_what_a_user_did_next_is_read_as_a_signal(rows, found):
    assert signals(rows) == found


SILENT = [
    pytest.param([row(0, SMALL, ASK), row(1, SMALL, ASK)], id="re-roll"),
    pytest.param([row(0, "openai/gpt-4o-2024-08-06", ASK), row(1, LARGE, ASK)], id="same model"),
    pytest.param([row(0, LARGE, ASK), row(1, SMALL, ASK)], id="to a lower tier"),
    pytest.param([row(0, SMALL, ASK, status="error"), row(1, LARGE, ASK)], id="after an error"),
    pytest.param([row(0, SMALL, ASK), row(11, LARGE, ASK)], id="too late"),
    pytest.param([row(0, SMALL, ASK), row(1, LARGE, OTHER)], id="another question"),
    pytest.param([row(0, SMALL, ASK), row(1, LARGE, OTHER_NUMBERS)], id="other numbers"),
    pytest.param([row(0, SMALL, ASK), row(1, LARGE, NEIGHBOUR)], id="one other word"),
    pytest.param(
        [row(0, SMALL, ASK, request_id="x"), row(1, LARGE, ASK, request_id="x")], id="shadow call"
    ),
    pytest.param([row(0, SMALL, ASK), row(0.01, LARGE, ASK)], id="sent before the answer"),
    pytest.param([row(0, SMALL, ASK), row(1, LARGE, ASK, user_id="v")], id="another user"),
    pytest.param(
        [
            row(0, SMALL, ASK, session_id=None, latency_ms=None),
            row(1, LARGE, ASK, session_id=None),
        ],
        id="no session, and nobody knows when the answer came",
    ),
    pytest.param(
        [
            row(0, SMALL, ASK, session_id=None, user_id=None),
            row(1, LARGE, ASK, session_id=None, user_id=None),
        ],
        id="nobody knows who",
    ),
    pytest.param([row(0, SMALL, ASK), row(1, LARGE, ASK, at=None)], id="no time"),
    pytest.param(
        [row(0, SMALL, ASK), row(1, SMALL, ASK, status="error"), row(1.1, LARGE, ASK)],
        id="a re-roll that the gateway sent elsewhere",
    ),
    pytest.param(
        [
            row(0, SMALL, chat(ASK, "4", "go on")),
            row(1, LARGE, chat(ASK, "4", "go on", "5", "go on")),
        ],
        id="go on",
    ),
    pytest.param(
        [row(0, SMALL, ASK), row(1, LARGE, [user(ASK), {"role": "tool", "content": "12"}])],
        id="the next step of a tool chain",
    ),
    pytest.param(
        [
            row(0, SMALL, chat("Here is a letter from the bank", "ok", "Summarise that in a line")),
            row(1, LARGE, chat("Here is a poem on the sea", "ok", "Summarise that in a line")),
        ],
        id="the same words about something else",
    ),
    pytest.param([row(0, SMALL, ""), row(1, LARGE, "")], id="empty prompts"),
    pytest.param(
        [row(0, SMALL, ASK), row(1, SMALL, OTHER), row(2, LARGE, chat(OTHER, "x", "And Chile?"))],
        id="an ordinary conversation",
    ),
    pytest.param(
        [row(0, SMALL, ASK), row(1, SMALL, OTHER), row(2, SMALL, chat("Hi there", "hi", WRONG))],
        id="a complaint about an answer that is not in the log",
    ),
    pytest.param(
        [row(0, SMALL, pictured("https://a/1.png")), row(1, LARGE, pictured("https://a/2.png"))],
        id="another picture",
    ),
]


@pytest.mark.parametrize("rows", SILENT)
def test_what_is_no_signal(rows):
    assert signals(rows) == {}


def test_an_answer_after_an_error_can_be_escalated():
    rows = [row(0, SMALL, ASK, status="error"), row(1, SMALL, ASK), row(2, LARGE, ASK)]
    assert signals(rows) == {"escalation": {1: 0.0}}


def test_whole_seconds_are_not_taken_for_an_order():
    """A log that keeps whole seconds puts an answer and the next request into the same one."""
    at = pd.Timestamp("2026-03-01T12:00:00Z")
    rows = [row(0, SMALL, ASK, at=at, latency_ms=900.0), row(0, LARGE, ASK, at=at)]
    assert signals(rows) == ESCALATED


def test_the_window_starts_with_the_answer():
    rows = [row(0, SMALL, ASK, latency_ms=300_000.0), row(14, LARGE, ASK)]
    assert signals(rows, minutes=10.0) == ESCALATED
    assert signals(rows, minutes=8.0) == {}


def went_on(rows):
    reader, texts = read(rows)
    ladder = build_ladder(reader.answerers, [0.0] * len(reader.answerers))
    found = find_signals(reader.turns(), ladder.above, 10.0, lambda w: {i: texts[i] for i in w})
    return np.flatnonzero(~np.isnan(found["went_on"])).tolist()


@pytest.mark.parametrize(
    ("rows", "found"),
    [
        pytest.param([row(0, SMALL, ASK), row(1, SMALL, OTHER)], [0], id="another question"),
        pytest.param(
            [row(0, SMALL, ASK), row(1, LARGE, chat(ASK, "40", OTHER))], [0], id="the next turn"
        ),
        pytest.param([row(0, SMALL, ASK), row(30, SMALL, OTHER)], [], id="much later"),
        pytest.param([row(0, SMALL, ASK), row(1, SMALL, ASK)], [], id="a re-roll"),
        pytest.param([row(0, SMALL, ASK), row(1, SMALL, REPHRASED)], [], id="rephrased"),
        pytest.param([row(0, SMALL, ASK), row(1, SMALL, WRONG)], [], id="a complaint"),
        pytest.param(
            [row(0, SMALL, ASK), row(1, SMALL, OTHER), row(2, LARGE, ASK)], [1], id="comes back"
        ),
        pytest.param(
            [row(0, SMALL, "Thanks!"), row(1, SMALL, OTHER), row(2, SMALL, ASK)],
            [1],
            id="an answer to thanks is no answer",
        ),
        pytest.param(
            [row(0, SMALL, ASK, session_id=None), row(1, SMALL, OTHER, session_id=None)],
            [],
            id="no session",
        ),
    ],
)
def test_who_goes_on_to_something_else(rows, found):
    assert went_on(rows) == found


def test_the_last_answer_of_a_session_is_abandoned_if_the_log_goes_on():
    rows = [
        row(0, SMALL, ASK),
        row(1, SMALL, OTHER),
        row(2, SMALL, ASK, session_id="t"),
        row(60, SMALL, ASK, session_id="v"),
    ]
    reader, _ = read(rows)
    found = find_signals(reader.turns(), np.zeros((1, 1), bool), 10.0, lambda _: {})["abandoned"]
    assert np.flatnonzero(found == 1.0).tolist() == [1, 2]


def test_similarity_is_of_characters():
    assert similarity(ASK, ASK) == 1.0
    assert similarity(ASK, REPHRASED) > 0.8
    assert similarity(ASK, OTHER) < 0.2
    assert similarity("", "") == 1.0


PLOTS = ("plain", "escalation", "complaint", "reroll", "error", "thanks", "fallback", "talk")


def _session(kind, number, rng):
    """Rows of one session and the signals planted in them, by position."""
    ask = f"Question {number}: what is {rng.integers(1e6)} times {rng.integers(1e6)} and why?"
    other = f"Request {number}: write {rng.integers(1e6)} words on the sea"
    start = float(rng.uniform(0, 20_000))
    plots = {
        "plain": ([(SMALL, ask, {})], {}),
        "escalation": ([(SMALL, ask, {}), (LARGE, ask, {})], {("escalation", 0)}),
        "complaint": ([(SMALL, ask, {}), (LARGE, chat(ask, "x", WRONG), {})], {("escalation", 0)}),
        "reroll": ([(SMALL, ask, {}), (SMALL, ask, {})], {}),
        "error": ([(SMALL, ask, {"status": "error"}), (LARGE, ask, {})], {}),
        "thanks": ([(LARGE, ask, {}), (LARGE, chat(ask, "x", "Thanks!"), {})], {("thanked", 0)}),
        "fallback": (
            [(SMALL, ask, {}), (SMALL, ask, {"status": "error"}), (LARGE, ask, {})],
            {},
        ),
        "talk": ([(SMALL, ask, {}), (LARGE, chat(ask, "x", other), {})], {}),
    }
    calls, planted = plots[kind]
    rows = [
        row(start + 2 * i, model, messages, session_id=f"s{number}", user_id=f"u{number % 50}")
        | more
        for i, (model, messages, more) in enumerate(calls)
    ]
    return rows, planted


def test_a_long_log_gives_what_was_planted_and_nothing_else():
    rng = np.random.default_rng(5)
    rows, planted = [], set()
    for number in range(1200):
        made, signals_of = _session(rng.choice(PLOTS), number, rng)
        planted |= {(name, len(rows) + place) for name, place in signals_of}
        rows += made
    order = rng.permutation(len(rows))
    place = {int(old): new for new, old in enumerate(order)}
    found = signals([rows[i] for i in order])
    told = {(name, i) for name, scores in found.items() for i in scores}
    assert told == {(name, place[i]) for name, i in planted}
