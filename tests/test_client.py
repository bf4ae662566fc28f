"""The two clients, each against a server on loopback: what they answer, raise and send."""

import asyncio
import sys

import pytest

from tests.stub_upstream import stub
from training.ask.answer import Answer, TryAgain, read_answer
from training.ask.client import Upstream, open_client
from training.errors import BadInput, EnvironmentProblem

SAID = [{"role": "user", "content": "2 + 2?"}]


@pytest.fixture(params=["server", "provider"])
def ask(request, monkeypatch):
    """Ask the stub once, directly or through LiteLLM; what comes back and what the stub saw."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret-key-1234")

    def once(reply, timeout=20.0, latency=0.0):
        with stub(latency, reply=reply) as upstream:
            if request.param == "server":
                client, model = (
                    open_client(Upstream(upstream.url, "OPENAI_API_KEY", timeout)),
                    "m-1",
                )
            else:
                monkeypatch.setenv("OPENAI_BASE_URL", upstream.url)
                client, model = open_client(Upstream(timeout=timeout)), "openai/m-1"
            client.check(model)

            async def run():
                try:
                    return await client.ask(model, SAID, 100, "key-of-the-call")
                finally:
                    await client.close()

            return asyncio.run(run()), upstream.counts()

    return once


def test_an_answer_has_its_text_tokens_and_latency_and_the_call_its_key(ask):
    answer, counts = ask("ok")
    assert (answer.text, answer.finish_reason, answer.error) == ("answer to 2 + 2?", "stop", None)
    assert (answer.input_tokens, answer.output_tokens) == (12, 30)
    assert answer.latency_ms > 0
    body = counts["last"]["body"]
    assert (body["model"], body["messages"]) == ("m-1", SAID)
    assert 100 in (body.get("max_tokens"), body.get("max_completion_tokens"))
    assert counts["last"]["authorization"] == "Bearer sk-very-secret-key-1234"
    assert counts["keys"] == {"2 + 2?": ["key-of-the-call"]}


def test_tokens_that_nobody_counted(ask):
    answer, _ = ask("unbilled")
    assert (answer.input_tokens, answer.output_tokens) == (None, None)


def test_a_refused_call(ask):
    answer, counts = ask("400")
    assert "refused" in answer.error
    assert "very-secret" not in answer.error
    assert counts["asked"] == {"2 + 2?": 1}


@pytest.mark.parametrize(
    ("reply", "error", "words"),
    [("401", EnvironmentProblem, "refuses"), ("404", BadInput, "not found")],
)
def test_a_refused_key_and_an_unknown_model(ask, reply, error, words):
    with pytest.raises(error, match=words) as told:
        ask(reply)
    assert "very-secret" not in str(told.value)


@pytest.mark.parametrize("reply", ["500", "429", "garbage"])
def test_what_may_pass(ask, reply):
    with pytest.raises(TryAgain) as told:
        ask(reply)
    assert told.value.answered
    if reply != "garbage":  # LiteLLM's client of OpenAI reports it as an error of the server
        assert not told.value.maybe_paid


def test_an_answer_that_cannot_be_read_may_have_been_paid():
    with stub(reply="garbage") as upstream:
        client = open_client(Upstream(upstream.url, timeout=5.0))

        async def run():
            for _ in range(12):  # of five kinds
                with pytest.raises(TryAgain) as told:
                    await client.ask("m", SAID, 1, "k")
                assert told.value.maybe_paid
            await client.close()

        asyncio.run(run())


def test_no_answer_in_time_may_have_been_paid(ask):
    with pytest.raises(TryAgain) as told:
        ask("ok", timeout=0.3, latency=30.0)
    assert told.value.maybe_paid


def test_nobody_there():
    client = open_client(Upstream("http://127.0.0.1:9/v1/", timeout=5.0))

    async def run():
        try:
            await client.ask("m", SAID, 1, "k")
        finally:
            await client.close()

    with pytest.raises(TryAgain, match=r"127\.0\.0\.1:9") as told:
        asyncio.run(run())
    assert (told.value.answered, told.value.maybe_paid) == (False, False)


@pytest.mark.parametrize(
    "url",
    ["localhost:1", "ftp://h/v1", "http://", "http://h:port/v1", "http://[::1/v1", "http://a b/v1"],
)
def test_addresses_that_are_none(url):
    with pytest.raises(BadInput, match="--base-url"):
        open_client(Upstream(url))


@pytest.mark.parametrize("url", ["http://[::1]:80/v1", "https://h", "http://me:pw@h:8000/v1/"])
def test_addresses_with_ports_and_passwords_are_taken(url):
    open_client(Upstream(url))


@pytest.mark.parametrize("base_url", ["http://h/v1", None])
def test_the_extra_is_named_where_it_is_missing(base_url, monkeypatch):
    for name in ("tenacity", "litellm", "aiohttp"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(EnvironmentProblem, match=r"suffice\[replay\]"):
        open_client(Upstream(base_url))


# As Mistral's models answer that reason first.
PARTS = [{"type": "thinking", "thinking": []}, {"type": "text", "text": "an answer"}]


@pytest.mark.parametrize(
    "reply",
    [
        *(None, [], "text", {}, {"choices": []}, {"choices": {"a": 1}}, {"choices": [None]}),
        *({"choices": [{"message": m}]} for m in (None, "hi", {}, {"content": {"a": 1}})),
        {"choices": [{"message": {"content": PARTS[:1]}}]},
    ],
)
def test_replies_that_hold_no_text(reply):
    with pytest.raises(TryAgain):
        read_answer(reply, 1.0)


@pytest.mark.parametrize(
    ("choice", "text"),
    [
        ({"message": {"content": None, "tool_calls": [{}]}, "finish_reason": "tool_calls"}, ""),
        ({"message": {"content": None}, "finish_reason": "length"}, ""),
        ({"message": {"content": "cut"}, "finish_reason": "length"}, "cut"),
        ({"message": {"content": PARTS}, "finish_reason": "stop"}, "an answer"),
    ],
)
def test_answers_that_hold_little(choice, text):
    usage = {"prompt_tokens": 7, "completion_tokens": "many"}
    told = read_answer({"choices": [choice], "usage": usage}, 1.0)
    assert told == Answer(text, choice["finish_reason"], 7, None, 1.0)
