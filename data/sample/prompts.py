"""The made-up half of the sample: who asks what, when and in which words.

Everything here is a deterministic function of a seed. A `Question` carries its exact answer key;
`sessions` arranges questions into sessions with users, applications and times over four weeks. The
words are in prompts.toml.
"""

from __future__ import annotations

import datetime as dt
import math
import random
import string
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import reasoning_gym

BANK = tomllib.loads(Path(__file__).with_name("prompts.toml").read_text(encoding="utf-8"))
START = dt.datetime(2026, 10, 5, tzinfo=dt.UTC)  # a Monday
DAYS = 28
# Sessions by hour of the day (UTC) and by weekday: office days, quiet nights and weekends.
HOURS = (1, 1, 1, 1, 1, 2, 5, 12, 22, 26, 25, 22, 16, 21, 24, 22, 18, 12, 9, 8, 7, 5, 3, 2)
WEEKDAYS = (10, 11, 11, 10, 9, 3, 3)
# Tasks of each application (a row's `source`) and their weights.
APPLICATIONS = {
    "quiz-app": {"capitals": 4, "continents": 3, "currency": 3, "first_letter": 1},
    "vocab-coach": {
        "antonyms": 4, "first_letter": 2.5, "last_word": 2.5, "reversing": 1, "letter_counting": 1,
    },
    "review-desk": {"sentiment": 9, "comparing": 1},
    "maths-helper": {
        "sums": 4, "comparing": 3, "products": 1.2, "gcd": 1.2, "chain_sum": 1.6, "count_bits": 0.6,
    },
    "mail-assistant": {
        "capitals": 2, "currency": 1.5, "continents": 1, "sentiment": 2, "comparing": 2, "sums": 2,
        "antonyms": 1, "last_word": 1.5, "chain_sum": 1,
    },
}  # fmt: skip
LANGUAGES = {"en": 62, "de": 10, "es": 9, "fr": 7, "it": 4, "pt": 4, "zh": 4}
# How a question is worded around its core, and how often.
STYLES = {"bare": 28, "polite": 25, "preamble": 20, "mail": 11, "buried": 9, "sloppy": 7}
NUMBER_WORDS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
# Slots of a phrasing, and every answer that counts as right.
Made = tuple[dict, tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Question:
    """One prompt as a person wrote it; of the accepted answers the first is the reference."""

    task: str
    language: str
    text: str
    accepted: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Session:
    """Questions of one user in a row; in a `chat` each call carries the turns before it."""

    session_id: str
    user_id: str
    source: str
    times: tuple[dt.datetime, ...]
    questions: tuple[Question, ...]
    chat: bool
    system: str | None


def rows(table: str) -> list[list[str]]:
    return [line.split("|") for line in table.strip().splitlines()]


def answers(cell: str) -> tuple[str, ...]:
    return tuple(cell.split("/"))


COUNTRIES = {name: rest for name, *rest in rows(BANK["countries"])}


# ------------------------------------------------------------------ one function per task
def capitals(rng: random.Random, language: str) -> Made:
    if language == "en":
        name = rng.choice([name for name, row in COUNTRIES.items() if row[0]])
        return {"x": name}, answers(COUNTRIES[name][0])
    key, name, capital = rng.choice(rows(BANK["local"][language]))
    return {"x": name}, answers(capital) + answers(COUNTRIES[key][0])


def continents(rng: random.Random, language: str) -> Made:
    names = BANK["continents"][language]
    if language == "en":
        known = [[name, row[1]] for name, row in COUNTRIES.items() if row[1]]
        name, continent = rng.choice(known + rows(BANK["places"]))
        return {"x": name}, answers(names.get(continent, continent))
    key, name, _ = rng.choice(rows(BANK["local"][language]))
    return {"x": name}, (*answers(names[COUNTRIES[key][1]]), COUNTRIES[key][1])


def currency(rng: random.Random, language: str) -> Made:
    if language == "en":
        name = rng.choice([name for name, row in COUNTRIES.items() if row[2]])
        return {"x": name}, answers(COUNTRIES[name][2])
    name, money = rng.choice(rows(BANK["currency"][language]))
    return {"x": name}, answers(money)


def antonyms(rng: random.Random, language: str) -> Made:
    word, opposite = rng.choice(rows(BANK["antonyms"][language]))
    return {"x": word}, answers(opposite)


def comparing(rng: random.Random, language: str) -> Made:
    kind = rng.choice(["tens", "hundreds", "close", "decimals"] if language == "en" else ["tens"])
    if kind == "decimals":
        whole = rng.randint(1, 30)
        a, b = f"{whole}.{rng.randint(1, 9)}", f"{whole}.{rng.randint(10, 99)}"
        a, b = rng.sample([a, b], 2)
    else:
        low, high = {"tens": (11, 99), "hundreds": (100, 9999), "close": (1000, 9999)}[kind]
        a = str(rng.randint(low, high))
        near = kind == "close"
        b = str(int(a) + rng.choice([-21, -9, 9, 18, 90]) if near else rng.randint(low, high))
    if float(a) == float(b):
        return comparing(rng, language)
    way = rng.choices(["high", "low"], [3, 2])[0]
    pick = max if way == "high" else min
    return {"a": a, "b": b, "variant": way}, (pick(a, b, key=float),)


def word(rng: random.Random, language: str) -> str:
    return rng.choice(BANK["words"][language].split())


def first_letter(rng: random.Random, language: str) -> Made:
    x = word(rng, language)
    return {"x": x}, (x[0].lower(),)


def last_word(rng: random.Random, language: str) -> Made:
    items = rng.sample(BANK["words"][language].split(), rng.randint(3, 9))
    return {"x": ", ".join(items)}, (items[-1],)


def sums(rng: random.Random, language: str) -> Made:
    a, b = rng.randint(2, 9), rng.randint(2, 9)
    slots = {"a": a, "b": b, "aw": NUMBER_WORDS[a].capitalize(), "bw": NUMBER_WORDS[b]}
    return slots, (str(a + b),)


def products(rng: random.Random, language: str) -> Made:
    a, b = rng.randint(11, 99), rng.randint(11, 99)
    return {"a": a, "b": b}, (str(a * b),)


def reversing(rng: random.Random, language: str) -> Made:
    x = word(rng, language)
    return {"x": x}, (x[::-1].lower(),)


def sentiment(rng: random.Random, language: str) -> Made:
    bank = BANK["reviews"]
    tone = rng.choice(["positive", "negative"])
    if language == "en":
        goods = rng.random() < 0.6
        x = rng.choice(bank["goods" if goods else "services"].split("|"))
        said = bank[tone].split("|") + (bank[f"goods_{tone}"].split("|") if goods else [])
        review = f"{x[0].upper()}{x[1:]} {rng.choice(said)}{rng.choice('..!')}"
    else:
        review = rng.choice(bank[f"{language}_{tone}"].split("|"))
    labels, phrase = rng.choice(BANK["phrasings"]["sentiment"][language]).split(" :: ")
    label = labels.split("/")[tone == "negative"]
    # In another language the English tag is as good: an application maps it.
    return {"phrase": phrase, "x": review}, (label,) if language == "en" else (label, tone)


def gym(name: str, rng: random.Random, **config: int) -> dict:
    """One item of a reasoning-gym data set, whose generator also gives the exact answer."""
    return reasoning_gym.create_dataset(name, size=1, seed=rng.randrange(2**31), **config)[0]


def gcd(rng: random.Random, language: str) -> Made:
    top = rng.choice([30, 100, 1000])
    item = gym("gcd", rng, min_value=4, max_value=top)
    a, b = item["metadata"]["numbers"]
    return {"a": a, "b": b}, (item["answer"],)


def chain_sum(rng: random.Random, language: str) -> Made:
    digits = rng.choice([1, 1, 2, 2, 3])
    item = gym("chain_sum", rng, min_terms=2, max_terms=4, min_digits=digits, max_digits=digits)
    return {"x": item["metadata"]["expression"]}, (item["answer"],)


def letter_counting(rng: random.Random, language: str) -> Made:
    item = gym("letter_counting", rng, min_words=3, max_words=9)
    slots = {"a": item["metadata"]["target_letter"], "x": " ".join(item["metadata"]["span"])}
    return slots, (item["answer"],)


def count_bits(rng: random.Random, language: str) -> Made:
    item = gym("count_bits", rng, min_n=1, max_n=rng.choice([31, 255, 65535]))
    return {"a": item["metadata"]["number"]}, (item["answer"],)


TASKS = {
    make.__name__: make
    for make in (
        capitals, continents, currency, antonyms, comparing, first_letter, last_word, sums,
        products, reversing, sentiment, gcd, chain_sum, letter_counting, count_bits,
    )
}  # fmt: skip


# ------------------------------------------------------------------ wording
def question(rng: random.Random, task: str, language: str, follow: bool = False) -> Question:
    """A question of the task; `follow` words it as a later turn of a chat ("And Peru?")."""
    phrasings = BANK["phrasings"][task]
    slots, accepted = TASKS[task](rng, language)
    if "phrase" in slots:
        core = slots["phrase"].format(**slots)
    elif follow and language == "en" and "follow" in phrasings:
        return Question(task, language, rng.choice(phrasings["follow"]).format(**slots), accepted)
    else:
        variant = f"{language}_{slots['variant']}" if "variant" in slots else language
        core = rng.choice(phrasings[variant]).format(**slots)
    return Question(task, language, wrap(rng, core, language), accepted)


def wrap(rng: random.Random, core: str, language: str) -> str:
    """The core question in one of STYLES: from bare to an e-mail or a page of small talk."""
    bank = BANK["wrap"][language]
    style = rng.choices(list(STYLES), list(STYLES.values()))[0]
    if style == "bare":
        return core
    if style == "sloppy":
        core = core.rstrip("?.:")
        return core if language == "de" else core.lower().replace('"', "")
    parts = [core]
    if style == "polite":
        heads, tails = rng.choice([(1, 0), (0, 1), (1, 1)])
        parts = rng.sample(bank["open"], heads) + parts + rng.sample(bank["close"], tails)
    elif style == "preamble":
        parts = [*rng.sample(bank["open"], rng.randint(0, 1)), rng.choice(bank["preamble"]), core]
        parts += rng.sample(bank["close"], rng.randint(0, 1))
    elif style == "mail":
        body = [*rng.sample(bank["filler"], rng.randint(0, 2)), rng.choice(bank["ask"]), core]
        lines = [rng.choice(bank["hail"]), " ".join(filter(None, body)), rng.choice(bank["sign"])]
        subject = f"Subject: {rng.choice(bank['subject'])}\n\n" if rng.random() < 0.4 else ""
        return subject + "\n\n".join(lines)
    else:
        said = rng.sample(bank["filler"], min(len(bank["filler"]), rng.randint(3, 8)))
        place = rng.randint(0, len(said))
        parts = [*said[:place], *filter(None, [rng.choice(bank["ask"])]), core, *said[place:]]
    return "".join(parts) if language == "zh" else " ".join(parts)


# ------------------------------------------------------------------ sessions
def sessions(seed: int, calls: int) -> Iterator[Session]:
    """About `calls` questions in sessions of 1 to 18, in the order of time (UTC)."""
    rng = random.Random(seed)
    users = [f"user-{n:03d}" for n in range(90)]
    activity = [1 / (n + 4) for n in range(len(users))]  # a few users ask often and most seldom
    seen: set[str] = set()
    starts = sorted(_moment(rng) for _ in range(calls // 6))
    for number, start in enumerate(starts):
        user = rng.choices(users, activity)[0]
        habit = random.Random(f"{seed}/{user}")  # a user keeps to three applications and a language
        home = habit.choices(list(LANGUAGES), list(LANGUAGES.values()))[0]
        source = rng.choice(habit.sample(sorted(APPLICATIONS), 3))
        length = min(18, 1 + int(rng.expovariate(1 / 6.4)))
        chat = length > 1 and rng.random() < 0.22
        length = min(length, 4) if chat else length
        asked = list(_questions(rng, source, home, length, chat, seen))
        briefed = rng.random() < (0.6 if chat else 0.06)
        system = rng.choice(BANK["system"]["texts"]) if briefed else None
        gaps = [0.0] + [rng.lognormvariate(math.log(45), 1.0) for _ in asked[1:]]
        times = tuple(start + dt.timedelta(seconds=sum(gaps[: n + 1])) for n in range(len(asked)))
        yield Session(f"session-{number:04d}", user, source, times, tuple(asked), chat, system)


def _questions(
    rng: random.Random, source: str, home: str, length: int, chat: bool, seen: set[str]
) -> Iterator[Question]:
    tasks = APPLICATIONS[source]
    main = rng.choices(list(tasks), list(tasks.values()))[0]
    focus = 1.0 if chat else rng.choice([0.9, 0.9, 0.5, 0.0])  # some sessions are mostly one task
    for turn in range(length):
        task = main if rng.random() < focus else rng.choices(list(tasks), list(tasks.values()))[0]
        language = home if _speaks(task, home) and rng.random() < 0.85 else "en"
        for _ in range(50):
            asked = question(rng, task, language, follow=chat and turn > 0)
            key = "".join(c for c in asked.text.casefold() if c not in string.punctuation + " \n")
            if key not in seen or (chat and turn > 0):  # a later turn is told apart by its history
                seen.add(key)
                yield asked
                break


def _speaks(task: str, language: str) -> bool:
    return any(key.split("_")[0] == language for key in BANK["phrasings"][task])


def _moment(rng: random.Random) -> dt.datetime:
    weekday = rng.choices(range(7), WEEKDAYS)[0]
    day = weekday + 7 * rng.randrange(DAYS // 7)
    hour = rng.choices(range(24), HOURS)[0]
    return START + dt.timedelta(days=day, hours=hour, seconds=rng.randrange(3600))
