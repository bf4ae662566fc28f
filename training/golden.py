"""Golden prompts, written for the project: no logged text leaves with an artifact."""

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from router.predictor import Predictor
from router.prompt import Prompt

TOLERANCE = 1e-6

PROMPTS: tuple[str | list[dict[str, Any]], ...] = (
    "What is the capital of France?",
    "hi",
    "",
    "   \n\t ",
    "Translate to German: The weather is lovely today.",
    "Write a Python function that reverses a linked list, and explain its complexity.",
    "Solve for x: 3x^2 - 12x + 9 = 0. Show every step.",
    "Which of these is a mammal?\nA. Shark\nB. Dolphin\nC. Trout\nD. Octopus\nAnswer:",
    "Is 9.11 larger than 9.9? Answer yes or no.",
    "Summarise the following e-mail in one sentence:\n\nDear team, the launch moves to Thursday "
    "because the load test found two slow queries. Please rebase and run the suite tonight. Ana",
    "¿Cuál es la capital de Perú?",
    "Wie viele Bundesländer hat Deutschland, und wie heißen sie?",
    "请把下面的句子翻译成英文：我们明天上午十点开会。",
    "اكتب رسالة شكر قصيرة لزميل ساعدني في مشروع.",
    "Классифицируй отзыв как положительный или отрицательный: «Доставка опоздала на неделю».",
    "🎉🎉 Write a birthday wish with three emoji for my sister 🎂",
    "```sql\nSELECT a.id, COUNT(*) FROM a JOIN b ON a.id = b.a_id GROUP BY 1;\n```\nWhy so slow?",
    "A train leaves at 14:05 and travels 210 km at 84 km/h. When does it arrive?",
    "Prove that the square root of two is irrational.",
    'Give me the JSON {"name": ..., "age": ...} for: Maria, who turned 34 last week.',
    "List the prime numbers between 100 and 150, " * 60,
    [
        {
            "role": "system",
            "content": "You label support tickets with one of: billing, bug, other.",
        },
        {"role": "user", "content": "I was charged twice in October."},
    ],
    [
        {"role": "user", "content": "Plan a three-day trip to Lisbon."},
        {
            "role": "assistant",
            "content": "Day 1: Alfama and the castle. Day 2: Belém. Day 3: Sintra.",
        },
        {"role": "user", "content": "yes, go on"},
    ],
    [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "What is in this picture?"},
                {"type": "image_url", "image_url": {"url": "https://example.org/cat.png"}},
            ],
        }
    ],
)


def golden_prompts() -> list[Prompt]:
    """The golden prompts as the features see them."""
    return [Prompt.of(messages) for messages in PROMPTS]


def golden_lines(
    p: NDArray[np.float64], names: Sequence[str], second: NDArray[np.float64] | None = None
) -> str:
    """JSON lines of the prompts and what training computed for them.

    Args:
        p: float64[prompts, k], probabilities; of two stages by the first.
        names: of the k tiers.
        second: float64[prompts, k], by the second, of every prompt: asked or not.
    """
    stated = {"p_suffices": p} | ({} if second is None else {"second": second})
    lines = [
        json.dumps(
            {"messages": messages}
            | {
                key: dict(zip(names, rows[i].tolist(), strict=True)) for key, rows in stated.items()
            },
            ensure_ascii=False,
        )
        for i, messages in enumerate(PROMPTS)
    ]
    return "\n".join(lines) + "\n"


def replay(predictor: Predictor, golden: Sequence[Any]) -> float:
    """Largest difference of a probability between the golden lines and the predictor's answers.

    Of two stages each is held to its own lines.
    """
    names = [tier.name for tier in predictor.tiers]
    prompts = [Prompt.of(line["messages"]) for line in golden]
    asked = {"p_suffices": replace(predictor, second=None)}
    if predictor.second is not None:
        asked["second"] = predictor.second.predictor
    return max(
        float(np.abs(_stated(golden, key, names) - one.estimate(prompts).p).max())
        for key, one in asked.items()
    )


def _stated(golden: Sequence[Any], key: str, names: Sequence[str]) -> NDArray[np.float64]:
    return np.array([[line[key][name] for name in names] for line in golden])
