"""Real clients and gateways with a router in them, before a stub on loopback."""

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from typing import Any

import httpx
import litellm
import openai
import pydantic
import pytest
from litellm.integrations.custom_logger import CustomLogger
from openai.types.chat import ChatCompletionMessage
from openai.types.responses import ResponseFunctionToolCall

from router import DecisionLog, Policy, Router
from router.artifact import Artifact
from router.integrations.asgi import SufficeMiddleware
from router.integrations.litellm import (
    SufficeClassifier,
    SufficeFacts,
    SufficeHook,
    SufficePlugin,
)
from router.integrations.openai import AsyncSufficeOpenAI, SufficeOpenAI, last_decision
from router.prompt import Prompt
from router.request import unread_chars
from router.rules_file import parse_rules
from tests.builders import TIERS
from tests.stub_upstream import Stub, stub
from training.log.adapters.litellm import rows

ASKED = [{"role": "user", "content": "what is the capital of france?"}]
TOOL = {"type": "function", "function": {"name": "look_up", "parameters": {}}}
PICTURE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,"}}


@pytest.fixture(scope="module")
def router(artifact: Artifact) -> Router:
    """Always small, but for rules: tools and pictures go to middle."""
    return Router(
        replace(artifact, policy=Policy(0.0, constant=0), rules=parse_rules({}, TIERS)),
    )


@pytest.fixture(scope="module")
def upstream() -> Iterator[Stub]:
    with stub(reply="echo") as running:
        yield running


# The OpenAI client


@pytest.fixture
def client(router: Router, upstream: Stub) -> SufficeOpenAI:
    return SufficeOpenAI(router=router, base_url=upstream.url, api_key="k", max_retries=2)


def test_auto_is_picked_and_everything_else_is_left(client: SufficeOpenAI) -> None:
    reply = client.chat.completions.create(model="auto", messages=ASKED)  # type: ignore[arg-type]
    assert reply.model == "vendor/small-1"
    decision = last_decision()
    assert decision is not None
    assert (decision.tier, decision.reason) == ("small", "policy")
    named = client.chat.completions.create(model="mine", messages=ASKED)  # type: ignore[arg-type]
    assert named.model == "mine"
    assert last_decision() is decision


def test_tools_and_options_reach_the_model(client: SufficeOpenAI, upstream: Stub) -> None:
    reply = client.chat.completions.create(
        model="auto",
        messages=ASKED,
        tools=[TOOL],
        temperature=0.5,
        max_tokens=7,  # type: ignore
    )
    assert reply.model == "vendor/middle-1"  # by the rule for tools
    body = upstream.counts()["last"]["body"]
    assert (body["tools"], body["temperature"], body["max_tokens"]) == ([TOOL], 0.5, 7)
    copied = client.with_options(timeout=5).chat.completions.create(model="auto", messages=ASKED)  # type: ignore
    assert copied.model == "vendor/small-1"


def test_rules_read_what_is_told_beside_the_api(artifact: Artifact, upstream: Stub) -> None:
    """`extra_body` is how clients of gateways say what OpenAI's own API does not take."""
    rules = parse_rules({"pin": {"tenant": {"acme": "large"}}}, TIERS)
    router = Router(replace(artifact, policy=Policy(0.0, constant=0), rules=rules))
    told = {"metadata": {"tenant": "acme"}}
    with SufficeOpenAI(router=router, base_url=upstream.url, api_key="k") as client:
        create = client.chat.completions.create
        reply = create(model="auto", messages=ASKED, extra_body=told)  # type: ignore[call-overload]
        assert reply.model == "vendor/large-1"
        assert upstream.counts()["last"]["body"]["metadata"] == told["metadata"]
        assert create(model="auto", messages=ASKED).model == "vendor/small-1"  # type: ignore


def test_streams(client: SufficeOpenAI, router: Router, upstream: Stub) -> None:
    chunks = list(client.chat.completions.create(model="auto", messages=ASKED, stream=True))  # type: ignore
    assert {chunk.model for chunk in chunks} == {"vendor/small-1"}
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert "capital of france" in text

    async def ask() -> tuple[str, str]:
        async with AsyncSufficeOpenAI(
            router=router, base_url=upstream.url, api_key="k"
        ).with_options(timeout=20) as client:
            plain = await client.chat.completions.create(model="auto", messages=ASKED)  # type: ignore
            stream = await client.chat.completions.create(model="auto", messages=ASKED, stream=True)  # type: ignore
            models = {chunk.model async for chunk in stream}
            decision = last_decision()
            assert decision is not None
            return plain.model, models.pop()

    assert asyncio.run(ask()) == ("vendor/small-1", "vendor/small-1")


def test_a_retry_is_not_decided_again(router: Router) -> None:
    seen: list[Any] = []
    router.observe(seen.append)
    with stub(reply="500") as failing:
        client = SufficeOpenAI(router=router, base_url=failing.url, api_key="k", max_retries=2)
        with pytest.raises(openai.InternalServerError):
            client.chat.completions.create(model="auto", messages=ASKED)  # type: ignore
        assert failing.counts()["asked"][ASKED[0]["content"]] == 3
    assert len(seen) == 1


def test_an_answer_given_back_as_a_turn(router: Router) -> None:
    """As tools are called: what the client returned is appended to the messages as it is."""
    call = {"id": "1", "type": "function", "function": {"name": "look_up", "arguments": "x" * 9}}
    answers = [
        ChatCompletionMessage.model_validate({"role": "assistant", "tool_calls": [call]}),
        litellm.Message(role="assistant", tool_calls=[call]),  # type: ignore[no-untyped-call]
    ]
    logged: list[dict[str, Any]] = []
    talker = Router(router.artifact, log=DecisionLog(logged.append, messages=True))
    for answer in answers:
        chat = [*ASKED, answer, {"role": "tool", "tool_call_id": "1", "content": "Paris"}]
        plain = [*ASKED, answer.model_dump(exclude_none=True), chat[-1]]
        assert unread_chars(chat, None) == unread_chars(plain, None) > 0
        decision, expected = talker.route(chat), talker.route(plain)
        assert decision.reason == "policy"
        assert decision.p_suffices == expected.p_suffices
        talker.close()
        assert logged[-1]["messages"] == logged[-2]["messages"] is not None


def test_items_and_blocks_given_back_as_they_are(router: Router) -> None:
    """As the responses API's clients do (`items += response.output`), and Anthropic's."""

    class Block(pydantic.BaseModel):
        type: str = "text"
        text: str = "Let me see."

    call = ResponseFunctionToolCall(
        type="function_call", call_id="1", name="look_up", arguments="x" * 9
    )
    given = {"type": "function_call_output", "call_id": "1", "output": "Paris"}
    turn: Any = {"role": "assistant", "content": [Block()]}
    logged: list[dict[str, Any]] = []
    talker = Router(router.artifact, log=DecisionLog(logged.append, messages=True))
    for chat, plain in (
        ([*ASKED, call, given], [*ASKED, call.model_dump(exclude_none=True), given]),
        ([*ASKED, turn], [*ASKED, {**turn, "content": [Block().model_dump()]}]),
    ):
        assert unread_chars(chat, None) == unread_chars(plain, None)
        decision, expected = talker.route(chat), talker.route(plain)
        assert decision.reason == "policy"
        assert decision.p_suffices == expected.p_suffices
        talker.close()
        assert logged[-1]["messages"] == logged[-2]["messages"] is not None
        said = logged[-1]["messages"]
        assert all(message["role"] for message in json.loads(said))
        assert Prompt.of(json.loads(said)) == Prompt.of(plain)


def test_objects_that_are_no_messages(router: Router) -> None:
    class Other(pydantic.BaseModel):
        content: str = "no role"

    for wrong in (Other(), ChatCompletionMessage):
        assert router.route([wrong]).reason == "fallback:TypeError"  # type: ignore[list-item]


# ASGI


def _app(answers: Callable[[dict[str, Any], bytes], None]) -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        answers(scope, body)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": body})

    return app


def test_an_asgi_app(router: Router) -> None:
    seen: list[tuple[dict[str, Any], bytes]] = []
    app = SufficeMiddleware(_app(lambda scope, body: seen.append((scope, body))), router)

    async def ask(path: str, content: Any, method: str = "POST") -> httpx.Response:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await client.request(method, path, content=content)

    body = json.dumps({"model": "auto", "messages": ASKED, "stream": True}).encode()
    reply = asyncio.run(ask("/v1/chat/completions", body))
    assert reply.json() == {"model": "vendor/small-1", "messages": ASKED, "stream": True}
    assert len(reply.headers["x-suffice-decision"]) == 32
    assert dict(seen[-1][0]["headers"])[b"content-length"] == str(len(seen[-1][1])).encode()

    async def chunks() -> AsyncIterator[bytes]:
        for start in range(0, len(body), 9):
            yield body[start : start + 9]

    assert asyncio.run(ask("/v1/chat/completions", chunks())).json()["model"] == "vendor/small-1"
    headers = dict(seen[-1][0]["headers"])  # a server takes a length or chunks, never both
    assert headers[b"content-length"] == str(len(seen[-1][1])).encode()
    assert b"transfer-encoding" not in headers
    for path, content in (
        ("/v1/chat/completions", b'{"model": "mine", "messages": []}'),
        ("/v1/chat/completions", b"\xff{"),
        ("/v1/chat/completions", b"[" * 100_000),
        ("/v1/embeddings", body),
        ("/v1/chat/completions", b""),
    ):
        passed = asyncio.run(ask(path, content))
        assert passed.content == content
        assert "x-suffice-decision" not in passed.headers
    assert asyncio.run(ask("/v1/chat/completions", body, "PUT")).content == body


def test_an_asgi_app_that_is_shut_down(artifact: Artifact) -> None:
    """The server may end by a signal afterwards, without what runs at exit."""
    lines: list[Any] = []
    router = Router(artifact, log=lines.append)
    told = iter(["lifespan.startup", "lifespan.shutdown"])
    written: list[int] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert (await receive())["type"] == "lifespan.startup"
        for _ in range(100):
            router.route("hello")
        assert (await receive())["type"] == "lifespan.shutdown"
        written.append(len(lines))

    async def receive() -> Any:
        return {"type": next(told)}

    async def send(message: Any) -> None:
        raise AssertionError

    asyncio.run(SufficeMiddleware(app, router)({"type": "lifespan"}, receive, send))
    assert written == [100]


# LiteLLM in the SDK


def gateway(upstream: Stub, **more: Any) -> litellm.Router:
    """A router of LiteLLM with one group of all three models, and a group each."""
    deployments = [
        {
            "model_name": group,
            "litellm_params": {
                "model": f"openai/{tier.model}",
                "api_base": upstream.url,
                "api_key": "k",
            },
        }
        for tier in TIERS
        for group in ("any", tier.name)
    ]
    return litellm.Router(model_list=[*deployments, *more.pop("models", [])], **more)


def test_a_plugin_of_litellms_router(router: Router, upstream: Stub) -> None:
    routed = gateway(upstream, plugins=[SufficePlugin(router)])

    async def ask(model: str, messages: Any, **more: Any) -> Any:
        reply = await routed.acompletion(model=model, messages=messages, **more)
        if more.get("stream"):
            return [chunk async for chunk in reply]
        return reply.model

    picture = [{"role": "user", "content": [PICTURE]}]
    assert {asyncio.run(ask("any", ASKED)) for _ in range(6)} == {"vendor/small-1"}
    assert asyncio.run(ask("any", picture)) == "vendor/middle-1"
    assert asyncio.run(ask("large", ASKED)) == "vendor/large-1"
    assert len(asyncio.run(ask("any", ASKED, stream=True))) > 1


def test_the_classifier_of_litellms_complexity_router(router: Router, upstream: Stub) -> None:
    settings = {
        "classifier_type": "custom",
        "classifier_plugin": SufficeClassifier(router),
        "tier_definitions": [{"name": tier.name, "description": tier.name} for tier in TIERS],
        "fallback_tier": "large",
        "tiers": {tier.name: tier.name for tier in TIERS},
    }
    smart = {
        "model_name": "smart",
        "litellm_params": {
            "model": "auto_router/complexity_router",
            "complexity_router_config": settings,
        },
    }
    routed = gateway(upstream, models=[smart])

    async def ask(messages: Any) -> str:
        return (await routed.acompletion(model="smart", messages=messages)).model

    assert asyncio.run(ask(ASKED)) == "vendor/small-1"
    long = [{"role": "user", "content": "word " * 6000}]
    assert asyncio.run(ask(long)) == "vendor/middle-1"  # by the rule for context windows


def shown(metadata: dict[str, Any]) -> Any:
    """What LiteLLM shows a plugin of a request that asks `ASKED`."""
    from litellm.types.router import RoutingContext

    return RoutingContext(
        raw_messages=ASKED, structured_messages=ASKED, candidate_models=[], metadata=metadata
    )


def test_facts_of_the_proxy_reach_the_rules(router: Router) -> None:
    data = {"messages": ASKED, "tools": [TOOL], "metadata": {"tags": ["a"]}}
    data = asyncio.run(SufficeFacts().async_pre_call_hook(None, None, data, "acompletion"))
    context = shown(data["metadata"])
    assert asyncio.run(SufficeClassifier(router).classify(context)) == "middle"
    named = SufficeClassifier(router, {"middle": "MEDIUM"})
    assert asyncio.run(named.classify(context)) == "MEDIUM"
    bare = context.model_copy(update={"metadata": {}})
    assert asyncio.run(SufficeClassifier(router).classify(bare)) == "small"


@pytest.mark.parametrize(
    "beside",
    [
        {"system": "word " * 9000},  # Anthropic's API
        {"system": [{"type": "text", "text": "word " * 9000}]},
        {"instructions": "word " * 9000},  # the responses API
        {"max_tokens": 2000, "system": "word " * 5500},
        {"functions": [{**TOOL, "description": "x" * 45_000}]},
    ],
)
def test_what_stands_beside_the_messages_fits_the_window(
    beside: dict[str, Any], artifact: Artifact
) -> None:
    """LiteLLM shows a classifier the messages only."""
    rules = parse_rules({"capabilities": False}, TIERS)
    router = Router(replace(artifact, policy=Policy(0.0, constant=0), rules=rules))
    for more, expected in (({}, "small"), (beside, "middle")):
        data = {"messages": ASKED, **more}
        data = asyncio.run(SufficeFacts().async_pre_call_hook(None, None, data, "acompletion"))
        context = shown(data["metadata"])
        assert asyncio.run(SufficeClassifier(router).classify(context)) == expected


@pytest.mark.parametrize("way", ["classifier", "hook"])
@pytest.mark.parametrize(
    "told", [{"metadata": {"session_id": "s"}}, {"litellm_session_id": "s", "metadata": None}]
)
def test_a_session_is_known_however_litellm_is_told(
    told: dict[str, Any], way: str, artifact: Artifact
) -> None:
    rules = parse_rules({"session": {"floor": True}}, TIERS)
    router = Router(replace(artifact, policy=Policy(0.0, constant=0), rules=rules))
    facts, hook = SufficeFacts(), SufficeHook(router)

    async def ask(**more: Any) -> Any:
        data = {"model": "auto", "messages": ASKED, **told, **more}
        if way == "hook":
            return (await hook.async_pre_call_hook(None, None, data, "acompletion"))["model"]
        data = await facts.async_pre_call_hook(None, None, data, "")
        context = shown(data["metadata"])
        return await SufficeClassifier(router).classify(context)

    assert asyncio.run(ask()) == "small"
    assert asyncio.run(ask(tools=[TOOL])) == "middle"
    assert asyncio.run(ask()) == "middle"  # the session's floor


@pytest.mark.parametrize("way", ["classifier", "hook"])
@pytest.mark.parametrize("beside", [{}, {"litellm_metadata": {}}])
def test_a_tenant_is_known_on_every_path(beside: Any, way: str, artifact: Artifact) -> None:
    """Of the responses API LiteLLM keeps its own metadata apart, and shows a plugin these only."""
    rules = parse_rules({"pin": {"tenant": {"acme": "large"}}}, TIERS)
    router = Router(replace(artifact, policy=Policy(0.0, constant=0), rules=rules))
    data = {"model": "auto", "input": "hi", "metadata": {"tenant": "acme"}, **beside}
    if way == "hook":
        hook = SufficeHook(router)
        data = asyncio.run(hook.async_pre_call_hook(None, None, data, "aresponses"))
        assert data["model"] == "large"
        return
    data = asyncio.run(SufficeFacts().async_pre_call_hook(None, None, data, ""))
    context = shown(data.get("litellm_metadata", data["metadata"]))
    assert asyncio.run(SufficeClassifier(router).classify(context)) == "large"


@pytest.mark.parametrize("kind", ["aembedding", "image_generation", "moderation", "aspeech"])
def test_what_is_no_chat_is_left_alone(kind: str, router: Router) -> None:
    data = {"model": "auto", "input": "hi"}
    assert asyncio.run(SufficeHook(router).async_pre_call_hook(None, None, {**data}, kind)) == data


@pytest.mark.parametrize("tools", [10**12, -3, "x", None, [1]])
def test_odd_facts_of_a_caller_cost_nothing(tools: Any, router: Router) -> None:
    context = shown({"suffice_facts": {"tools": tools}, "spend_logs_metadata": {"suffice": 3}})
    assert asyncio.run(SufficeClassifier(router).classify(context)) in ("small", "middle")


def test_decisions_are_in_litellms_own_log(artifact: Artifact, upstream: Stub) -> None:
    """Tier and propensity come with each answer, and only our own word counts."""
    rules = parse_rules({"pin": {"tag": {"hard": "large"}}}, TIERS)
    router = Router(replace(artifact, policy=Policy(0.0, constant=0), rules=rules), explore=0.25)
    kept: dict[str, Any] = {}  # by what was asked: late lines of other tests come here, too

    class Keep(CustomLogger):
        async def async_log_success_event(self, kwargs: Any, *_: Any, **__: Any) -> None:
            record = json.loads(json.dumps(kwargs["standard_logging_object"], default=str))
            kept[record["messages"][0]["content"]] = record

    hook, facts, plain = SufficeHook(router), SufficeFacts(), gateway(upstream)
    forged = {"spend_logs_metadata": {"suffice": {"tier": "large", "propensity": 0.1}, "a": 1}}
    asked: dict[str, tuple[Any, str, dict[str, Any]]] = {
        "a free one": (hook, "auto", {}),
        "a hard one": (hook, "auto", {"tags": ["hard"]}),
        "a direct one": (facts, "small", forged),
    }

    async def ask() -> None:
        for text, (callback, model, metadata) in asked.items():
            data = {"model": model, "messages": [{"role": "user", "content": text}]}
            data |= {"metadata": metadata}
            data = await callback.async_pre_call_hook(None, None, data, "acompletion")
            await plain.acompletion(**data)
        for _ in range(200):
            if set(asked) <= set(kept):
                break
            await asyncio.sleep(0.05)

    before, litellm.callbacks = litellm.callbacks, [Keep()]
    try:
        asyncio.run(ask())
    finally:
        litellm.callbacks = before
    free, hard, direct = (next(iter(rows(kept[text]))) for text in asked)
    assert isinstance(free, dict) and isinstance(hard, dict) and isinstance(direct, dict)
    assert free["propensity"] == (0.75 if free["tier"] == "small" else 0.125)
    assert (hard["tier"], hard["propensity"]) == ("large", 1.0)
    assert "tier" not in direct
    assert kept["a direct one"]["metadata"]["spend_logs_metadata"]["a"] == 1


def test_another_models_answer_is_not_booked_to_the_decision() -> None:
    signed = {"tier": "small", "model": "vendor/small-1", "propensity": 0.5}
    record = {"call_type": "acompletion", "startTime": 1.0, "response_cost": 0.1, "id": "1"}
    record |= {"messages": ASKED, "metadata": {"spend_logs_metadata": {"suffice": signed}}}
    for model, group, tier in (
        ("openai/vendor/small-1", "any", "small"),
        ("azure/deployed", "small", "small"),
        ("openai/vendor/large-1", "large", None),  # LiteLLM fell back to it
    ):
        [row] = rows({**record, "model": model, "model_group": group})
        assert isinstance(row, dict) and row.get("tier") == tier


def test_threads_see_their_own_decision(client: SufficeOpenAI) -> None:
    found: dict[int, Any] = {}

    def ask(number: int) -> None:
        assert last_decision() is None
        client.chat.completions.create(model="auto", messages=ASKED)  # type: ignore
        found[number] = last_decision()

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({decision.id for decision in found.values()}) == 4
