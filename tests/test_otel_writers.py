"""Spans of libraries that write OTLP, as they wrote them of calls to a server: one row a call.

opentelemetry-instrumentation-openai 0.40.14 and -anthropic 0.40.14 (OpenLLMetry, flat attributes),
openinference-instrumentation-openai 0.1.66 and -anthropic 3.1.0, logfire 5.4.0, pydantic-ai 2.68.0,
and the spans of anthropic 2.14.0 itself.
"""

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.prompt import Prompt
from tests.test_adapters import counts, lines, read
from training.log.adapters.flat import conventional, listed
from training.log.adapters.records import UNREADABLE
from training.log.adapters.twins import RECENT, Told, Twins

STARTED = 1_790_000_000_000_000_000
PNG = "data:image/png;base64,iVBORw0KGgo="
ERROR = {"code": 2, "message": "Error code: 429 - no"}
OLD = "gen_ai.prompt.0"
SAID = "llm.input_messages"


def value(told: Any) -> dict[str, Any]:
    """A value as OTLP-JSON has it."""
    if isinstance(told, list):
        return {"arrayValue": {"values": [value(one) for one in told]}}
    return {"intValue": str(told)} if isinstance(told, int) else {"stringValue": told}


def span(name: str, told: dict[str, Any], parent: str = "", **more: Any) -> dict[str, Any]:
    """A span of half a second with attributes."""
    times = {"startTimeUnixNano": str(STARTED), "endTimeUnixNano": str(STARTED + 500_000_000)}
    attributes = [{"key": key, "value": value(one)} for key, one in told.items()]
    ids = {"traceId": "t", "spanId": name, "parentSpanId": parent}
    return {**ids, **times, "attributes": attributes, **more}


def written(path: Path, *spans: dict[str, Any]) -> Path:
    """A line of them, as an exporter writes it; the library is the first word of a span's id."""
    scopes = [{"scope": {"name": s["spanId"].split("-")[0]}, "spans": [s]} for s in spans]
    return lines(path / "x.jsonl", {"resourceSpans": [{"scopeSpans": scopes}]})


def openllmetry(**more: Any) -> dict[str, Any]:
    """Flat attributes of OpenLLMetry."""
    used = {"gen_ai.usage.prompt_tokens": 5, "gen_ai.usage.completion_tokens": 2}
    said = {"finish_reason": "stop", "role": "assistant", "content": "re: hello"}
    answered = {f"gen_ai.completion.0.{key}": text for key, text in said.items()}
    told = {"llm.request.type": "chat", "gen_ai.request.model": "gpt-4o-mini"}
    asked = {f"{OLD}.role": "user", f"{OLD}.content": "hello"}
    return {**told, **asked, "gen_ai.response.id": "chatcmpl-a", **used, **answered, **more}


def openinference(**more: Any) -> dict[str, Any]:
    """Flat attributes of OpenInference."""
    return {
        "llm.invocation_parameters": '{"model": "gpt-4o-mini", "stream": true}',
        f"{SAID}.0.message.role": "user",
        f"{SAID}.0.message.content": "hello",
        "llm.model_name": "gpt-4o-mini-2024-07-18",
        "output.value": '{"id": "chatcmpl-b", "choices": []}',
        "llm.token_count.prompt": 5,
        "llm.token_count.completion": 2,
        "llm.output_messages.0.message.role": "assistant",
        "llm.output_messages.0.message.content": "re: hello",
        "llm.finish_reason": "stop",
        "openinference.span.kind": "LLM",
        **more,
    }


def genai(text: str, **more: Any) -> dict[str, Any]:
    """Attributes of the GenAI conventions, as Logfire and pydantic-ai write them."""
    said = [{"role": "user", "parts": [{"type": "text", "content": text}]}]
    told = {"gen_ai.operation.name": "chat", "gen_ai.request.model": "gpt-4o-mini"}
    return {**told, "gen_ai.input.messages": json.dumps(said), **more}


@pytest.mark.parametrize(
    ("told", "id"), [(openllmetry(), "chatcmpl-a"), (openinference(), "chatcmpl-b")]
)
def test_flat_attributes_are_a_row(tmp_path: Path, told: dict[str, Any], id: str) -> None:
    """All of them were skipped as "not a chat call (a span of the application)"."""
    app = span("app", {"session.id": "s", "user.id": "u"})
    report, frame = read(tmp_path, written(tmp_path, span("call", told, "app"), app))
    assert counts(report) == {"read": 2, "ingested": 1, "skipped": 1}
    row = frame.loc[id]
    assert json.loads(row["messages"]) == [{"role": "user", "content": "hello"}]
    assert (row["response"], row["finish_reason"], row["status"]) == ("re: hello", "stop", "ok")
    assert (row["model"], row["input_tokens"], row["output_tokens"]) == ("gpt-4o-mini", 5, 2)
    assert (row["session_id"], row["user_id"], row["latency_ms"]) == ("s", "u", 500)


def test_flat_attributes_of_a_failed_call(tmp_path: Path) -> None:
    asked = {"llm.request.type": "chat", "gen_ai.request.model": "m", f"{OLD}.role": "user"}
    old = {**asked, f"{OLD}.content": "hello"}
    new = {
        key: told for key, told in openinference().items() if "message" in key and "input" in key
    }
    new |= {"llm.invocation_parameters": '{"model": "m"}', "openinference.span.kind": "LLM"}
    calls = [span("app-1", old, status=ERROR), span("app-2", new, status=ERROR)]
    report, frame = read(tmp_path, written(tmp_path, *calls))
    assert counts(report) == {"read": 2, "failed": 2}
    assert frame["model"].tolist() == ["m", "m"]


def test_flat_tools_parts_and_pictures(tmp_path: Path) -> None:
    called = {"id": "c", "name": "weather", "arguments": '{"city": "Taipei"}'}
    picture = {"type": "image_url", "image_url": {"url": PNG}}
    old = {
        f"{OLD}.content": json.dumps([{"type": "text", "text": "look"}, picture]),
        **{f"gen_ai.prompt.1.tool_calls.0.{key}": told for key, told in called.items()},
        "gen_ai.prompt.1.role": "assistant",
        "gen_ai.prompt.2.role": "tool",
        "gen_ai.prompt.2.content": "sunny 晴",
        "gen_ai.prompt.2.tool_call_id": "c",
    }
    part, call = "message.contents", "message.tool_calls.0.tool_call"
    new = {
        f"{SAID}.0.{part}.0.message_content.type": "text",
        f"{SAID}.0.{part}.0.message_content.text": "look",
        f"{SAID}.0.{part}.1.message_content.type": "image",
        f"{SAID}.0.{part}.1.message_content.image.image.url": PNG,
        f"{SAID}.1.message.role": "assistant",
        f"{SAID}.1.{part}.0.message_content.type": "tool_use",
        f"{SAID}.1.{part}.0.tool_call.id": "c",
        f"{SAID}.1.{call}.id": "c",
        f"{SAID}.1.{call}.function.name": "weather",
        f"{SAID}.1.{call}.function.arguments": '{"city": "Taipei"}',
        f"{SAID}.2.message.role": "tool",
        f"{SAID}.2.message.tool_call_id": "c",
        f"{SAID}.2.message.content": "sunny 晴",
    }
    spans = span("app-1", openllmetry(**old)), span("app-2", openinference(**new))
    _, frame = read(tmp_path, written(tmp_path, *spans))
    one, other = (json.loads(text) for text in frame["messages"])
    assert one == other
    assert [message["role"] for message in one] == ["user", "assistant", "tool"]
    assert one[0]["content"][0] == {"type": "text", "text": "look"}
    function = {"name": "weather", "arguments": '{"city": "Taipei"}'}
    assert one[1]["tool_calls"] == [{"id": "c", "type": "function", "function": function}]
    assert one[2] == {"role": "tool", "tool_call_id": "c", "content": "sunny 晴"}
    assert Prompt.of(one).images == 1


def test_blocks_of_anthropic_in_openllmetry(tmp_path: Path) -> None:
    """A call and its result are JSON in the content; the type of the span is completion."""
    use = [{"type": "tool_use", "id": "c", "name": "weather", "input": {"city": "Taipei"}}]
    result = [{"type": "tool_result", "tool_use_id": "c", "content": "sunny"}]
    told = {"llm.request.type": "completion", "gen_ai.prompt.1.role": "assistant"}
    told |= {"gen_ai.prompt.1.content": json.dumps(use), "gen_ai.prompt.2.role": "user"}
    told |= {"gen_ai.prompt.2.content": json.dumps(result)}
    _, frame = read(tmp_path, written(tmp_path, span("a", openllmetry(**told))))
    messages = json.loads(frame["messages"].iloc[0])
    assert messages[1]["tool_calls"][0]["function"]["name"] == "weather"
    assert messages[2] == {"role": "tool", "tool_call_id": "c", "content": "sunny"}


@pytest.mark.parametrize(
    ("told", "why"),
    [
        (openllmetry(**{f"{OLD}.content": ""}), "the logger dropped the prompt"),
        (openllmetry(**{"llm.request.type": "embedding"}), "not a chat call (embedding)"),
        (openinference(**{"openinference.span.kind": "CHAIN"}), "not a chat call (chain)"),
        (openinference(**{f"{SAID}.0.message.content": "__REDACTED__"}), "no prompt in the log"),
        ({"gen_ai.request.model": "m", "ai.prompt": "{}"}, "in attributes that are not read"),
    ],
)
def test_what_is_not_read_is_said(tmp_path: Path, told: dict[str, Any], why: str) -> None:
    source = written(tmp_path, span("a", told), span("b", openllmetry()))
    report, _ = read(tmp_path, source)
    assert counts(report) == {"read": 2, "ingested": 1, "skipped": 1}
    assert why in str(report.notes)


def test_a_hidden_answer_is_none(tmp_path: Path) -> None:
    told = openinference(**{"llm.output_messages.0.message.content": "__REDACTED__"})
    _, frame = read(tmp_path, written(tmp_path, span("a", told)))
    assert frame["response"].tolist() == [None]


@pytest.mark.parametrize("told", [openllmetry(), openinference(), genai("hello")])
def test_a_span_that_was_full_is_no_row(tmp_path: Path, told: dict[str, Any]) -> None:
    """Of 142 messages the SDK drops the first 82: what is left looks like a prompt."""
    full = span("a", told, droppedAttributesCount=171)
    report, _ = read(tmp_path, written(tmp_path, full, span("b", genai("hello"))))
    assert counts(report) == {"read": 2, "ingested": 1, "skipped": 1}
    assert "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT" in str(report.notes)


def during(begin: int, end: int, **more: Any) -> dict[str, Any]:
    """Times of a span, in nanoseconds after the first."""
    times = {"startTimeUnixNano": str(STARTED + begin), "endTimeUnixNano": str(STARTED + end)}
    return {**times, **more}


@pytest.mark.parametrize("how", [{}, {"status": ERROR}])
def test_a_call_told_by_framework_and_client_is_one_row(tmp_path: Path, how: Any) -> None:
    """LangChain's span is not above the client's, and of failures and streams it has no id."""
    told = openinference(**{"output.value": "{}"})
    client = span("client-1", openinference(), **during(10, 90, **how))
    framework = span("framework-1", told, "app", **during(0, 100, **how))
    app = span("app", {"session.id": "s", "user.id": "u"})
    report, frame = read(tmp_path, written(tmp_path, client, framework, app))
    assert report.total["read"] == 3
    assert frame.index.tolist() == ["span-t:framework-1"]
    assert "another library tells of the same call" in str(report.notes)


def test_calls_at_the_same_time_are_rows_of_their_own(tmp_path: Path) -> None:
    """Of one library, of another model, of another text, or where the other is no row."""
    client = genai("hello")
    other = genai("hello", **{"gen_ai.request.model": "claude-3-5-haiku"})
    full = span("framework-2", genai("new"), **during(0, 100, droppedAttributesCount=1))
    spans = [
        span("client-1", client, **during(0, 100)),
        span("client-2", client, **during(10, 90)),
        span("claude-1", other, **during(10, 90)),
        span("framework-1", genai("other"), **during(0, 100)),
        span("client-3", genai("new"), **during(10, 90)),
        full,
    ]
    report, _ = read(tmp_path, written(tmp_path, *spans))
    assert counts(report) == {"read": 6, "ingested": 5, "skipped": 1}


def test_people_are_found_above_a_chat_span(tmp_path: Path) -> None:
    """Pydantic AI's has no prompt where the call failed; the client's below it has."""
    failed = span("client-1", genai("hello"), "agent", status=ERROR)
    silent = span("agent", {"gen_ai.operation.name": "chat"}, "app")
    app = span("app", {"session.id": "s", "user.id": "u"})
    report, frame = read(tmp_path, written(tmp_path, failed, silent, app))
    assert counts(report) == {"read": 3, "failed": 1, "skipped": 2}
    assert frame["user_id"].tolist() == ["u"]


def test_logfire(tmp_path: Path) -> None:
    """The reason of every answer was "[", and a stream was two calls, one without an answer."""
    said = [{"role": "assistant", "parts": [{"type": "text", "content": "answer"}]}]
    done = {"gen_ai.output.messages": json.dumps(said), "gen_ai.response.id": "chatcmpl-a"}
    done |= {"gen_ai.response.finish_reasons": '["stop"]', "logfire.span_type": "log"}
    told = genai("hello", **done, duration=2)
    opened = span("logfire-1", genai("hello", **{"logfire.span_type": "span"}), "app")
    ended = span("logfire-2", told, "app", endTimeUnixNano=str(STARTED))
    failed = span("logfire-3", genai("x", **{"logfire.span_type": "span"}), "app", status=ERROR)
    app = span("app", {"session.id": "[Scrubbed due to 'session']", "user.id": "u"})
    report, frame = read(tmp_path, written(tmp_path, opened, ended, failed, app))
    assert counts(report) == {"read": 4, "ingested": 1, "failed": 1, "skipped": 2}
    row = frame.loc["chatcmpl-a"]
    assert (row["finish_reason"], row["latency_ms"], row["at"].second) == ("stop", 2000, 18)
    assert (row["session_id"], row["user_id"]) == (None, "u")


NAMES = st.sampled_from(["role", "content", "id", "x"])
TREES = st.recursive(
    st.text(max_size=3),
    lambda inner: (
        st.lists(inner, min_size=1, max_size=12)
        | st.dictionaries(NAMES, inner, min_size=1, max_size=3)
    ),
    max_leaves=20,
)


def flat(tree: Any, name: str) -> dict[str, str]:
    """A tree as flat attributes."""
    if isinstance(tree, str):
        return {name: tree}
    inner = enumerate(tree) if isinstance(tree, list) else tree.items()
    return {key: text for step, one in inner for key, text in flat(one, f"{name}.{step}").items()}


@given(st.lists(st.dictionaries(NAMES, TREES, min_size=1, max_size=3), max_size=13), st.randoms())
def test_what_is_listed_is_what_was_flat(tree: list[Any], random: Any) -> None:
    told = list(flat(tree, "p").items())
    random.shuffle(told)
    assert listed({**dict(told), "other.0.role": "x"}, "p.") == tree


AI = "ai.telemetry.metadata"
TRACELOOP = "traceloop.association.properties"


def ai_sdk(*said: Any, **more: Any) -> dict[str, Any]:
    """Attributes of the AI SDK for a call of the provider; `said` are the parts of its message."""
    told = {"ai.operationId": "ai.generateText.doGenerate", "ai.model.id": "gpt-4o-mini"}
    parts = [{"type": "text", "text": "hello"}, *said]
    asked = json.dumps([{"role": "user", "content": parts}])
    return {**told, "ai.prompt.messages": asked, "ai.response.text": "re: hello", **more}


@pytest.mark.parametrize(
    "told",
    [
        {f"{TRACELOOP}.session_id": "s", f"{TRACELOOP}.user_id": "u"},
        {f"{TRACELOOP}.chat_id": "s", f"{TRACELOOP}.user_id": "u", f"{TRACELOOP}.chat": "x"},
        {f"{AI}.threadId": "s", f"{AI}.userId": "u", f"{AI}.requestId": "x"},
        {f"{AI}.session.id": "s", f"{AI}.user.id": "u"},
        {"ai.settings.context.conversationID": "s", "ai.settings.context.userID": "u"},
        {f"{AI}.sessionId": "x", f"{AI}.userId": "x", "session.id": "s", "user.id": "u"},
    ],
)
@pytest.mark.parametrize("above", [False, True])
def test_people_under_names_of_the_application(tmp_path: Path, told: Any, above: bool) -> None:
    """They were null, as only session.id and user.id were read."""
    own, app = ({}, told) if above else (told, {})
    for call in (openllmetry(**own), ai_sdk(**own)):
        source = written(tmp_path, span("call", call, "app"), span("app", app))
        (tmp_path / "t.parquet").unlink(missing_ok=True)
        _, frame = read(tmp_path, source)
        assert frame[["session_id", "user_id"]].values.tolist() == [["s", "u"]]


def test_tags_of_metadata(tmp_path: Path) -> None:
    told = ai_sdk(**{f"{AI}.tags": ["a", "b"]}), openinference(**{"tag.tags": ["a", "b"]})
    _, frame = read(tmp_path, written(tmp_path, *(span(f"l-{n}", t) for n, t in enumerate(told))))
    assert [list(tags) for tags in frame["tags"]] == [["a", "b"]] * 2


@pytest.mark.parametrize(
    "picture",
    [
        {"type": "image", "image": {"0": 137, "1": 80}},  # what 4.0 wrote of bytes
        {"type": "image", "image": PNG.split(",")[1]},
        {"type": "file", "mediaType": "image/png", "data": PNG.split(",")[1]},
        {"type": "file", "mediaType": "image/png", "data": "https://a/x.png"},
        {"type": "image", "image": "https://a/x.png"},
    ],
)
def test_pictures_of_the_ai_sdk(tmp_path: Path, picture: dict[str, Any]) -> None:
    _, frame = read(tmp_path, written(tmp_path, span("a", ai_sdk(picture))))
    [messages] = frame["messages"]
    prompt = Prompt.of(json.loads(messages))
    assert (prompt.images, prompt.text) == (1, "hello")
    assert ("137" in messages, "iVBOR" in messages) == (False, False)
    assert ("https://a/x.png" in messages) == ("https://a/x.png" in picture.values())


def test_tokens_under_both_names_of_the_ai_sdk(tmp_path: Path) -> None:
    old = ai_sdk(**{"ai.usage.promptTokens": 5, "ai.usage.completionTokens": 2})
    new = ai_sdk(**{"ai.usage.inputTokens": 5, "ai.usage.outputTokens": 2})
    _, frame = read(tmp_path, written(tmp_path, span("a-1", old), span("a-2", new)))
    assert frame[["input_tokens", "output_tokens"]].values.tolist() == [[5, 2]] * 2


@pytest.mark.parametrize(
    ("told", "why"),
    [
        (ai_sdk(**{"ai.prompt.messages": '[{"role":"user","con'}), "content was not captured"),
        (ai_sdk(**{"ai.operationId": "ai.streamText"}), "(ai.streamText, around the calls)"),
        (ai_sdk(**{"ai.operationId": "ai.rerank.doRerank"}), "(ai.rerank.doRerank)"),
    ],
)
def test_what_is_not_read_of_the_ai_sdk(tmp_path: Path, told: dict[str, Any], why: str) -> None:
    report, _ = read(tmp_path, written(tmp_path, span("a", told), span("b", ai_sdk())))
    assert counts(report) == {"read": 2, "ingested": 1, "skipped": 1}
    assert why in str(report.notes)


def test_openinference_over_the_ai_sdk(tmp_path: Path) -> None:
    """Its processor puts its own attributes beside those of the AI SDK, on both spans of a call."""
    outer = ai_sdk(**openinference(**{"ai.operationId": "ai.generateText"}))
    spans = span("ai-1", ai_sdk(**openinference())), span("ai-2", outer)
    report, _ = read(tmp_path, written(tmp_path, *spans))
    assert counts(report) == {"read": 2, "ingested": 1, "skipped": 1}


def test_results_of_tools_that_the_provider_runs(tmp_path: Path) -> None:
    """They are told in the answer, after their call: the answer was the result."""
    parts = [
        {"type": "text", "content": "found"},
        {"type": "tool_call", "id": "c", "name": "search", "arguments": {}},
        {"type": "tool_call_response", "id": "c", "response": {"hits": 1}},
    ]
    said = [{"role": "user", "parts": [{"type": "text", "content": "hello"}]}]
    said.append({"role": "assistant", "parts": parts})
    told = {"gen_ai.input.messages": json.dumps(said)}
    told |= {"gen_ai.output.messages": json.dumps(said[1:])}
    _, frame = read(tmp_path, written(tmp_path, span("a", genai("hello", **told))))
    assert frame["response"].tolist() == ["found"]
    roles = [message["role"] for message in json.loads(frame["messages"].iloc[0])]
    assert roles == ["user", "assistant", "tool"]


def test_a_stream_that_broke_is_no_answer(tmp_path: Path) -> None:
    """By its reason alone: the AI SDK gives such a span no status."""
    raised = {"attributes": [{"key": "exception.type", "value": value("TimeoutError")}]}
    broken = span("a-1", ai_sdk(**{"ai.response.finishReason": "error"}))
    failed = span("a-2", ai_sdk(), status=ERROR, events=[{"name": "exception", **raised}])
    report, frame = read(tmp_path, written(tmp_path, broken, failed))
    assert counts(report) == {"read": 2, "failed": 2}
    assert sorted(frame["error"]) == ["ERROR", "TimeoutError"]


STEPS = st.lists(NAMES | st.sampled_from(["0", "1", "10", "message", "contents"]), max_size=4)
PREFIXES = st.sampled_from(["gen_ai.prompt.", "gen_ai.completion.", f"{SAID}."])
VALUES = st.none() | st.text(max_size=5) | st.integers() | st.just('[{"type": "text"}]')
OF_AI = st.sampled_from(["ai.prompt.messages", "ai.response.toolCalls", "ai.response.text"])
KEYS = st.builds(lambda p, s: p + ".".join(s), PREFIXES, STEPS) | OF_AI


@given(st.dictionaries(KEYS, VALUES))
def test_no_attributes_end_the_reading(told: dict[str, Any]) -> None:
    ai = {"ai.operationId": "ai.streamText.doStream"}
    for kind in ({}, {"openinference.span.kind": "LLM"}, ai):
        with suppress(UNREADABLE):
            conventional(told | kind)


def test_of_many_calls_only_the_last_are_looked_through():
    """Whatever else was asked meanwhile; a call that was forgotten leaves nothing behind."""
    twins, outer = Twins(), Told("hello", "m", "framework", 0, 100, "outer")
    inner = Told("hello", "m", "client", 10, 90, "inner")
    assert list(twins.inner(outer)) == []
    for number in range(RECENT - 1):
        assert list(twins.inner(Told(f"question {number}", "m", "client", 1, 2, "other"))) == []
    assert list(twins.inner(inner)) == ["inner"]  # the outer one is the oldest that is known
    assert list(twins.inner(inner._replace(key="late"))) == []
    assert len(twins.recent) == sum(map(len, twins.alike.values())) == RECENT
