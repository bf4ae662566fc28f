"""How long the whole job takes as a user runs it, and whether its export repeats it.

Run with: pytest tests/benchmarks/bench_job.py -m benchmark -s
"""

from pathlib import Path

import numpy as np
import pytest

from router.policy import Policy
from router.vectorizer import Vectorizer
from tests.benchmarks import outcomes
from tests.benchmarks.command import suffice
from training.config import read_tiers
from training.decide.operating import dial_grid
from training.label.rule import LabelRule, load_requests
from training.learn.embedders import resolve_embedder
from training.learn.heads import probabilities
from training.learn.splits import split
from training.learn.vectorize import fit_ngrams, vectorize
from training.learned import learn
from training.log.ingest import ingest

pytestmark = pytest.mark.benchmark


def seconds(*arguments: str | Path, folder: Path) -> float:
    """How long the command takes, which must succeed."""
    done, took = suffice(*arguments, folder=folder)
    assert done.returncode == 0, done.stderr
    return took


def test_mmlu_from_csv_to_artifact(shared_data: Path, tmp_path: Path) -> None:
    tiers = outcomes.write_tiers(("small", "large"), tmp_path / "tiers.toml")
    table, out = tmp_path / "t.parquet", tmp_path / "artifact"
    reading = seconds("ingest", shared_data / "routellm" / "mmlu", "--out", table, folder=tmp_path)
    job = ("train", "--traffic", table, "--tiers", tiers, "--out", out)
    training = seconds(*job, folder=tmp_path)
    print(f"\n14,042 MMLU rows: ingest {reading:.1f} s, train {training:.1f} s")
    assert (out / "manifest.json").is_file()


def test_demo(tmp_path: Path) -> None:
    print(f"\nsuffice demo: {seconds('demo', folder=tmp_path):.1f} s")
    assert (tmp_path / "suffice-demo" / "plots" / "cost_quality.png").is_file()


def test_the_export_repeats_lightgbm_on_unseen_rows(shared_data: Path, tmp_path: Path) -> None:
    """Probabilities and decisions of the numpy predictor against LightGBM's, on MMLU rows."""
    tiers = read_tiers(outcomes.write_tiers(("small", "large"), tmp_path / "tiers.toml"))
    ingest([shared_data / "routellm" / "mmlu"], tmp_path / "t.parquet", "routellm")
    requests, _ = load_requests(tmp_path / "t.parquet", tiers, LabelRule())
    splits = split(requests, (0.75, 0.15, 0.10), 0)
    fit, test = requests.take(splits.fit), requests.take(splits.test)
    embedder = resolve_embedder("static")
    vectorizer = Vectorizer(embedder, fit_ngrams(embedder, list(fit.prompts), 0))
    x = vectorize(vectorizer, list(fit.prompts))
    learned = learn(x, fit, splits.group[splits.fit], tiers, vectorizer, 0)
    ours = learned.predictor.estimate(list(test.prompts))
    theirs = probabilities(learned.heads, vectorize(vectorizer, list(test.prompts)))
    dials = dial_grid(learned.heads.p, learned.usd)
    flipped = sum(
        int((Policy(mu).choose(ours.p, ours.usd) != Policy(mu).choose(theirs, ours.usd)).sum())
        for mu in dials
    )
    difference = float(np.abs(ours.p - theirs).max())
    print(
        f"\n{len(test)} test rows: max difference {difference:.1e}; "
        f"{flipped} decisions flipped at {len(dials)} dials"
    )
    assert difference <= 1e-6
    assert flipped == 0
