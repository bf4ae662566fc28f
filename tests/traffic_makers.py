"""Small made-up logs with a known signal, and a way to call the command line in this process."""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pandas as pd
import pytest

from router.tier import Tier
from training import cli
from training.console import set_quiet
from training.learn.members import Recipe, Ridge
from training.log.requests import Requests, gather
from training.log.traffic import read_traffic

QUICK = Recipe(ridges=(Ridge(0.3, 1 / 40),))  # one fit in place of four
TIERS = (
    Tier("small", "vendor/small-1", 0.1, 0.4),
    Tier("large", "vendor/large-1", 5.0, 15.0),
)
TIERS_TOML = """
[[tier]]
name = "small"
model = "vendor/small-1"
input_usd_per_mtok = 0.1
output_usd_per_mtok = 0.4

[[tier]]
name = "large"
model = "vendor/large-1"
input_usd_per_mtok = 5.0
output_usd_per_mtok = 15.0
"""

EASY = ("capital", "colour", "season", "animal", "currency", "river", "fruit")
HARD = ("integral", "theorem", "derivative", "eigenvalue", "proof", "topology", "lemma")
PLACES = "france peru kenya japan norway chile egypt nepal cuba ghana oman fiji".split()
WORDS = (
    "what tell me about which one would you say please explain briefly how can i find know many "
    "long short north east bridge garden market letter number people music winter summer morning"
).split()


def prompt_texts(hard: np.ndarray, rng: np.random.Generator) -> list[str]:
    """A text per row of bool[n]; easy and hard ones differ in one word of eight or so."""
    texts = []
    for is_hard in hard:
        words = rng.choice(WORDS, 6).tolist()
        words.insert(int(rng.integers(6)), str(rng.choice(HARD if is_hard else EASY)))
        texts.append(" ".join([*words, str(rng.choice(PLACES)), str(rng.integers(10_000))]))
    return texts


def make_rows(
    n: int,
    seed: int = 0,
    *,
    tiers: Sequence[Tier] = TIERS,
    easy: Sequence[float] = (0.95, 0.97),
    hard: Sequence[float] = (0.15, 0.95),
    session: int = 3,
    timed: bool = True,
) -> list[dict[str, Any]]:
    """Rows of a paired log: every tier answers every request, and whether it suffices is drawn.

    Args:
        n: requests.
        easy, hard: P(tier suffices) per tier on easy and on hard prompts.
        session: requests in a session.
    """
    rng = np.random.default_rng(seed)
    is_hard = rng.random(n) < 0.5
    rows = []
    start = pd.Timestamp("2026-03-01T00:00:00Z")
    for i, text in enumerate(prompt_texts(is_hard, rng)):
        for k, tier in enumerate(tiers):
            chance = (hard if is_hard[i] else easy)[k]
            tokens = int(rng.integers(150, 250) if is_hard[i] else rng.integers(10, 20))
            row = {
                "request_id": f"r{i}",
                "session_id": f"s{i // session}",
                "messages": json.dumps([{"role": "user", "content": text}]),
                "tier": tier.name,
                "model": tier.model,
                "score": float(rng.random() < chance),
                "input_tokens": len(text.split()) + 8,
                "output_tokens": tokens,
                "source": "app",
            }
            if timed:
                row["at"] = start + pd.Timedelta(minutes=i)
            rows.append(row)
    return rows


def one_sided(
    rows: Sequence[dict[str, Any]], explore: float, seed: int = 0, *, logged: bool = True
) -> list[dict[str, Any]]:
    """The rows of a paired two-tier log that are left if one tier answers each request.

    With probability `explore` the cheap tier, else the top tier; `propensity` says so if `logged`.
    """
    rng = np.random.default_rng(seed)
    left = []
    for cheap, top in zip(rows[::2], rows[1::2], strict=True):
        explored = rng.random() < explore
        chance = explore if explored else 1.0 - explore
        left.append((cheap if explored else top) | ({"propensity": chance} if logged else {}))
    return left


def write_log(path: Path, rows: Sequence[dict[str, Any]] | pd.DataFrame) -> Path:
    """Write rows as Parquet."""
    pd.DataFrame(rows).to_parquet(path, index=False)
    return path


def write_tiers(folder: Path, text: str = TIERS_TOML) -> Path:
    """Write a tiers file."""
    path = folder / "tiers.toml"
    path.write_text(text, encoding="utf-8")
    return path


def write_inputs(folder: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write ``tiers.toml`` and the rows as ``log.parquet``, what most commands read."""
    write_tiers(folder)
    write_log(folder / "log.parquet", rows)


def requests_of(
    rows: Sequence[dict[str, Any]], folder: Path, tiers: Sequence[Tier] = TIERS
) -> Requests:
    """Rows as the training job sees them: written, read, checked, gathered."""
    return gather(read_traffic(write_log(folder / "log.parquet", rows)).frame, tiers)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a call of the command line did."""

    code: int
    out: str
    err: str

    def refused(self, *words: str) -> None:
        """Assert exit 2 with a message that holds the words, and no traceback."""
        assert self.code == 2, self
        assert "Traceback" not in self.err, self.err
        for word in words:
            assert word in self.err, f"{word!r} is not in: {self.err}"


def call(capsys: pytest.CaptureFixture[str], *arguments: object) -> Outcome:
    """Call `suffice ARGUMENTS` in this process, exit code included."""
    capsys.readouterr()
    set_quiet(False)
    code = 0
    with mock.patch.object(sys, "argv", ["suffice", *map(str, arguments)]):
        try:
            cli.main()
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    told = capsys.readouterr()
    return Outcome(code, told.out, told.err)
