"""A service under stress: threads and reloads, fuzzed requests, damaged artifacts, the gateway."""

import asyncio
import json
import os
import random
import statistics
import time
from collections import Counter
from dataclasses import replace
from operator import sub, truediv
from pathlib import Path

import httpx
import pytest

from router import ArtifactError, DecisionLog, Exploration, Policy, Router
from router.artifact import load_artifact
from router.rules_file import parse_rules
from tests.builders import TIERS, make_artifact, reseal
from tests.churn import churn
from tests.fuzz import Fuzz
from tests.gateway import KEY, Gateway, gateway
from tests.stub_upstream import stub
from tests.test_fuzz import RULES

pytestmark = pytest.mark.benchmark


def test_32_threads_reloads_and_a_log_that_stalls(tmp_path: Path) -> None:
    done = churn(tmp_path, seconds=60, every=1.0)
    print(f"\n32 threads, 60 s: {done.decisions} decisions, reasons {dict(done.reasons)}")
    print(f"  exceptions {done.raised}, torn {done.torn}, slowest {done.slowest / 1e3:.0f} ms")
    print(f"  artifacts swapped {done.swapped}, refused {done.refused} (every fifth is damaged)")
    counts = done.counts
    left = counts.written + counts.dropped + counts.failed + counts.waiting
    print(f"  log {counts}: {counts.offered} offered, {left} accounted for")
    assert done.raised == done.torn == 0
    assert counts.offered == done.decisions == left
    assert set(done.reasons) == {"policy"}


def test_100_000_fuzzed_requests(tmp_path: Path) -> None:
    artifact = load_artifact(make_artifact(tmp_path / "artifact"))
    ruled = replace(artifact, rules=parse_rules(RULES, TIERS))
    log = DecisionLog(lambda _: None, messages=True)
    router = Router(ruled, b"key", log=log, explore=Exploration(0.1, down=True))
    fuzz, reasons, slowest, raised = Fuzz(3), Counter[str](), 0.0, 0
    started = time.perf_counter()
    for _ in range(100_000):
        prompt, facts = fuzz.request()
        try:
            decision = router.route(prompt, **facts)
        except BaseException:
            raised += 1
            continue
        reasons[decision.reason] += 1
        slowest = max(slowest, decision.latency_us)
    router.close()
    took = time.perf_counter() - started
    print(f"\n100,000 fuzzed requests in {took:.0f} s: exceptions {raised}, {dict(reasons)}")
    print(f"  slowest decision {slowest / 1e3:.1f} ms; log {log.counts}")
    assert raised == 0


def test_20_000_damaged_artifacts(tmp_path: Path) -> None:
    folder, fuzz = make_artifact(tmp_path / "artifact"), Fuzz(4)
    known = {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}
    outcomes, others = Counter[str](), Counter[str]()
    sealed = random.Random(5)
    for number in range(20_000):
        restore = fuzz.damage(folder)
        whole = all(file.is_file() for file in known)
        same = whole and all(file.read_bytes() == raw for file, raw in known.items())
        hostile = number % 20 == 0 and whole and not same
        if hostile:  # its maker knows how to hash
            try:
                reseal(folder)
            except ValueError:  # the manifest is no JSON any more
                hostile = False
        try:
            router = Router.load(folder)
        except ArtifactError:
            outcomes["refused"] += not same
            others["resealed, refused"] += hostile
        except BaseException as error:
            outcomes[f"raised {type(error).__name__}"] += 1
        else:
            if hostile:
                decision = router.route(f"what is {sealed.random()}?")
                others[f"resealed, loaded, {decision.reason}"] += 1
            else:
                outcomes["unchanged" if same else "LOADED"] += 1
        restore()
        for file, raw in known.items():
            if hostile:
                file.write_bytes(raw)
    print(f"\n20,000 damaged artifacts: {dict(outcomes)}")
    print(f"  of these with hashes made right again: {dict(others)}")
    assert outcomes["LOADED"] == 0
    assert not [name for name in outcomes if name.startswith("raised")]


HEURISTIC = """
  - model_name: heuristic
    litellm_params:
      model: auto_router/complexity_router
      complexity_router_config:
        tiers: {SIMPLE: small, MEDIUM: small, COMPLEX: small, REASONING: small}
"""


def test_the_gateway_with_and_without(tmp_path: Path) -> None:
    if "SUFFICE_GATEWAY_PYTHON" not in os.environ:
        pytest.skip("SUFFICE_GATEWAY_PYTHON names no Python with suffice[litellm]")
    make_artifact(tmp_path / "artifacts" / "current", Policy(0.0, constant=0))
    with stub(reply="echo") as upstream, gateway(tmp_path, upstream.url, HEURISTIC) as running:
        asyncio.run(_measure(running))


async def _measure(running: Gateway) -> None:
    """The model itself, LiteLLM's own heuristic, and `auto`, in turn, so that load hits all."""
    headers = {"Authorization": f"Bearer {KEY}"}
    models = ["small", "heuristic", "auto", "cheapest-that-suffices"]
    times: dict[str, list[float]] = {model: [] for model in models}
    rates: dict[str, list[float]] = {model: [] for model in models}
    spent: dict[str, float] = dict.fromkeys(models, 0.0)
    async with httpx.AsyncClient(base_url=running.url, headers=headers, timeout=60) as client:
        for model in models * 30:  # warm up
            await _ask(client, model, 0)
        for number in range(400):
            for model in random.sample(models, len(models)):
                times[model].append(await _ask(client, model, number))
        for _ in range(10):
            for model in random.sample(models, len(models)):
                before, started = _cpu(running.pid), time.perf_counter()
                await asyncio.gather(*(_some(client, model, 10) for _ in range(8)))
                rates[model].append(80 / (time.perf_counter() - started))
                spent[model] += _cpu(running.pid) - before
    print("\nLiteLLM proxy: the model itself, LiteLLM's heuristic, our classifier, our hook")
    for model in models:
        p50 = statistics.median(times[model]) * 1e3
        added = statistics.median(map(sub, times[model], times["small"])) * 1e3
        ratio = statistics.median(map(truediv, rates[model], rates["small"]))
        cpu = spent[model] / 800 * 1e3
        print(f"  {model}: p50 {p50:.2f} ms, added {added:.2f}; throughput {ratio:.2f} ×", end="")
        print(f" ({statistics.median(rates[model]):.0f} a second); {cpu:.2f} ms of CPU a request")
    log = (running.folder / "decisions.jsonl").read_text().splitlines()
    decided = [json.loads(line)["latency_us"] / 1e3 for line in log]
    print(f"  the decision itself, inside the proxy: p50 {statistics.median(decided):.2f} ms")


def _cpu(pid: int) -> float:
    """Seconds of CPU that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def _ask(client: httpx.AsyncClient, model: str, number: int) -> float:
    text = f"what is the capital of the {number}th country, and why? " * 8
    body = {"model": model, "messages": [{"role": "user", "content": text}]}
    while True:
        started = time.perf_counter()
        try:
            reply = await client.post("/v1/chat/completions", json=body)
        except (
            httpx.TransportError
        ):  # a connection that the proxy closed, idle while we were held up
            continue
        assert reply.status_code == 200
        return time.perf_counter() - started


async def _some(client: httpx.AsyncClient, model: str, count: int) -> None:
    for number in range(count):
        await _ask(client, model, number)
