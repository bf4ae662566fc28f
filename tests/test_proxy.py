"""LiteLLM's proxy as router/README.md sets it up: a real proxy, a real client, a stub upstream.

The proxy's requirements cannot be met beside the tools of development, so it has a Python of its
own: SUFFICE_GATEWAY_PYTHON, which `.ci/run` makes. `tests/gateway.py` starts it.
"""

import json
import os
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import openai
import pytest

from router import Policy
from tests.builders import edit_manifest, make_artifact
from tests.gateway import KEY, Gateway, gateway
from tests.stub_upstream import Stub, stub
from training.log.ingest import ingest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        "SUFFICE_GATEWAY_PYTHON" not in os.environ,
        reason="SUFFICE_GATEWAY_PYTHON names no Python with suffice[litellm]",
    ),
]
ASKED = [{"role": "user", "content": "what is the capital of france?"}]
TOOL = {"type": "function", "function": {"name": "look_up", "parameters": {"type": "object"}}}


@pytest.fixture(scope="module")
def upstream() -> Iterator[Stub]:
    with stub(reply="echo") as running:
        yield running


@pytest.fixture(scope="module")
def proxy(upstream: Stub, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """Always small, but by rule middle for tools."""
    folder = tmp_path_factory.mktemp("gateway")
    _put(folder, Policy(0.0, constant=0))
    with gateway(folder, upstream.url) as running:
        yield running


@pytest.fixture
def client(proxy: Gateway) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{proxy.url}/v1", api_key=KEY, max_retries=0, timeout=60)


def _put(folder: Path, policy: Policy) -> None:
    """An artifact with rules, in the proxy's place for it, by rename."""
    made, current = folder / "new", folder / "artifacts" / "current"
    make_artifact(made, policy)
    edit_manifest(made, lambda manifest: manifest.update(rules={}))
    current.parent.mkdir(exist_ok=True)
    if current.exists():
        current.rename(folder / f"old-{time.monotonic_ns()}")
    made.rename(current)


def served(upstream: Stub) -> str:
    return upstream.counts()["last"]["body"]["model"]


def test_the_classifier_picks(client: openai.OpenAI, upstream: Stub) -> None:
    reply = client.chat.completions.create(model="auto", messages=ASKED)  # type: ignore
    assert reply.choices[0].message.content == f"answer to {ASKED[0]['content']}"
    assert served(upstream) == "vendor/small-1"


def test_tools_reach_rules_and_model(client: openai.OpenAI, upstream: Stub) -> None:
    client.chat.completions.create(model="auto", messages=ASKED, tools=[TOOL])  # type: ignore
    assert served(upstream) == "vendor/middle-1"
    assert upstream.counts()["last"]["body"]["tools"] == [TOOL]


def test_the_hook_picks_without_the_complexity_router(
    client: openai.OpenAI, upstream: Stub
) -> None:
    name = "cheapest-that-suffices"
    client.chat.completions.create(model=name, messages=ASKED)  # type: ignore
    assert served(upstream) == "vendor/small-1"
    client.chat.completions.create(model=name, messages=ASKED, tools=[TOOL])  # type: ignore
    assert served(upstream) == "vendor/middle-1"


def test_the_hook_leaves_an_embedding_alone(client: openai.OpenAI) -> None:
    name = "cheapest-that-suffices"
    with pytest.raises(openai.BadRequestError, match=f"Invalid model name.*{name}"):
        client.embeddings.create(model=name, input="hi")


def test_a_stream(client: openai.OpenAI, upstream: Stub) -> None:
    chunks = list(client.chat.completions.create(model="auto", messages=ASKED, stream=True))  # type: ignore
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text.strip() == f"answer to {ASKED[0]['content']}"
    assert len(chunks) > 3
    assert served(upstream) == "vendor/small-1"


def test_errors_are_the_gateways(client: openai.OpenAI) -> None:
    with pytest.raises(openai.APIStatusError) as refused:
        client.chat.completions.create(model="nobody's", messages=ASKED)  # type: ignore
    assert refused.value.status_code in (400, 404)
    with pytest.raises(openai.BadRequestError, match="refused"):
        client.chat.completions.create(
            model="auto", messages=[{"role": "user", "content": "refuse me"}]
        )


def test_a_reload_under_load_and_the_log(
    client: openai.OpenAI, proxy: Gateway, upstream: Stub, tmp_path: Path
) -> None:
    def ask(number: int) -> bool:
        said = [{"role": "user", "content": f"what is {number}?"}]
        reply = client.chat.completions.create(model="auto", messages=said)  # type: ignore
        return reply.choices[0].message.content == f"answer to what is {number}?"

    with ThreadPoolExecutor(8) as pool:
        first = pool.map(ask, range(100))
        _put(proxy.folder, Policy(0.0, constant=2))
        assert all(first)
        until = time.monotonic() + 60
        while time.monotonic() < until:
            assert all(pool.map(ask, range(100, 120)))
            if served(upstream) == "vendor/large-1":
                break
    assert served(upstream) == "vendor/large-1"
    time.sleep(2)
    log = proxy.folder / "decisions.jsonl"
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    versions = {
        line["router_version"]: line["tier"] for line in lines if line["reason"] == "policy"
    }
    assert sorted(versions.values()) == ["large", "small"]
    counts = Counter(line["tier"] for line in lines)
    assert counts["small"] >= 1 and counts["large"] >= 1  # the swap may come early
    assert len(lines) >= 120
    with (tmp_path / "outcomes.jsonl").open("w") as file:
        for line in lines:
            outcome = {"decision_id": line["decision_id"], "messages": ASKED, "score": 1}
            print(json.dumps(outcome), file=file)
    report = ingest([log, tmp_path / "outcomes.jsonl"], tmp_path / "t.parquet")
    assert report.total["ingested"] == len(lines)
