"""Public outcome data as traffic tables, for the benchmarks.

MMLU-Pro's answers of most models were not kept: their length is that of the text "None", for every
question. Such a length says nothing of what an answer cost, so it counts as unknown.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from router.prompt import Prompt
from training.log.ingest import ingest
from training.log.messages import canonical_messages

PRICES = {
    "small": ("mistralai/Mixtral-8x7B-Instruct-v0.1", 0.60, 0.60),
    "large": ("gpt-4-1106-preview", 10.0, 30.0),
    "llama-8b": ("llama-3.1-8b-instruct", 0.05, 0.08),
    "flash": ("gemini-1.5-flash-002", 0.075, 0.30),
    "llama-70b": ("llama-3.1-70b-instruct", 0.30, 0.40),
    "pro": ("gemini-1.5-pro-002", 1.25, 5.00),
}


def write_tiers(names: tuple[str, ...], path: Path) -> Path:
    """A tiers file of the models above, in the order given."""
    tables = [
        f'[[tier]]\nname = "{name}"\nmodel = "{PRICES[name][0]}"\n'
        f"input_usd_per_mtok = {PRICES[name][1]}\noutput_usd_per_mtok = {PRICES[name][2]}\n"
        for name in names
    ]
    path.write_text("\n".join(tables), encoding="utf-8")
    return path


def routellm(folder: Path, out: Path) -> pd.DataFrame:
    """RouteLLM's outcomes, through the adapter a user would use."""
    ingest([folder], out, "routellm")
    return pd.read_parquet(out)


def mixed(folder: Path, out: Path) -> pd.DataFrame:
    """RouteLLM's MMLU and GSM8K in equal parts: traffic of two tasks, as one log has them."""
    parts = [routellm(folder / name, out.with_stem(name)) for name in ("mmlu", "gsm8k")]
    count = min(part["request_id"].nunique() for part in parts)
    return pd.concat([split_requests(part, count, 0)[0] for part in parts], ignore_index=True)


def mmlu_pro(folder: Path, names: tuple[str, ...]) -> pd.DataFrame:
    """MMLU-Pro outcomes of the tiers named, of questions that all of them answered.

    `source` is the question's category, as it is the subject where `routellm` reads MMLU: training
    may use it, a router is never told.
    """
    questions = pd.read_parquet(folder / "questions.parquet")[["question_id", "category", "prompt"]]
    outcomes = pd.read_parquet(folder / "outcomes.parquet")
    tier_of = {PRICES[name][0]: name for name in names}
    rows = outcomes[outcomes["model"].isin(tier_of)].merge(questions, on="question_id")
    answered = rows.groupby("question_id")["model"].transform("nunique")
    rows = rows[answered == len(names)]
    kept = rows.groupby("model")["response_chars"].transform("max") > len("None")
    return pd.DataFrame(
        {
            "request_id": rows["question_id"].astype(str),
            "source": rows["category"],
            "messages": rows["prompt"],
            "tier": rows["model"].map(tier_of),
            "model": rows["model"],
            "score": rows["correct"].astype(float),
            "input_tokens": rows["prompt"].str.len() // 4,
            "output_tokens": (rows["response_chars"] // 4).where(kept).astype("Int64"),
        }
    )


def prompt_of(messages: str) -> Prompt:
    """A request of these tables, whose messages are JSON or the prompt itself."""
    return Prompt.of(json.loads(canonical_messages(messages)))


def split_requests(
    frame: pd.DataFrame, train: float | int, seed: int
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Rows of a random share (or number) of the requests, and the other rows."""
    ids = np.array(sorted(frame["request_id"].unique()), dtype=object)
    order: NDArray[np.object_] = np.random.default_rng(seed).permutation(ids)
    count = train if isinstance(train, int) else round(train * len(ids))
    inside = frame["request_id"].isin(set(order[:count]))
    return frame[inside], frame[~inside]


def crossed(
    frame: pd.DataFrame, count: int, seed: int
) -> Iterator[tuple[pd.DataFrame, pd.DataFrame]]:
    """`count` divisions in which every request is once among the other rows."""
    ids = np.array(sorted(frame["request_id"].unique()), dtype=object)
    order: NDArray[np.object_] = np.random.default_rng(seed).permutation(ids)
    for part in np.array_split(order, count):
        outside = frame["request_id"].isin(set(part))
        yield frame[~outside], frame[outside]
