"""Whatever a service is handed, it gets a decision; a damaged artifact is refused.

The same, a hundred times longer, is in tests/benchmarks/bench_service.py.
"""

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from router import ArtifactError, DecisionLog, Exploration, Router
from router.artifact import Artifact
from router.rules_file import parse_rules
from tests.builders import TIERS, make_artifact
from tests.churn import churn
from tests.fuzz import Fuzz

RULES = {
    "pin": {"tag": {"a": "large"}, "tenant": {"x": "small"}},
    "deny": {"tag": {"b": ["large"]}},
    "session": {"floor": True},
    "prompt_cache": {"usd_per_mtok": {"small": 0.01, "large": 1.0}},
}


def everything_on(artifact: Artifact, sink: Any) -> Router:
    """A router with rules, log, exploration and shadow."""
    ruled = replace(artifact, rules=parse_rules(RULES, TIERS))
    log = DecisionLog(sink, messages=True, capacity=10**6)
    return Router(
        ruled, b"key", log=log, explore=Exploration(0.1, down=True), shadow=Router(artifact)
    )


def test_no_request_raises(artifact: Artifact) -> None:
    lines: list[str] = []
    router, fuzz = everything_on(artifact, lambda line: lines.append(json.dumps(line))), Fuzz(1)
    names = {tier.name for tier in TIERS}
    for _ in range(1000):
        prompt, facts = fuzz.request()
        decision = router.route(prompt, **facts)
        assert decision.tier in names
        assert 0 < decision.propensity <= 1
    router.close()
    assert router.log is not None
    assert router.log.counts.written == len(lines) == 1000


@pytest.mark.parametrize(
    "prompt",
    [
        [{"role": "user", "content": "go on " * (i % 7)} for i in range(10_000)],
        [{"role": "user", "content": [{"type": "text", "text": "x"}] * 5000}] * 5,
        [{"role": "user", "content": None}, {"role": "user", "content": b"bytes"}],
        [{"role": "martian", "content": "hello"}],
        [{"role": "user", "content": [{"type": "hologram", "hologram": {}}, 3, None]}],
    ],
    ids=["10,000 turns", "many parts", "no text", "role", "parts"],
)
def test_odd_requests_are_decided_by_the_policy(prompt: Any, artifact: Artifact) -> None:
    router = everything_on(artifact, lambda _: None)
    tools: Any = {"type": "function", "function": {"parameters": {}}}
    for _ in range(200):
        tools = {"type": "function", "function": {"parameters": tools}}
    for offered in (None, [tools]):
        decision = router.route(prompt, offered, session="s")
        assert not decision.reason.startswith("fallback:"), decision.reason
    assert decision.latency_us < 1e6


def test_time_is_linear_in_the_prompt(artifact: Artifact) -> None:
    """A text that makes a careless regular expression quadratic takes as long as any other."""
    router = Router(artifact)
    for hostile in ("\n" + " " * 9 + "(", " (A", "\n(", "a" * 50 + "!", "__", "```"):
        decision = router.route(hostile * (300_000 // len(hostile)))
        assert decision.latency_us < 250_000


def test_no_damaged_artifact_loads(tmp_path: Path) -> None:
    folder, fuzz = make_artifact(tmp_path / "artifact"), Fuzz(2)
    known = {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}
    for _ in range(150):
        restore = fuzz.damage(folder)
        same = all(file.is_file() and file.read_bytes() == raw for file, raw in known.items())
        if not same:
            with pytest.raises(ArtifactError):
                Router.load(folder)
        restore()
    assert Router.load(folder).route("x").reason == "policy"


@pytest.mark.slow
def test_no_request_raises_that_fuzzing_finds(tmp_path: Path) -> None:
    """Guided by which lines of `router` a request reaches."""
    pytest.importorskip("atheris", reason="atheris has no wheel for this Python or machine")
    folder = make_artifact(tmp_path / "artifact")
    call = [sys.executable, "-m", "tests.guided_fuzz", str(folder), "-runs=5000", "-seed=1"]
    done = subprocess.run(
        [*call, "-max_len=1000", f"-artifact_prefix={tmp_path}/"],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[1],
        timeout=900,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert "Done 5000 runs" in done.stderr
    [covered, *_] = reversed(re.findall(r"cov: (\d+)", done.stderr))
    assert int(covered) > 200  # it went through the router, and not past it


@pytest.mark.slow
def test_many_threads_many_artifacts_and_a_log_that_stalls(tmp_path: Path) -> None:
    done = churn(tmp_path, seconds=12, every=0.5)
    assert (done.raised, done.torn) == (0, 0)
    assert set(done.reasons) == {"policy"}
    assert done.swapped > 5
    counts = done.counts
    assert counts.offered == done.decisions
    assert counts.offered == counts.written + counts.dropped + counts.failed + counts.waiting
    assert counts.dropped > 0
