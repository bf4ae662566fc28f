"""What predicted answer lengths are worth: their error, and the money that they save.

MMLU-Pro's outcomes hold the lengths of the answers of two tiers here. P(suffices) is by logistic
regression, the same in every line, so that only expected costs differ: a constant length per tier,
the token models as fitted by the job, and the lengths as logged, which nobody can know beforehand.
Run with: pytest tests/benchmarks/bench_costs.py -m benchmark -s
"""

from pathlib import Path

import numpy as np
import pytest

from router.vectorizer import SURFACE
from tests.benchmarks import outcomes
from training.bench.bench import _mean
from training.bench.peers import PEERS
from training.config import Config, read_tiers
from training.features import featurize
from training.ground import lay_out
from training.label.rule import LabelRule, load_requests
from training.learn.costs import account, expected, fit_tokens, length_notes, priced
from training.learn.embedders import resolve_embedder
from training.measure.curve import policy_walk
from training.measure.intervals import bootstrap
from training.measure.metrics import curve_metrics

pytestmark = pytest.mark.benchmark
SEEDS = (0, 1, 2)


def test_lengths(shared_data: Path, tmp_path: Path) -> None:
    names = ("flash", "pro")
    outcomes.mmlu_pro(shared_data / "mmlu_pro", names).to_parquet(tmp_path / "t.parquet")
    tiers = read_tiers(outcomes.write_tiers(names, tmp_path / "tiers.toml"))
    requests, _ = load_requests(tmp_path / "t.parquet", tiers, LabelRule())
    embedder = resolve_embedder("static")
    linear = next(peer for peer in PEERS if peer.name == "linear")
    found: dict[str, list] = {}
    tests = []
    for seed in SEEDS:
        ground = lay_out(requests, (), tiers, Config(), (0.6, 0.1, 0.3), seed)
        x = featurize(ground, (embedder,), seed).x
        fit, test = ground.splits.fit, ground.splits.test
        rows, asked, part = ground.fit_rows, requests.take(test), x.take(test)
        models, notes = fit_tokens(x.take(fit), rows, names)
        print(f"\nseed {seed}:", *notes, *length_notes(part, asked, models, names), sep="\n  ")
        embedding = x.dense[:, SURFACE : SURFACE + embedder.dim]
        p = linear.fit(embedding[fit], rows.score, {"c": 3e-4}, seed)(embedding[test])
        usd = expected(part, models, tiers)
        tokens = np.stack([asked.input_tokens, asked.output_tokens], axis=2)
        flat = tokens.copy()
        flat[:, :, 1] = np.nanmean(rows.output_tokens, axis=0)
        paid = account(part, asked, models, tiers)
        costs = {"constant": priced(flat, tiers), "model": usd, "logged": priced(tokens, tiers)}
        for name, dear in costs.items():
            walk = policy_walk(p, dear)
            found.setdefault(name, []).append(curve_metrics(walk, asked.score, paid))
        tests.append(test)
    every, where = np.unique(np.concatenate(tests), return_inverse=True)
    places = np.split(where, np.cumsum([len(test) for test in tests])[:-1])
    estimators = {name: _mean(parts, places) for name, parts in found.items()}
    rounds = bootstrap(estimators, len(every))
    for metric in ("saving_100", "saving_99", "saving_95", "aiq"):
        shown = ", ".join(f"{name} {float(rounds.value[name][metric]):.4f}" for name in found)
        gap = rounds.difference(metric, "model", "constant")
        limits = f"{gap.value:+.4f} [{gap.low:+.4f}, {gap.high:+.4f}]"
        print(f"{metric}: {shown}; model minus constant {limits}")
    assert float(rounds.value["model"]["aiq"]) > 0
