"""Thanks and complaints: what the phrases see, and what they must not take for either."""

import time
import tomllib

import pytest

from training.label.moods import COMPLAINT, NEITHER, PHRASES, THANKS, mood


@pytest.mark.parametrize(
    "turn",
    [
        "That is not right. Check the arithmetic and try again.",
        "No, that's wrong!",
        "Hmm — that doesn’t work, I still get the error",
        "Das stimmt nicht, bitte noch einmal",
        "Non, c'est faux.",
        "Eso no es correcto",
        "Isso está errado",
        "Non è corretto",
        "Dat klopt niet",
        "To nie działa",
        "Bu yanlış",
        "Это неправильно",
        "هذا خطأ",
        "यह गलत है",
        "这不对，请再算一遍",
        "それは間違っています。",
        "그건 틀렸어요",
        "Thanks, but that is not right",
    ],
)
def test_complaints(turn):
    assert mood(turn) == COMPLAINT


@pytest.mark.parametrize(
    "turn",
    [
        "Thanks!",
        "thank you so much, now translate it to French",
        "Perfect.",
        "Danke, das hilft",
        "Merci beaucoup !",
        "¡Muchas gracias!",
        "Obrigada",
        "Grazie mille",
        "Bedankt",
        "Dziękuję bardzo",
        "Teşekkürler",
        "Спасибо!",
        "شكرا",
        "धन्यवाद",
        "谢谢你",
        "ありがとうございます",
        "감사합니다!",
    ],
)
def test_thanks(turn):
    assert mood(turn) == THANKS


@pytest.mark.parametrize(
    "turn",
    [
        "",
        "   ",
        "And can I still change the address?",
        "Translate this mail, please. Thanks",
        "Thanks in advance: what is the capital of Peru?",
        "thanks for nothing",
        "Thanks, but I wanted it in Spanish",
        "Danke, aber ich meinte etwas anderes",
        "Which of these is the wrong answer?",
        "Why is option B not correct?",
        "Is that right?",
        "这个说法对不对？",
        "Thanksgiving recipes",
        "Perfection is the enemy of what?",
        "Please proofread: " + "lorem ipsum " * 20 + "that is wrong",
        "My login page shows an error when I press the button, then nothing. that is wrong somehow",
        "Wie sagt man auf Finnisch: guten Tag?",
    ],
)
def test_neither(turn):
    assert mood(turn) == NEITHER


def test_each_language_that_is_claimed_has_every_kind_of_phrase():
    claimed = set("en de fr es pt it nl pl tr ru ar hi zh ja ko".split())  # data/README.md
    kinds = tomllib.loads(PHRASES.read_text(encoding="utf-8"))
    for kind in ("complaint", "thanks", "not_thanks"):
        assert {language for language, phrases in kinds[kind].items() if phrases} == claimed


def test_hostile_text_takes_no_time():
    started = time.perf_counter()
    for text in ("that is not " * 100_000, "́" * 500_000, "不" * 500_000, "\x00" * 500_000):
        mood(text)
    assert time.perf_counter() - started < 1.0
