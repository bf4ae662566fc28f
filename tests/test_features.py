"""Each surface feature counts what its name says, and every text gives finite numbers."""

from math import log1p
from time import perf_counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.features import CURRENT, NAMES, surface
from router.prompt import Prompt
from tests.builders import make_predictor

SHARES = [name for name in NAMES if name.startswith("share_")]


def features(text: str) -> dict[str, float]:
    return dict(zip(NAMES, surface(Prompt.of(text)).tolist(), strict=True))


def test_names_are_unique_and_part_of_the_spec() -> None:
    assert len(set(NAMES)) == len(NAMES)
    assert CURRENT.names == NAMES


def test_lengths() -> None:
    found = features("One two\nthree 42, and 7")
    assert found["log_chars"] == pytest.approx(log1p(23))
    assert found["log_text_chars"] == pytest.approx(log1p(23))
    assert found["log_words"] == pytest.approx(log1p(6))
    assert found["mean_word_chars"] == pytest.approx(18 / 6)
    assert found["log_lines"] == pytest.approx(log1p(1))
    assert found["log_numbers"] == pytest.approx(log1p(2))
    assert found["longest_word"] == pytest.approx(log1p(5))


def test_a_long_prompt_is_counted_whole_and_read_capped() -> None:
    found = features("ab " * 100_000)
    assert found["log_chars"] == pytest.approx(log1p(300_000))
    assert found["log_text_chars"] == pytest.approx(log1p(3073))


@pytest.mark.parametrize(
    ("text", "name", "share"),
    [
        ("abcd EFG", "share_lower", 4 / 8),
        ("abcd EFG", "share_upper", 3 / 8),
        ("abcd EFG", "share_space", 1 / 8),
        ("a1b22", "share_digit", 3 / 5),
        ("3+4=7", "share_maths", 2 / 5),
        ("∀x∈ℝ → ∑", "share_maths", 4 / 8),
        ("{x}[y]_z", "share_code", 5 / 8),
        ("Oh, no!", "share_punctuation", 2 / 7),
        ("“no”", "share_punctuation", 2 / 4),
        ("déjà", "share_accented", 2 / 4),
        ("Việt", "share_accented", 1 / 4),
        ("Привет", "share_greek_cyrillic", 1.0),
        ("λόγος", "share_greek_cyrillic", 1.0),
        ("שלום", "share_hebrew_arabic", 1.0),
        ("مرحبا", "share_hebrew_arabic", 1.0),
        ("नमस्ते", "share_indic", 1.0),
        ("สวัสดี", "share_indic", 1.0),
        ("你好吗", "share_cjk", 1.0),
        ("𠀀", "share_cjk", 1.0),
        ("ひらカナ", "share_kana_hangul", 1.0),
        ("한국어", "share_kana_hangul", 1.0),
        ("🎉🎂", "share_emoji", 1.0),
        ("☀", "share_emoji", 1.0),
        ("\x00\x01", "share_other", 1.0),
    ],
)
def test_shares_of_character_classes(text: str, name: str, share: float) -> None:
    found = features(text)
    assert found[name] == pytest.approx(share)
    assert sum(found[other] for other in SHARES) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("text", "opens", "ends"),
    [
        ("What is this?", 1, 1),
        ("what is this", 1, 0),
        ("¿Cuál es la capital?", 1, 1),
        ("Tell me why?  \n", 0, 1),
        ("今天星期几？", 0, 1),
        ("ما هي العاصمة؟", 0, 1),
        ("'How' is a word.", 1, 0),
        ("", 0, 0),
        ("?", 0, 1),
    ],
)
def test_questions(text: str, opens: int, ends: int) -> None:
    found = features(text)
    assert (found["opens_as_question"], found["ends_as_question"]) == (opens, ends)
    assert found["log_question_marks"] == pytest.approx(log1p(text.count("?")))


def test_languages_are_told_by_small_words() -> None:
    assert features("the cat sat on the mat")["english_words"] == pytest.approx(3 / 6)
    german = features("der Hund und die Katze")
    assert german["european_words"] == pytest.approx(3 / 5)
    assert german["english_words"] == 0
    assert features("the " * 39 + "cat cat cat")["english_words"] == pytest.approx(39 / 40)


def test_options_blanks_fences_and_quotes() -> None:
    assert features("Pick:\nA. one\nB. two\n(c) three\n4) four\n[5] five")["options"] == 5
    assert features("A.one\nAB. two\nit is A. here")["options"] == 0
    assert features("a. b\n" * 40)["options"] == 12
    assert features("the ____ fox")["blanks"] == 2
    assert features("```py\nx\n```")["code_fences"] == 2
    assert features('say "hi"')["quotes"] == 2
    assert features('"' * 100)["quotes"] == 24


def test_facts_of_the_conversation() -> None:
    prompt = Prompt.of(
        [
            {"role": "system", "content": "Be kind."},
            {"role": "user", "content": [{"type": "image"}, {"type": "image_url"}]},
            {"role": "user", "content": "and?"},
        ],
        tools=[{}] * 3,
    )
    found = dict(zip(NAMES, surface(prompt).tolist(), strict=True))
    assert found["log_system_chars"] == pytest.approx(log1p(8))
    assert (found["turns"], found["images"], found["tools"]) == (2, 2, 3)
    crowded = surface(Prompt("x", 1, turns=10**9, images=10**9, tools=10**9))
    assert crowded[-3:].tolist() == [50, 12, 50]


@given(st.text(st.characters(exclude_categories=())))
def test_features_of_any_text_are_finite(text: str) -> None:
    values = surface(Prompt.of(text))
    assert values.dtype == np.float32
    assert values.shape == (len(NAMES),)
    assert np.isfinite(values).all()
    shares = values[[NAMES.index(name) for name in SHARES]]
    assert shares.min() >= 0
    assert shares.sum() == pytest.approx(1.0 if text else 0.0, abs=1e-5)


@pytest.mark.parametrize(
    "text",
    [
        "word " * 60_000,
        "x" * 300_000,
        "A. " * 100_000,
        " " * 300_000,
        "\n" * 300_000,
        "🎉" * 300_000,
    ],
)
def test_a_huge_prompt_costs_no_more_than_a_long_one(text: str) -> None:
    """Work is bounded by the cap: a walk over all of it would take a hundred times more."""
    vectorizer = make_predictor().vectorizer
    vectorizer.vector(Prompt.of("warm"))
    started = perf_counter()
    vectorizer.vector(Prompt.of(text))
    assert perf_counter() - started < 0.5
